from __future__ import annotations

import pytest
import torch
from torch import Tensor

from okng.nn.networks.cbam import CBAM


@pytest.fixture
def features() -> Tensor:
    return torch.randn(2, 32, 9, 12, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def block() -> CBAM:
    torch.manual_seed(0)
    return CBAM(32)


def test_weighs_channels_then_positions(block: CBAM, features: Tensor) -> None:
    """The output is the input times a weight per channel times one per position, the latter of weighed channels."""
    channels = block.channel_gate(features)
    positions = block.spatial_gate(features * channels)
    assert channels.shape == (2, 32, 1, 1) and positions.shape == (2, 1, 9, 12)
    for gate in (channels, positions):
        assert (gate > 0).all() and (gate < 1).all()
    torch.testing.assert_close(block(features), features * channels * positions)


def test_the_channel_gate_knows_no_position_and_the_spatial_gate_no_channel(block: CBAM, features: Tensor) -> None:
    torch.testing.assert_close(block.channel_gate(features), block.channel_gate(features.flip(2, 3)))
    torch.testing.assert_close(block.spatial_gate(features), block.spatial_gate(features.flip(1)))
    assert not torch.allclose(block.channel_gate(features), block.channel_gate(features.flip(1)))
    assert not torch.allclose(block.spatial_gate(features), block.spatial_gate(features.flip(2, 3)))


def test_mean_and_maximum_share_one_perceptron(block: CBAM) -> None:
    """A flat map, whose mean is its maximum: twice what the perceptron says of it."""
    values = torch.randn(1, 32)
    flat = values[:, :, None, None].expand(1, 32, 5, 5)
    torch.testing.assert_close(block.channel_gate(flat)[:, :, 0, 0], (2 * block.perceptron(values)).sigmoid())


def test_a_position_is_weighed_by_its_7_by_7_surroundings(block: CBAM) -> None:
    features = torch.zeros(1, 32, 15, 15)
    spot = features.clone()
    spot[..., 7, 7] = 1
    changed = (block.spatial_gate(spot) != block.spatial_gate(features))[0, 0]
    assert changed[4:11, 4:11].all() and int(changed.sum()) == 49


def test_few_channels_keep_one_hidden_unit() -> None:
    assert CBAM(4)(torch.rand(1, 4, 3, 3)).shape == (1, 4, 3, 3)
