"""The U-Net of strided convolutions that pix2pix made common: an encoder and a decoder joined at every level."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from okng.nn.networks.sizes import pad_to_grid

WIDEST = 8  # channels grow to this many times `width`


class UNet(nn.Module):
    """Images (B, channels, H, W) of any size → (B, outputs, H, W), without an activation at the end.

    Ronneberger, Fischer, Brox, "U-Net", MICCAI 2015, in the form of Isola, Zhu, Zhou, Efros, "Image-to-Image
    Translation with Conditional Adversarial Networks" (pix2pix), CVPR 2017. Each of `levels` 4×4 layers halves the
    sides, from `width` channels to at most eight times as many; as many transposed ones double them again, and each but
    the first takes what the encoder had at its size beside what comes from below. There is batch normalisation
    everywhere but after the first and the coarsest layer of the encoder, which have a bias instead. `slope`: of the
    encoder's rectifiers below zero. The decoder's don't leak, and what the encoder hands it passes them too, as in
    pix2pix's code. Sides that the halvings don't divide are padded by repeating the border.
    """

    def __init__(self, channels: int, outputs: int, width: int = 64, levels: int = 5, slope: float = 0.2):
        super().__init__()
        self.levels = levels
        wide = [width * min(2**level, WIDEST) for level in range(levels)]
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for level, (inner, outer) in enumerate(zip([channels, *wide], wide, strict=False)):
            down: list[nn.Module] = [nn.Conv2d(inner, outer, 4, 2, 1, bias=level in (0, levels - 1))]
            down += [nn.BatchNorm2d(outer)] if 0 < level < levels - 1 else []
            self.down.append(nn.Sequential(*down, nn.LeakyReLU(slope)))
        for level in reversed(range(1, levels)):
            inner = wide[level] if level == levels - 1 else 2 * wide[level]
            back = nn.ConvTranspose2d(inner, wide[level - 1], 4, 2, 1, bias=False)
            self.up.append(nn.Sequential(back, nn.BatchNorm2d(wide[level - 1]), nn.ReLU()))
        self.last = nn.ConvTranspose2d(wide[0] if levels == 1 else 2 * wide[0], outputs, 4, 2, 1)

    def forward(self, images: Tensor) -> Tensor:
        """(B, channels, H, W) → (B, outputs, H, W)."""
        met, features = [], pad_to_grid(images, self.levels)
        for down in self.down:
            features = down(features)  # (B, C_l, H / 2^l, W / 2^l)
            met.append(features)
        features = met.pop().relu()
        for up in self.up:
            features = torch.cat([up(features), met.pop().relu()], 1)  # (B, 2 C_l, H / 2^l, W / 2^l)
        height, width = images.shape[2:]
        made: Tensor = self.last(features)  # (B, outputs, padded H, padded W)
        return made[:, :, :height, :width]
