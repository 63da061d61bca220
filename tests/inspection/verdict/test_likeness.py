"""Images unlike those learnt from are told of, and others are not."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from okng.errors import OkngWarning
from okng.inspection.verdict.likeness import Likeness, Traits, describe, sharpness, warn_of_shrinking

USUAL = Traits((320, 320), False, 255, "PNG", 100.0)
LEARNT = describe([USUAL, USUAL._replace(brightness=120.0)])


def told(images: list[Traits], ng: int = 0, learnt: dict | None = LEARNT) -> list[str]:
    likeness = Likeness(learnt)
    for i, image in enumerate(images):
        likeness.add(image, i < ng)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        likeness.warn()
    assert all(warning.category is OkngWarning for warning in caught)
    return [str(warning.message) for warning in caught]


def test_a_description_is_of_all_images_there_were() -> None:
    more = describe([Traits((100, 400), True, 4095, "JPEG", 20.0)], LEARNT)
    assert more == {
        "height": [100, 320], "width": [320, 400], "aspect": [0.25, 1.0], "brightness": [20.0, 120.0],
        "grey": [False, True], "white": [255, 4095], "format": ["JPEG", "PNG"],
        "samples": {
            "brightness": [*LEARNT["samples"]["brightness"], 20.0],
            "sharpness": [*LEARNT["samples"]["sharpness"], 0.0],
        },
    }  # fmt: skip
    again = describe([USUAL], LEARNT)
    assert {**again, "samples": 0} == {**LEARNT, "samples": 0}
    older = {name: values for name, values in LEARNT.items() if name != "samples"}
    assert "samples" not in describe([USUAL], older)  # of some of the images they would be no sample of all


def test_of_many_images_a_thousand_are_samples_and_near_copies_are_none() -> None:
    many = [USUAL._replace(brightness=float(i)) for i in range(3000)]
    samples = describe(many)["samples"]["brightness"]
    assert len(samples) == 1000 and (samples[0], samples[-1]) == (0, 2999) and len(set(samples)) == 1000
    assert describe(many, apart=many[:3])["samples"]["brightness"] == [0, 1, 2]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"size": (2048, 2048)}, "2048x2048 against 320x320"),
        ({"size": (100, 100)}, "100x100 against 320x320"),
        ({"size": (320, 440)}, "320x440 against 320x320"),
        ({"size": (440, 320)}, "440x320 against 320x320"),
        ({"size": (320, 500)}, "320x500 against 320x320"),
        ({"size": (205, 205)}, "205x205 against 320x320"),
        ({"grey": True}, "grey against colour"),
        ({"white": 4095}, "12-bit samples against 8-bit"),
        ({"format": "JPEG"}, "JPEG against PNG"),
        ({"brightness": 200.0}, "mean brightness 200 against 100 to 120 of 255"),
        ({"brightness": 30.0}, "mean brightness 30"),
    ],
)
def test_what_is_unlike_is_named(change: dict, words: str) -> None:
    (line,) = told([USUAL._replace(**change)] * 3)
    assert line.startswith("the images are unlike those learnt from: ") and words in line


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"size": (300, 330)},
        {"size": (360, 300)},
        {"size": (470, 470)},
        {"size": (220, 220)},
        {"format": "BMP"},
        {"format": None},
        {"brightness": 80.0},
        {"brightness": 140.0},
    ],
)
def test_what_is_like_enough_is_not(change: dict) -> None:
    assert told([USUAL._replace(**change)] * 3) == []


def test_a_range_is_said_and_a_lossless_format_is_any_other() -> None:
    mixed = describe([USUAL, USUAL._replace(size=(400, 320), white=4095, grey=True)])
    (line,) = told([USUAL._replace(size=(900, 700), white=1000)], learnt=mixed)
    assert "900x700 against 320x320 to 400x320" in line
    assert "white at 1000 samples against 8-bit, 12-bit" in line and "colour" not in line
    lossy = describe([USUAL._replace(format="JPEG")])
    assert "PNG against JPEG" in told([USUAL], learnt=lossy)[0]


def test_brightness_may_leave_what_was_learnt_by_as_much_as_that_varied() -> None:
    varied = describe([USUAL, USUAL._replace(brightness=150.0)])
    for brightness, lines in [(51.0, 0), (49.0, 1), (199.0, 0), (201.0, 1)]:
        assert len(told([USUAL._replace(brightness=brightness)], learnt=varied)) == lines
    for brightness, lines in [(76.0, 0), (74.0, 1), (144.0, 0), (146.0, 1)]:  # but never by less than 25
        assert len(told([USUAL._replace(brightness=brightness)])) == lines


def test_half_of_the_images_dark_are_said_and_fewer_are_not() -> None:
    dark = USUAL._replace(brightness=0.0)
    assert told([USUAL, USUAL, dark]) == []
    (line,) = told([USUAL, dark])
    assert line.startswith("1 of 2 images are unlike") and "mean brightness 0 against" in line


def test_a_few_are_counted_and_a_single_dark_one_is_a_verdicts_matter() -> None:
    dark, large = USUAL._replace(brightness=0.0), USUAL._replace(size=(640, 640))
    assert told([USUAL] * 5 + [dark]) == []
    (line,) = told([USUAL] * 5 + [dark, large])
    assert line == "1 of 7 images are unlike those learnt from: 640x640 against 320x320"


def test_all_ng_is_said_with_the_likely_cause() -> None:
    (line,) = told([USUAL] * 5, ng=5)
    assert line.startswith("all 5 images are NG: if most of them are good, see whether camera, light")
    unlike, line = told([USUAL._replace(grey=True)] * 9, ng=9)
    assert "unlike" in unlike and line.startswith("all 9 images are NG: likely because they are unlike")
    assert told([USUAL] * 4, ng=4) == told([USUAL] * 9, ng=8) == told([], learnt=None) == []


def test_a_model_that_remembers_nothing_says_nothing() -> None:
    assert told([USUAL._replace(size=(2048, 2048))] * 3, learnt=None) == []


def test_shrinking_more_than_threefold_is_said_with_its_consequence() -> None:
    with pytest.warns(OkngWarning, match=r"shrink 8\.0-fold, from 2048x2048 to 256x256: a defect of 8 px becomes 1 px"):
        warn_of_shrinking([(300, 300), (2048, 2048)], [(256, 256)] * 2)
    with pytest.warns(OkngWarning, match=r"--size 704 \(size=704\)"):
        warn_of_shrinking([(2048, 2048)], [(256, 256)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_shrinking([(768, 768)], [(256, 256)])
        warn_of_shrinking([(2048, 2048)], [(704, 704)])


@pytest.mark.parametrize("channels", [1, 3])
def test_sharpness_is_of_the_mean_of_the_channels(channels: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, channels), np.uint8)
    grey = pixels.mean(2)
    around = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]
    assert sharpness(pixels) == pytest.approx((around - 4 * grey[1:-1, 1:-1]).std() / grey.std(), abs=2e-5)
