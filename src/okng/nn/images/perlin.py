"""Perlin noise, and the blots that it is cut into."""

from __future__ import annotations

import math

import torch
import torchvision.transforms.functional as TF
from torch import Tensor

FINEST = 5  # the exponent of the most cells along a side
SMALLEST = 8  # px, a cell's side
THRESHOLD = 0.5


def perlin_noise(size: tuple[int, int], cells: tuple[int, int], generator: torch.Generator | None = None) -> Tensor:
    """Smooth noise `size` (h, w) in about [-1, 1], of a lattice of `cells` (rows, columns); 0 where its lines cross.

    Each crossing has a direction drawn at random. A place is told by the four around it how far it lies along each
    direction, and is the mean of that, weighed by 6t⁵ - 15t⁴ + 10t³ (Perlin, "Improving Noise", 2002). `generator`:
    torch's own by default.
    """
    (h, w), (rows, columns) = size, cells
    angles = 2 * math.pi * torch.rand(rows + 1, columns + 1, generator=generator)
    y, x = torch.arange(h) * (rows / h), torch.arange(w) * (columns / w)
    top, left = y.long(), x.long()
    down, right = (y - top)[:, None], (x - left)[None]  # (h, 1), (1, w), within the cell

    def told(below: int, beside: int) -> Tensor:
        angle = angles[(top + below)[:, None], (left + beside)[None]]  # (h, w)
        return angle.sin() * (down - below) + angle.cos() * (right - beside)

    across, along = (t**3 * (t * (6 * t - 15) + 10) for t in (down, right))
    upper, lower = (torch.lerp(told(row, 0), told(row, 1), along.expand(h, w)) for row in (0, 1))
    return math.sqrt(2) * torch.lerp(upper, lower, across.expand(h, w))


def random_noise(size: tuple[int, int], generator: torch.Generator | None = None) -> Tensor:
    """Perlin noise `size` (h, w) of 1, 2, 4, … 32 cells along each side, drawn apart, of 8 px or more.

    On a side shorter than 16 px there is one cell.
    """
    finest = [max(0, min(FINEST, (side // SMALLEST).bit_length() - 1)) for side in size]
    rows, columns = (2 ** int(torch.randint(most + 1, (), generator=generator)) for most in finest)
    return perlin_noise(size, (rows, columns), generator)


def perlin_mask(size: tuple[int, int], generator: torch.Generator | None = None) -> Tensor:
    """Blots bool `size` (h, w): where Perlin noise, turned by up to 90°, is above 0.5. There may be none.

    Zavrtanik, Kristan, Skočaj, "DRAEM", ICCV 2021, section 3.3, with the numbers of its authors' code.
    """
    angle = 180 * float(torch.rand((), generator=generator)) - 90
    noise = random_noise(size, generator)[None]  # (1, h, w)
    turned: Tensor = TF.rotate(noise, angle, TF.InterpolationMode.BILINEAR)
    return turned[0] > THRESHOLD
