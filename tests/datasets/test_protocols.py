"""Each protocol by its counts, and that no image is both learnt from and judged."""

from collections import Counter

import numpy as np
import pytest

from okng.datasets import NG, OK, Sample, open_dataset
from okng.datasets.protocols import Classes, contaminate, divide, split_by_seed, take_ng
from okng.errors import OkngError


def pool(tmp_path, split=True):
    """Classes a, b, c with 20, 30 and 40 images to train, and half as many to test; each image holds its number."""
    numbers = iter(range(10_000))

    def samples(factor):
        return tuple(
            Sample(np.full((2, 2), next(numbers), np.uint16), kind=kind)
            for kind, count in (("a", 20), ("b", 30), ("c", 40))
            for _ in range(count // factor)
        )

    return Classes(tmp_path, "idx", samples(1), samples(2) if split else None)


def numbers(samples):
    return [int(sample.image[0, 0]) for sample in samples]


def counts(samples):
    return dict(Counter((sample.kind, sample.label) for sample in samples))


def check(dataset):
    """Training images are OK, and no image stands in two places."""
    assert {sample.label for sample in dataset.train} == {OK}
    seen = numbers(dataset.train + dataset.test + dataset.ng)
    assert len(seen) == len(set(seen))


def test_one_vs_rest_with_one_and_with_several_classes(tmp_path):
    one = divide(pool(tmp_path), "b")
    check(one)
    assert counts(one.train) == {("b", OK): 30}
    assert counts(one.test) == {("a", NG): 10, ("b", OK): 15, ("c", NG): 20}
    assert counts(one.ng) == {("a", NG): 20, ("c", NG): 40}
    two = divide(pool(tmp_path), "c, a")
    check(two)
    assert counts(two.train) == {("a", OK): 20, ("c", OK): 40}
    assert counts(two.test) == {("a", OK): 10, ("b", NG): 15, ("c", OK): 20}
    assert "classes a, c" in two.protocol and "native split" in two.protocol


def test_80_20_is_balanced_and_pools_both_parts(tmp_path):
    dataset = divide(pool(tmp_path), "b", "80/20", seed=1)
    check(dataset)
    assert counts(dataset.train) == {("b", OK): 36}
    assert Counter(sample.label for sample in dataset.test) == {OK: 9, NG: 9}
    assert "80/20 balanced by seed 1" in dataset.protocol and "(9 of 90)" in dataset.protocol
    assert numbers(divide(pool(tmp_path), "b", "80/20", seed=1).test) == numbers(dataset.test)
    assert numbers(divide(pool(tmp_path), "b", "80/20", seed=2).test) != numbers(dataset.test)
    unsplit = divide(pool(tmp_path, split=False), "b", "80/20")
    assert len(unsplit.train) == 24 and Counter(s.label for s in unsplit.test) == {OK: 6, NG: 6}


def test_leave_one_class_out(tmp_path):
    dataset = divide(pool(tmp_path), None, "leave-one-class-out", abnormal="b")
    check(dataset)
    assert counts(dataset.test)["b", NG] == 45
    assert len(dataset.train) == 72 and sum(s.label == OK for s in dataset.test) == 18
    assert "class b is NG" in dataset.protocol
    assert divide(pool(tmp_path), None, abnormal="b").protocol == dataset.protocol


@pytest.mark.parametrize("split", [True, False])
def test_contamination_is_the_share_asked_and_leaves_the_test_set(tmp_path, split):
    clean = divide(pool(tmp_path, split), "c")
    dirty = contaminate(clean, 0.1, seed=3)
    hidden = [sample for sample in dirty.train if sample.label == NG]
    assert len(hidden) / len(dirty.train) == pytest.approx(0.1, abs=0.02)
    assert sorted(numbers(dirty.train + dirty.test)) == sorted(numbers(clean.train + clean.test))
    assert not set(numbers(hidden)) & set(numbers(dirty.test))
    assert "Contamination 10.00%" in dirty.protocol and f"{len(hidden)} NG images" in dirty.protocol
    assert contaminate(clean, 0.0, seed=3) == clean


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"normal": "d"}, "no class 'd'"),
        ({"normal": "a,d"}, "no class 'd'"),
        ({"normal": "a,b,c"}, "leave at least one out"),
        ({"normal": "a", "protocol": "mvtec"}, "its protocols are one-vs-rest"),
        ({"normal": "a", "protocol": "leave-one-class-out"}, "abnormal or --abnormal"),
        ({"normal": "a", "protocol": "80/20", "abnormal": "b"}, "abnormal or --abnormal"),
        ({"normal": "a", "abnormal": "b"}, "leave normal='a' out"),
        ({"normal": None, "abnormal": "e"}, "no class 'e'"),
    ],
)
def test_what_does_not_fit_is_one_clear_line(tmp_path, arguments, message):
    with pytest.raises(OkngError, match=message):
        divide(pool(tmp_path), **arguments)


def test_too_much_contamination(tmp_path):
    dataset = divide(pool(tmp_path), "c")
    with pytest.raises(OkngError, match="40 NG images are to be learnt from but the test part has 25"):
        contaminate(dataset, 0.5, seed=0)
    with pytest.raises(OkngError, match=r"such as 0\.05, not 1\.5"):
        contaminate(dataset, 1.5, seed=0)


def test_protocols_of_folders(classes, split_classes, mvtec):
    assert counts(open_dataset(classes, protocol="80/20", normal="obj1").train) == {("obj1", OK): 8}
    assert len(open_dataset(classes, protocol="80/20", normal="obj1").test) == 4
    assert counts(open_dataset(split_classes, abnormal="cat").test)["cat", NG] == 5
    assert open_dataset(mvtec, protocol="mvtec") == open_dataset(mvtec)
    with pytest.raises(OkngError, match="its protocol is mvtec; leave 'one-vs-rest' out"):
        open_dataset(mvtec, protocol="one-vs-rest")
    with pytest.raises(OkngError, match="no protocol '80-20'; did you mean 80/20"):
        open_dataset(mvtec, protocol="80-20")
    dirty = open_dataset(mvtec, contamination=0.4)
    assert counts(dirty.train) == {("good", OK): 2, ("crack", NG): 1} and len(dirty.test) == 3


def test_four_fifths_are_rounded_down():
    for count, learnt in ((2, 1), (9, 7), (11, 8), (14, 11)):
        train, rest = split_by_seed([Sample(np.full((1, 1), i)) for i in range(count)], seed=3)
        assert len(train) == learnt and numbers(train) == sorted(numbers(train))
        assert sorted(numbers(train + rest)) == list(range(count))


def test_one_ng_image_at_least_is_left_to_be_judged():
    samples = [Sample(np.full((1, 1), i), NG if i % 2 else OK) for i in range(8)]
    drawn, rest = take_ng(samples, 3, seed=0)
    assert len(drawn) == 3 and {sample.label for sample in drawn} == {NG} and len(rest) == 5
    assert numbers(drawn) == sorted(numbers(drawn)) and numbers(rest) == sorted(numbers(rest))
    with pytest.raises(OkngError, match="4 NG images are to be learnt from but the test part has 4"):
        take_ng(samples, 4, seed=0)


def test_without_a_split_no_ng_image_is_learnt_from_and_judged(tmp_path):
    dataset = divide(pool(tmp_path, split=False), "b")
    check(dataset)
    assert dataset.ng == () and counts(dataset.test) == {("b", OK): 6, ("a", NG): 20, ("c", NG): 40}


def test_one_class_is_left_out_and_not_several(tmp_path):
    with pytest.raises(OkngError, match="has no class 'a,b'"):
        divide(pool(tmp_path), None, abnormal="a,b")
