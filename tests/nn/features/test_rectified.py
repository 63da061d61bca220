"""What is seen of a network's last layer by running it."""

from __future__ import annotations

import pytest

from okng.nn.features.backbones import Backbone
from okng.nn.features.rectified import is_rectified


@pytest.mark.parametrize("weights", ["imagenet", "none"])
def test_whether_features_end_in_a_relu_is_seen(weights: str) -> None:
    """Of trained and of random weights alike: a stored model is built with the latter."""
    assert not is_rectified(Backbone("efficientnet_lite0", (4, 8, 16), weights).eval())
    assert is_rectified(Backbone("resnet18", (4, 8), "none").eval())
