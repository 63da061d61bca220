"""Flips, shifts and quarter turns of whole images, for methods that name or tell such transformations apart."""

from __future__ import annotations

import torch
from torch import Tensor, nn

SHIFTS = (0, -1, 1)  # of a quarter of the side


class Transformations(nn.Module):
    """Left and right exchanged or not, then a shift in x and y, then quarter turns: every combination of those asked.

    A shift is by a quarter of the side, or none, and what it uncovers is the image reflected at its border. Turns are
    counter-clockwise. All of them only move pixels, so each is a list of places: `sources` (T, H*W), of which pixel of
    the image each pixel is taken. Quarter turns of an oblong image are resized to its shape, each pixel being the
    nearest one. Number 0 is the identity; turns vary fastest, then y, x and flips. `flipped` (T,) 0 or 1, `moved_x` and
    `moved_y` (T,) the place in `SHIFTS`, `turns` (T,) quarters, say what each does.
    """

    sources: Tensor
    flipped: Tensor
    moved_x: Tensor
    moved_y: Tensor
    turns: Tensor

    def __init__(self, image_size: tuple[int, int], flips: bool = False, shifts: bool = False):
        super().__init__()
        counts = (2 if flips else 1, 3 if shifts else 1, 3 if shifts else 1, 4)
        combinations = torch.cartesian_prod(*(torch.arange(count) for count in counts))  # (T, 4)
        sources = [_places(image_size, *map(int, row)).flatten() for row in combinations]
        self.register_buffer("sources", torch.stack(sources), persistent=False)
        for name, column in zip(("flipped", "moved_x", "moved_y", "turns"), combinations.T, strict=True):
            self.register_buffer(name, column.clone(), persistent=False)

    def __len__(self) -> int:
        return len(self.sources)

    def forward(self, images: Tensor) -> Tensor:
        """All transformations of each of `images` (B, C, H, W): (B, T, C, H, W)."""
        moved = images.flatten(2)[:, :, self.sources.flatten()]  # (B, C, T*H*W)
        return moved.view(*moved.shape[:2], len(self), *images.shape[2:]).transpose(1, 2)

    def one_each(self, images: Tensor, which: Tensor) -> Tensor:
        """Transformation `which` (B,) of each of `images` (B, C, H, W): (B, C, H, W)."""
        places = self.sources[which][:, None].expand(-1, images.shape[1], -1)  # (B, C, H*W)
        return images.flatten(2).gather(2, places).view_as(images)


def _places(image_size: tuple[int, int], flip: int, x: int, y: int, turns: int) -> Tensor:
    """Which pixel, counted row by row, each pixel (H, W) of the transformed image is."""
    height, width = image_size
    rows = _shifted(height, SHIFTS[y] * (height // 4))[:, None].expand(height, width)
    columns = _shifted(width, SHIFTS[x] * (width // 4))  # of the flipped image
    columns = (width - 1 - columns if flip else columns).expand(height, width)
    turned = (rows * width + columns).rot90(turns)  # (H, W) or (W, H)
    down = torch.arange(height) * turned.shape[0] // height  # the nearest, where an oblong image was turned
    across = torch.arange(width) * turned.shape[1] // width
    return turned[down[:, None], across]


def _shifted(side: int, by: int) -> Tensor:
    """Which of `side` places each is after a shift `by` so many, reflected at the border (…, 2, 1, 0, 1, 2, …)."""
    places = (torch.arange(side) - by).abs()
    return torch.minimum(places, 2 * (side - 1) - places)
