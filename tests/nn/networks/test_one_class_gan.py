"""OCGAN's networks: sizes, and mining inside the cube of codes."""

from __future__ import annotations

import torch

from okng.nn.networks.one_class_gan import Decoder, OneClassGAN, frame


def test_the_paper_size_needs_no_padding() -> None:
    """61 → 29 → 13 → 5, each unpadded, and the same way back; 28 and 32 px are one pixel short of fitting."""
    assert frame((61, 61)) == (3, (5, 5), (61, 61))
    assert frame((28, 28)) == (2, (5, 5), (29, 29)) and frame((32, 32)) == (2, (6, 6), (33, 33))
    decoder = Decoder((61, 61), channels=3, width=64, code=16, dropout=0.5)
    shapes = [tuple(f.shape[1:]) for f in decoder.features(torch.rand(2, 16))]
    assert shapes == [(256, 5, 5), (128, 13, 13), (64, 29, 29)]


def test_mining_stays_in_the_cube_and_depends_on_each_code_alone() -> None:
    torch.manual_seed(0)
    gan = OneClassGAN(
        (28, 28), channels=1, code=4, width=4, visual_width=4, classifier_width=4, noise=0.2, dropout=0.0,
        reconstruction_weight=10.0, latent_weight=1.0, visual_weight=1.0, mining_rate=1.0,
    ).eval()  # fmt: skip
    codes = 2 * torch.rand(6, 4) - 1
    mined = gan.mine(codes, 5)
    assert not mined.requires_grad and float(mined.abs().max()) <= 1 and not torch.allclose(mined, codes, atol=1e-3)
    torch.testing.assert_close(gan.mine(codes[:2], 5), mined[:2], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(gan.mine(codes, 0), codes, rtol=1e-4, atol=1e-5)
