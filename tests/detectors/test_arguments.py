"""Arguments as a person types them, and what is said of those that can't be used."""

from __future__ import annotations

import re

import pytest

from okng.cli.common import parse_parameters
from okng.detectors.cards import cards
from okng.detectors.catalogue import create, explanations, parameters
from okng.errors import OkngError


def test_none_can_be_typed_where_no_text_is_taken() -> None:
    """`okng list patchcore` prints "coreset_size=none", and a refusal says "or none"."""
    made = create("patchcore", **parse_parameters(["coreset_size=none", "weights=none"]))
    assert made.arguments["coreset_size"] is None and made.arguments["weights"] == "none"
    with pytest.raises(OkngError, match="coreset takes a number, not 'none'"):
        create("patchcore", **parse_parameters(["coreset=none"]))


@pytest.mark.parametrize(
    ("name", "pair"),
    [
        ("fastflow", "kernels=2"), ("csflow", "kernels=2,2"), ("cutpaste", "head=0"), ("cutpaste", "head=512,x"),
        ("uninformed_students", "receptive_fields=16"), ("uninformed_students", "receptive_fields=33,33"),
    ],
)  # fmt: skip
def test_several_numbers_are_said_as_they_were_typed(name: str, pair: str) -> None:
    with pytest.raises(OkngError, match=f"not {re.escape(pair.partition('=')[2])}$"):
        create(name, **parse_parameters([pair]))


@pytest.mark.parametrize("name", [name for name in cards() if "strides" in parameters(name)])
def test_a_stride_is_given_once(name: str) -> None:
    with pytest.raises(OkngError, match=f"^{name}: strides: 8 is there twice; give each once$"):
        create(name, **parse_parameters(["strides=8,8"]))


def test_what_is_said_of_epochs() -> None:
    """It was the end of what is said of the parameter before, since these names were followed by no colon."""
    said = explanations("patch_svdd")
    assert said["epochs"] == said["batch_size"] == said["learning_rate"] != said["samples"]
    said = explanations("cutpaste")
    assert said["epochs"] == said["batch_size"] == said["learning_rate"] != said["head_first"]
    assert "gradient descent" in said["epochs"] and "gradient" not in said["head_first"]
