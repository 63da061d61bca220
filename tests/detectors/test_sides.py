"""Detectors that are called directly, with sides that okng's preprocessing never gives them."""

from __future__ import annotations

import pytest
import torch

from okng.detectors.base import Detector, Scores
from okng.detectors.cards import cards
from okng.detectors.catalogue import create, parameters
from okng.errors import OkngError


@pytest.mark.parametrize(("name", "multiple"), [("uflow", 16), ("salad", 32), ("cfa", 16), ("csflow", 32)])
def test_sides_that_are_no_multiple_are_said_in_one_line(name: str, multiple: int) -> None:
    """It was a mistake about tensors, deep in the network."""
    known = {"weights": "none", "image_size": (70, 70)}
    given = cards()[name].arguments["contract"] | {key: known[key] for key in known.keys() & parameters(name).keys()}
    with pytest.raises(OkngError, match=f"^{name} needs sides that are multiples of {multiple}, not 70x70$"):
        create(name, **given).eval()(torch.rand(1, 3, 70, 70))


class Halved(Detector):
    """It adds two halves of an image; at any size it `fails` so, if it is told to."""

    multiple = 2  # type: ignore[assignment]

    def __init__(self, fails: str = ""):
        super().__init__()
        self.fails = fails

    def forward(self, images: torch.Tensor) -> Scores:
        if self.fails:
            raise RuntimeError(self.fails)
        return Scores((images[..., ::2, :] + images[..., 1::2, :]).amax((1, 2, 3)))


def test_only_what_fails_on_them_is_said_so() -> None:
    assert Halved()(torch.ones(1, 3, 8, 5)).image == 2  # its width may be anything
    with pytest.raises(OkngError, match=r"^Halved needs sides that are multiples of 2, not 7x8$"):
        Halved()(torch.ones(1, 3, 7, 8))
    with pytest.raises(RuntimeError, match="another mistake"):
        Halved("another mistake")(torch.ones(1, 3, 8, 8))
    with pytest.raises(RuntimeError, match="can't allocate memory"):  # which other sides would not help
        Halved("DefaultCPUAllocator: can't allocate memory")(torch.ones(1, 3, 7, 8))
