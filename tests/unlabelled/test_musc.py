"""What tells MuSc from a toy: each other image counts once, by its own nearest; and nothing holds beyond the set."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from tests.contract.conftest import pictures
from torch import Tensor

import okng
from okng.cli.rank import rank as verb
from okng.errors import OkngError
from okng.unlabelled.musc import MuSc, aggregated, agreed, mutual_scores

ARGUMENTS = {"weights": "none", "strides": (4, 8), "sides": (1, 3)}


def tokens(count: int, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [F.normalize(torch.randn(7 + i % 2, 16, generator=generator), dim=1) for i in range(count)]


def test_scores_are_those_of_a_loop_over_all_tokens() -> None:
    images = tokens(6)
    found = mutual_scores(images, 0.45)
    for i, one in enumerate(images):
        for m, token in enumerate(one):
            nearest = sorted(
                min(float((token - other).norm()) for other in images[j]) for j in range(6) if j != i
            )  # an image counts once, however many close tokens it has
            assert float(found[i][m]) == pytest.approx(sum(nearest[:2]) / 2, abs=1e-5)


def test_of_equal_images_a_changed_token_alone_scores() -> None:
    same = tokens(1)[0]
    images = [same.clone() for _ in range(8)]
    images[3][2] = F.normalize(torch.randn(16, generator=torch.Generator().manual_seed(9)), dim=0)
    found = mutual_scores(images, 0.3)
    assert float(found[3][2]) > 0.3
    found[3][2] = 0
    assert float(torch.stack(found).max()) < 1e-6


def test_a_defect_that_two_of_twenty_share_is_still_odd() -> None:
    """Three tenths of the others have to agree: the nearest of all tokens would say that it is OK."""
    same, rare = tokens(1)[0], F.normalize(torch.randn(16), dim=0)
    images = [same.clone() for _ in range(20)]
    images[3][2] = images[11][5] = rare
    found = mutual_scores(images, 0.3)
    assert float(found[3][2]) > 0.3 and float(found[11][5]) > 0.3


def test_the_order_of_the_images_does_not_matter() -> None:
    images, order = tokens(6), [3, 0, 5, 1, 4, 2]
    straight, turned = mutual_scores(images, 0.3), mutual_scores([images[i] for i in order], 0.3)
    for place, i in enumerate(order):
        torch.testing.assert_close(turned[place], straight[i])


def test_similar_images_share_their_scores() -> None:
    scores, classes = torch.rand(9), torch.randn(9, 4)
    assert torch.equal(agreed(scores, classes, (1,)).argsort(), scores.argsort())  # each itself alone
    alone = agreed(scores, classes, (1,))
    pairs = torch.eye(4)[[0, 0, 1, 1, 2, 2, 3, 3]]
    both = agreed(scores[:8], pairs, (2,)).view(4, 2)
    rescaled = (scores[:8] - scores[:8].min()) / (scores[:8].max() - scores[:8].min())
    torch.testing.assert_close(both, rescaled.view(4, 2).mean(1, keepdim=True).expand(4, 2))
    assert float(alone.min()) == 0 and float(alone.max()) == 1
    assert torch.equal(agreed(torch.ones(3), torch.randn(3, 4), (1, 2)), torch.zeros(3))  # nothing is odd


def test_tokens_are_normalised_as_a_whole_and_averaged_with_zeros_beyond_the_edge() -> None:
    grid = torch.randn(3, 4, 5) * 7 + 2
    flat = (grid - grid.mean()) / grid.var(correction=0).add(1e-5).sqrt()
    torch.testing.assert_close(aggregated(grid, 1), F.normalize(flat.flatten(1).T, dim=1))
    corner = flat[:, :2, :2].sum((1, 2)) / 9
    torch.testing.assert_close(aggregated(grid, 3)[0], F.normalize(corner, dim=0))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine discs, one of which has a scratch, one that can't be read, and images of two shapes."""
    root = tmp_path_factory.mktemp("unlabelled")
    for i, image in enumerate([*pictures(8, seed=1), *pictures(1, seed=5, defect=True)]):
        shape = (64, 64) if i % 2 else (64, 40)
        Image.fromarray(image).resize(shape).save(root / f"{i}.png")
    (root / "broken.png").write_bytes(b"no image")
    return root


def test_the_odd_image_comes_first_each_time(folder: Path) -> None:
    found = okng.rank(folder, size=64, **ARGUMENTS)
    assert len(found) == 9 and found[0].path == str(folder / "8.png")
    assert [each.score for each in found] == sorted((each.score for each in found), reverse=True)
    assert {each.map.shape for each in found} == {(16, 16), (12, 20)}
    assert all(np.isfinite(each.map).all() and each.map.min() >= 0 for each in found)
    again = okng.rank(folder, size=64, **ARGUMENTS)
    assert [(each.path, each.score) for each in again] == [(each.path, each.score) for each in found]


def test_many_images_are_compared_in_parts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    forward = MuSc.forward
    monkeypatch.setattr(MuSc, "forward", lambda self, grids, classes: (
        seen.append(len(grids)), forward(self, grids, classes)
    )[1])  # fmt: skip
    assert len(okng.rank(folder, size=64, together=5, **ARGUMENTS)) == 9
    assert seen == [9]  # of 4 and 5 images, 4 would tell nothing
    several = [folder / f"{number}.png" for number in (*range(9), 0, 1)]
    assert len(okng.rank([Image.open(path) for path in several], size=64, together=6, **ARGUMENTS)) == 11
    assert sorted(seen[1:]) == [5, 6]


def test_the_verb_prints_them_and_promises_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    verb([folder], param=["weights=none", "strides=4,8", "sides=1"], size=64, as_json=True)
    told = capsys.readouterr()
    assert json.loads(told.out)["images"][0]["path"] == str(folder / "8.png")
    assert "promise nothing" in told.err and "skipped" in told.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"together": 3}, "together is a whole number, 5 or more"),
        ({"together": 7.5}, "together is a whole number, 5 or more"),
        ({"size": 8}, "size is a number"),
        ({"sides": (2,)}, "sides are odd"),
        ({"share": 0.0}, "share is of"),
        ({"keep": (0,)}, "keep is 1 or more"),
        ({"colour": 1}, "no parameter 'colour'"),
    ],
)
def test_mistakes_are_one_line(folder: Path, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(OkngError, match=message):
        okng.rank(folder, **{**ARGUMENTS, **arguments})  # type: ignore[arg-type]


def test_few_images_tell_nothing(folder: Path) -> None:
    with pytest.raises(OkngError, match="bring 5 or more"):
        okng.rank([folder / "1.png", folder / "2.png"], size=64, **ARGUMENTS)
    with pytest.raises(OkngError, match=r"^1 readable image is too few to tell which of them are odd"):
        okng.rank(folder / "1.png", size=64, **ARGUMENTS)
