"""What size, colour and depth a detector is built for."""

from __future__ import annotations

import numpy as np
import pytest

from okng.errors import OkngError
from okng.training.images.input import build


@pytest.mark.parametrize(("size", "fits"), [(7, False), (8, True), ((8, 64), True), ((64, 7), False), (8192, True)])
def test_sizes_from_8_to_8192(size: int | tuple[int, int], fits: bool) -> None:
    given = ("patchcore", [np.zeros((32, 32, 3), np.uint8)], size, {"weights": "none", "strides": (8,)})
    if fits:
        assert build(*given)[1].size == size
    else:
        with pytest.raises(OkngError, match="each from 8 to 8192"):
            build(*given)
    with pytest.raises(OkngError, match="each from 8 to 8192"):
        build(*given[:2], 8193, given[3])


@pytest.mark.parametrize(
    ("shapes", "said"),
    [
        ([(64, 96), (64, 96)], "input 104x160: as asked, in multiples of 8; aspect ratio kept"),
        (
            [(64, 96), (96, 64), (64, 96)],
            "input 104x160 (median): as asked, in multiples of 8; each image keeps its own aspect ratio",
        ),
        ([(64, 64), (64, 64)], "input 128x128: as asked; aspect ratio kept"),
    ],
)
def test_what_is_said_of_the_size(shapes: list[tuple[int, int]], said: str) -> None:
    images = [np.zeros((*shape, 3), np.uint8) for shape in shapes]
    assert build("patchcore", images, 128, {"weights": "none", "strides": (8,)})[2] == said


def test_an_input_that_layers_depend_on_keeps_to_the_multiple_too() -> None:
    """FastFlow's layers are as large as its input, whose sides its coarsest stride has to divide: not 52x78."""
    images, arguments = [np.zeros((100, 150, 3), np.uint8)], {"weights": "none", "strides": (8, 16), "flow_steps": 1}
    built, preprocess, said = build("fastflow", images, 64, arguments)
    assert preprocess.size == (48, 80) and built.arguments["image_size"] == (48, 80) and "48x80" in said
    assert built.flows[1].flows[0].weight.shape[1:] == (3, 5)
    with pytest.raises(OkngError, match="fastflow needs sides that are multiples of 16, not 50x80"):
        build("fastflow", images, (50, 80), arguments)
    assert "image_size" not in arguments
