"""The U-Net of two 3 × 3 layers at every level: halved by pooling, enlarged by interpolation."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Normalisation = Callable[[int], nn.Module]  # of so many channels


class PooledUNet(nn.Module):
    """What is enlarged again meets the level's own features: (B, channels, H, W) → (B, outputs, H, W), no activation.

    Ronneberger, Fischer, Brox, "U-Net", MICCAI 2015. `wide`: the channels of the levels on the way down; `made`: those
    of the levels on the way up, one fewer. `refining`: whether a layer follows each enlargement before what is enlarged
    meets its level, and the last layer sees 3 × 3 pixels, as in DRAEM's and DSR's detectors; else there is none and it
    sees one, as in AVID's inpainter. The sides are halved once less than there are levels, and have to be divisible so
    often.
    """

    def __init__(
        self,
        channels: int,
        wide: Sequence[int],
        made: Sequence[int],
        outputs: int,
        normalisation: Normalisation,
        refining: bool = True,
    ):
        super().__init__()
        self.down = nn.ModuleList(double(i, o, o, normalisation) for i, o in zip([channels, *wide], wide, strict=False))
        self.enlarge, self.merge = nn.ModuleList(), nn.ModuleList()
        for inner, level, outer in zip([wide[-1], *made], reversed(wide[:-1]), made, strict=False):
            self.enlarge.append(enlarging(inner, outer, normalisation) if refining else doubling())
            self.merge.append(double((outer if refining else inner) + level, outer, outer, normalisation))
        self.last = nn.Conv2d(made[-1], outputs, 3, padding=1) if refining else nn.Conv2d(made[-1], outputs, 1)

    def forward(self, images: Tensor) -> Tensor:
        """(B, channels, H, W) → (B, outputs, H, W)."""
        levels = [self.down[0](images)]
        for down in self.down[1:]:  # type: ignore[union-attr]
            levels.append(down(F.max_pool2d(levels[-1], 2)))  # (B, C_l, H / 2^l, W / 2^l)
        features = levels.pop()
        for enlarge, merge in zip(self.enlarge, self.merge, strict=True):
            features = merge(torch.cat([enlarge(features), levels.pop()], 1))
        told: Tensor = self.last(features)
        return told


def single(inner: int, outer: int, normalisation: Normalisation) -> list[nn.Module]:
    """A 3 × 3 layer, normalised, and a rectifier."""
    return [nn.Conv2d(inner, outer, 3, padding=1), normalisation(outer), nn.ReLU(inplace=True)]


def double(inner: int, middle: int, outer: int, normalisation: Normalisation) -> nn.Sequential:
    """Two such layers."""
    return nn.Sequential(*single(inner, middle, normalisation), *single(middle, outer, normalisation))


def doubling() -> nn.Upsample:
    """Twice as high and wide, its corners where they were."""
    return nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)


def enlarging(inner: int, outer: int, normalisation: Normalisation) -> nn.Sequential:
    """Twice as high and wide, and one such layer."""
    return nn.Sequential(doubling(), *single(inner, outer, normalisation))
