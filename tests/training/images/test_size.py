"""The size of the input: as large as the images are, or as the time that one may take allows; and what is lost."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import okng
from okng.cli.common import parse_time
from okng.errors import OkngError
from okng.training.images import size
from okng.training.images.input import build
from okng.training.images.size import own_size, size_within


@pytest.mark.parametrize(
    ("shape", "wanted", "words"),
    [
        ((100, 80), 256, "area of about 256²"),  # small images are enlarged to what the network knows
        ((300, 300), 300, "as large as the images"),
        ((200, 800), 400, "as large as the images"),
        ((1600, 1600), 640, "shrunk 2.5 times: a scratch of 10 px becomes 4"),
        ((700, 700), 640, "area of about 640², the most by default (--size changes it)"),
    ],
)
def test_as_large_as_the_images_are(shape: tuple[int, int], wanted: int, words: str) -> None:
    found, why = own_size(640, *shape)
    assert found == wanted and words in why and ("shrunk" in why) == (shape[0] == 1600)


class Slow:
    """Takes a second for an input of 1000², by its area."""

    largest, multiple = 640, 32


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    asked = []

    def by_area(detector: Slow, shape: tuple[int, int], count: int) -> float:
        asked.append(shape)
        return math.prod(shape) / 1e6

    monkeypatch.setattr(size, "_timed", by_area)
    return asked


def square(side: int) -> tuple[int, int]:
    return side, side


def within(seconds: float, height: int = 1280, shape_of: Callable[[int], tuple[int, int]] = square) -> tuple[int, str]:
    return size_within(seconds, Slow(), shape_of, 100, height, height)  # type: ignore[arg-type]


def test_the_largest_size_within_the_time(timed: list[tuple[int, int]]) -> None:
    chosen, why = within(0.1)  # 316² would take it all
    assert chosen == 288 and "takes 83 ms" in why and "asked at most 100 ms" in why
    assert "shrunk 4.4 times: a scratch of 10 px becomes 2" in why
    assert len(timed) <= 7


def test_time_enough_for_the_images_own_size_leaves_it(timed: list[tuple[int, int]]) -> None:
    assert within(10.0, 500)[0] == 500 and "shrunk" not in within(10.0, 500)[1]


def test_a_time_that_nothing_keeps_to_is_said(timed: list[tuple[int, int]]) -> None:
    with pytest.raises(OkngError, match=r"an image takes 16 ms even at 128².*more than 5 ms"):
        within(0.005)


def test_a_real_detector_is_timed_at_the_size_of_its_memory() -> None:
    parts = np.random.default_rng(0).integers(0, 255, (4, 160, 160, 3), np.uint8)
    built, preprocess, why = build("patch_memory", list(parts), None, {"weights": "none"}, seconds=60.0)
    assert preprocess.size == 256 and "by PyTorch on" in why
    assert len(built.bank) == 0  # type: ignore[arg-type]  # what was timed is another one


def test_what_is_timed_changes_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its random backbone once took the numbers of the one that stays, whose memory is of the folds' features."""
    monkeypatch.setattr("okng.training.images.input.size_within", lambda *_: (64, "in time"))
    parts = np.random.default_rng(0).integers(0, 255, (4, 64, 64, 3), np.uint8)
    settings: dict[str, Any] = {"weights": "none", "holdout": 0, "device": "cpu"}
    timed, sized = okng.fit(parts, time_per_image=1.0, **settings), okng.fit(parts, size=64, **settings)
    assert np.array_equal(timed.score_samples(parts), sized.score_samples(parts))


def test_who_decides() -> None:
    parts = np.random.default_rng(0).integers(0, 255, (4, 300, 300, 3), np.uint8)
    assert build("patch_memory", list(parts), None, {"weights": "none"})[1].size == 300
    assert build("patch_memory", list(parts), 64, {"weights": "none"})[1].size == 64
    assert build("patchcore", list(parts), None, {"weights": "none"})[1].size == 256  # the paper's method
    with pytest.raises(OkngError, match="only patch_memory chooses its size"):
        build("patchcore", list(parts), None, {"weights": "none"}, seconds=1.0)
    with pytest.raises(OkngError, match="give one of them"):
        okng.fit(parts, size=64, time_per_image=1.0)
    with pytest.raises(OkngError, match="time_per_image is above 0"):
        okng.fit(parts, time_per_image=0)


def test_presets() -> None:
    parts = np.random.default_rng(0).integers(0, 255, (4, 64, 64, 3), np.uint8)
    quick = okng.fit(parts, preset="fast", size=64, weights="none", holdout=0.5, device="cpu")
    assert quick.manifest["provenance"]["preset"] == "fast" and quick.preprocess.size == 64
    assert "as asked" in quick.manifest["provenance"]["input"]
    assert quick.manifest["detector"]["arguments"]["coreset_limit"] == 1000
    usual = okng.fit(parts, preset="fast", weights="none", holdout=0.5, device="cpu")
    assert "256x256: what the preset fast says" in usual.manifest["provenance"]["input"]
    for asked, message in [
        ({"preset": "fastest"}, "no preset 'fastest'; did you mean fast"),
        ({"preset": "best", "detector": "padim"}, "presets are of patch_memory, and padim has none"),
        ({"preset": "best", "budget": "cpu"}, "preset and budget both choose arguments"),
    ]:
        with pytest.raises(OkngError, match=message):
            okng.fit(parts, **asked)


@pytest.mark.parametrize(("text", "seconds"), [("50ms", 0.05), ("0.05s", 0.05), ("2 s", 2.0), (None, None)])
def test_times_as_typed(text: str | None, seconds: float | None) -> None:
    assert parse_time(text) == seconds


@pytest.mark.parametrize("text", ["fast", "ms", "5 min", "5", "5m", "0.05"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(OkngError, match="a time such as 50ms"):
        parse_time(text)
