from __future__ import annotations

import pytest
import torch
from torch import nn

from okng.nn.networks.dcgan_encoder import Encoder


@pytest.mark.parametrize("size", [(16, 16), (28, 28), (33, 47)])
def test_codes_of_every_size(size: tuple[int, int]) -> None:
    codes = Encoder(size, 3, code=5, width=2)(torch.rand(1, 3, *size))  # in training too: a batch of one
    assert codes.shape == (1, 5) and bool((codes != 0).all())


def test_published_layers() -> None:
    """At 32 px 64, 128, 256 channels down to 4 × 4, then the code of all of it; weights start at N(0, 0.02)."""
    encoder = Encoder((32, 32), 3, code=100, width=64)
    assert [layer.out_channels for layer in encoder.modules() if isinstance(layer, nn.Conv2d)] == [64, 128, 256, 100]
    assert encoder.last.kernel_size == (4, 4) and encoder.last.bias is None
    assert float(encoder.last.weight.detach().std()) == pytest.approx(0.02, rel=0.05)


def test_codes_may_be_of_any_sign_and_size() -> None:
    torch.manual_seed(0)
    codes = Encoder((16, 16), 1, code=50, width=4)(10 * torch.randn(4, 1, 16, 16))
    assert (codes < 0).any() and (codes > 0).any()
