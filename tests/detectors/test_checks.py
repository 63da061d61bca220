"""A wrong argument is named, with what it may be and what it was."""

from __future__ import annotations

import pytest

from okng.detectors.catalogue import CATALOGUE, create, parameters
from okng.detectors.checks import at_least, check_input, positive
from okng.errors import OkngError


def message(check: object, *arguments: object, **values: object) -> str:
    with pytest.raises(OkngError) as caught:
        check(*arguments, **values)  # type: ignore[operator]
    return str(caught.value)


def test_input() -> None:
    check_input("vae", (16, 200), 1)
    check_input("vae", (8, 8), 3, smallest=8)
    assert message(check_input, "vae", (64, 15), 3) == "vae: both sides of image_size are 16 or more, not (64, 15)"
    assert message(check_input, "vae", (7, 64), 3, smallest=8).endswith("image_size are 8 or more, not (7, 64)")
    assert message(check_input, "vae", (16, 16), 2) == "vae: channels is 1 (grey) or 3 (RGB), not 2"


def test_at_least() -> None:
    at_least("vae", 1, epochs=1, batch_size=7)
    at_least("vae", 0, weight=0.0, steps=0)
    assert message(at_least, "vae", 1, epochs=0) == "vae: epochs is 1 or more, not 0"
    assert message(at_least, "vae", 0, noise=0.1, weight=-0.5) == "vae: weight is 0 or more, not -0.5"


def test_positive() -> None:
    positive("vae", learning_rate=1e-9, steps=1)
    assert message(positive, "vae", learning_rate=0.0) == "vae: learning_rate is above 0, not 0.0"
    assert message(positive, "vae", sigma=4, learning_rate=-1) == "vae: learning_rate is above 0, not -1"


@pytest.mark.parametrize("name", sorted(CATALOGUE))
def test_every_detector_checks_how_long_and_how_fast_it_learns(name: str) -> None:
    for key, allowed in {"epochs": "1 or more", "batch_size": "1 or more", "learning_rate": "above 0"}.items():
        if key in parameters(name):
            assert allowed in message(create, name, **{key: 0}).partition(f"{key} ")[2]
