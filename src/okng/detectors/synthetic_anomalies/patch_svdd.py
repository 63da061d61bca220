"""Patch SVDD."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from okng.checks import at_least, check_input, positive
from okng.detectors.base import Batch, Collect, Detector, Phase, Scores, Train, Update
from okng.errors import OkngError
from okng.nn.networks.sizes import pad_to_grid
from okng.nn.vectors.coreset import greedy_coreset
from okng.nn.vectors.neighbours import nearest_squared

SIDES = (16, 32, 64)  # that a coarse patch may have
FIRST, MIDDLE, JOINED = 32, (64, 128, 128, 64, 32, 32), 128  # channels of the encoder's layers
SLOPE = 0.1  # of the leaky rectifier below zero
GRID = 2  # px, the stride of the encoder's first layer
NOISE = 0.02  # of colours and of pixels, for position pairs
DIRECTIONS = torch.tensor([(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)])
BLOCK = 4096  # memories that are compared at once


class PatchSVDD(Detector):
    """Codes of patches that are alike for neighbours and tell where a neighbour lies; odd is far from all OK codes.

    Yi, Yoon, "Patch SVDD: Patch-level SVDD for Anomaly Detection and Segmentation", ACCV 2020. Patches of two sizes: a
    coarse one is coded by the codes of its four quarters. Each pixel has the mean distance of the patches that cover it
    to their nearest neighbours among OK images' patches; the map multiplies both sizes'.

    `image_size` (h, w) and `channels` (1 or 3) of the input. `patch`: the side of a coarse patch in px, 16, 32 or 64; a
    fine one has half of it. `code`: how many numbers code a patch. `svdd_weight`: of the distance between neighbours'
    codes beside the two position losses; the authors choose it for each class, from 0.001 to 1. `coreset`: the share
    of OK patches that are kept, in (0, 1]; 1, as in the paper, keeps all: of 200 images of 256 px 170 MB, and seconds
    for an image on a CPU. `samples`: pairs of patches that an image gives each time it is met. `epochs`, `batch_size`,
    `learning_rate`: of Adam.

    Deliberately otherwise: the map is the root of the product: the same order of positions and of images, without the
    underflow. A step's 64 pairs are 8 of each of 8 images, where the authors' are of 64 images; theirs meet each image
    100 times in each of 300 epochs, which are 3,750 of these. The rows of a position classifier's last layer have
    length 1 and learn; in their code its columns have, and stay as drawn. With smaller patches the encoder has fewer
    layers of 3 × 3. A `coreset` below 1 is this library's, for a CPU. As in their code, patches that would leave the
    image are moved into it, so that a few directions at the border are wrong.
    """

    fixed_size = True
    average: Tensor
    fine_bank: Tensor
    coarse_bank: Tensor

    def __init__(
        self,
        image_size: tuple[int, int] = (256, 256),
        channels: int = 3,
        patch: int = 64,
        code: int = 64,
        svdd_weight: float = 1.0,
        coreset: float = 1.0,
        samples: int = 8,
        epochs: int = 3750,
        batch_size: int = 8,
        learning_rate: float = 1e-4,
    ):
        super().__init__()
        if patch not in SIDES:
            raise OkngError(f"patch is one of {', '.join(map(str, SIDES))}, not {patch}")
        check_input(image_size, channels, smallest=patch)
        at_least(1, code=code, samples=samples, epochs=epochs, batch_size=batch_size)
        at_least(0, svdd_weight=svdd_weight)
        positive(learning_rate=learning_rate)
        if not 0 < coreset <= 1:
            raise OkngError(f"coreset is a share above 0 and up to 1, not {coreset}")
        self.coarse, self.fine = patch, patch // 2
        self.coarse_stride, self.fine_stride = patch // 4, max(GRID, patch // 16)
        self.svdd_weight, self.coreset, self.samples = svdd_weight, coreset, samples
        self.epochs, self.batch_size, self.learning_rate = epochs, batch_size, learning_rate
        widths = [FIRST, *MIDDLE[: self.fine // 4 - 2], code]  # of the layers after the first
        layers: list[nn.Module] = [nn.Conv2d(channels, FIRST, 3, stride=GRID)]
        for inner, outer in pairwise(widths):
            layers += [nn.LeakyReLU(SLOPE), nn.Conv2d(inner, outer, 3)]
        self.encoder = nn.Sequential(*layers, nn.Tanh())  # a fine patch to 1 × 1
        self.join = nn.Conv2d(code, JOINED, 2)  # of four quarters
        self.joined = nn.Sequential(nn.LeakyReLU(SLOPE), nn.Conv2d(JOINED, code, 1), nn.Tanh())
        self.coarse_position, self.fine_position = Position(code), Position(code)
        self.register_buffer("average", torch.zeros(channels, *image_size))  # of OK images
        self.register_buffer("coarse_bank", torch.zeros(0, code))  # (M, D)
        self.register_buffer("fine_bank", torch.zeros(0, code))  # (M', D)

    def phases(self) -> Iterator[Phase]:
        """The mean image, the encoder, and then the codes of all OK patches."""
        sums: list[Tensor] = []
        counts: list[int] = []

        def add(batch: Batch) -> None:
            sums[:] = [batch.images.double().sum(0) + (sums[0] if sums else 0)]  # (C, H, W)
            counts.append(len(batch.images))

        def average() -> None:
            self.average = (sums[0] / sum(counts)).to(self.average)

        yield Collect("mean image", add, average)
        trained = [self.encoder, self.join, self.joined, self.coarse_position, self.fine_position]
        optimizer = torch.optim.Adam([p for module in trained for p in module.parameters()], self.learning_rate)
        updates = [Update(self.loss, optimizer)]
        yield Train("codes", updates, self.epochs, trained, self.batch_size, augment=self.augment)
        seen: list[list[Tensor]] = []

        def finish() -> None:
            self.coarse_bank, self.fine_bank = (self.thinned(torch.cat(codes)) for codes in zip(*seen, strict=True))

        def keep(batch: Batch) -> None:
            seen.append([codes.permute(0, 2, 3, 1).flatten(0, 2) for codes in self.codes(batch.images)])

        yield Collect("memory", keep, finish)

    def thinned(self, codes: Tensor) -> Tensor:
        """The share of `codes` (M, D) that is kept."""
        if self.coreset == 1:
            return codes
        return codes[greedy_coreset(codes, max(1, round(self.coreset * len(codes))))]

    def augment(self, image: Tensor, generator: torch.Generator) -> list[Tensor]:
        """For coarse and then for fine patches: pairs (2, R, C, K, K) the second of which lies in one of eight
        directions (R,) from the first, colours and pixels disturbed; and pairs that lie next to each other.
        """
        centred = image - self.average.to(image)
        views: list[Tensor] = []
        for side in (self.coarse, self.fine):
            size = (image.shape[1], image.shape[2])
            places, directions = position_pairs(size, side, self.samples, generator)
            pairs = cut(centred, places, side)  # (2, R, C, K, K)
            for shape in ((*pairs.shape[:3], 1, 1), pairs.shape):
                pairs = pairs + NOISE * torch.randn(shape, generator=generator)
            views += [pairs, directions, cut(centred, near_pairs(size, side, self.samples, generator), side)]
        return views

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropies of the direction, in nats, and the mean distances of neighbours' codes, weighed."""
        losses: dict[str, Tensor] = {}
        sizes = (("coarse", self.coarse_codes, self.coarse_position), ("fine", self.fine_codes, self.fine_position))
        for (name, encode, position), views in zip(sizes, (batch.views[:3], batch.views[3:]), strict=True):
            apart, directions, near = views  # (B, 2, R, C, K, K), (B, R), (B, 2, R, C, K, K)
            pairs = torch.cat([apart, near]).transpose(0, 1)  # (2, 2B, R, C, K, K)
            codes = encode(pairs.flatten(0, 2)).unflatten(0, (2, 2, -1))  # (first or second, apart or near, B*R, D)
            losses[f"{name} position"] = F.cross_entropy(position(codes[0, 0], codes[1, 0]), directions.flatten())
            distances = torch.linalg.vector_norm(codes[0, 1] - codes[1, 1], dim=1)  # (B*R,)
            losses[f"{name} svdd"] = self.svdd_weight * distances.mean()
        return losses

    def fine_codes(self, patches: Tensor) -> Tensor:
        """The codes (N, D) in (-1, 1) of fine `patches` (N, C, K/2, K/2)."""
        codes: Tensor = self.encoder(patches)  # (N, D, 1, 1)
        return codes.flatten(1)

    def coarse_codes(self, patches: Tensor) -> Tensor:
        """The codes (N, D) in (-1, 1) of coarse `patches` (N, C, K, K), by those of their quarters."""
        quarters = patches.unfold(2, self.fine, self.fine).unfold(3, self.fine, self.fine)  # (N, C, 2, 2, K/2, K/2)
        codes = self.fine_codes(quarters.permute(0, 2, 3, 1, 4, 5).flatten(0, 2))  # (N*4, D)
        whole: Tensor = self.joined(self.join(codes.view(len(patches), 2, 2, -1).permute(0, 3, 1, 2)))  # (N, D, 1, 1)
        return whole.flatten(1)

    def codes(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The codes of all coarse patches, (B, D, h, w), and of all fine ones, (B, D, h', w'), of `images`.

        No layer pads, so one pass over the whole image codes each patch as if it were alone; a quarter is so many
        places of the encoder's grid away from its neighbour.
        """
        centred = pad_to_grid(images - self.average, self.coarse_stride.bit_length() - 1)
        dense = self.encoder(centred)  # (B, D, h'', w''), every 2 px
        joined = F.conv2d(
            dense, self.join.weight, self.join.bias, self.coarse_stride // GRID, dilation=self.fine // GRID
        )
        step = self.fine_stride // GRID
        return self.joined(joined), dense[:, :, ::step, ::step]

    def forward(self, images: Tensor) -> Scores:
        """`map` (B, H, W), the geometric mean of both sizes' mean distances; `image` (B,) its maximum."""
        coarse, fine = self.codes(images)
        coarse_map = self.spread(self.distances(coarse, self.coarse_bank), self.coarse, self.coarse_stride)
        fine_map = self.spread(self.distances(fine, self.fine_bank), self.fine, self.fine_stride)
        anomaly = (coarse_map * fine_map).sqrt()[:, : images.shape[2], : images.shape[3]]
        return Scores(anomaly.amax((1, 2)), anomaly)

    def distances(self, codes: Tensor, bank: Tensor) -> Tensor:
        """The distance (B, h, w) of each of `codes` (B, D, h, w) to the nearest of `bank` (M, D).

        In blocks of memories, image by image, which bounds the space; an exported graph takes all images at once.
        """
        if not torch.onnx.is_in_onnx_export() and len(codes) > 1:
            return torch.cat([self.distances(one, bank) for one in codes.split(1)])
        queries = codes.permute(0, 2, 3, 1).flatten(0, 2)[None]  # (1, B*h*w, D)
        squared = torch.stack([nearest_squared(queries, block[None]) for block in bank.split(BLOCK)]).amin(0)
        return squared.clamp_min(1e-16).sqrt().view(codes.shape[0], *codes.shape[2:])  # 0 has no gradient

    @staticmethod
    def spread(distances: Tensor, side: int, stride: int) -> Tensor:
        """For each pixel (B, H, W) the mean of `distances` (B, h, w) of the patches that cover it."""
        patch = distances.new_ones(1, 1, side, side)
        covering = F.conv_transpose2d(torch.ones_like(distances)[:, None], patch, stride=stride)
        return (F.conv_transpose2d(distances[:, None], patch, stride=stride) / covering)[:, 0]


class Position(nn.Module):
    """In which of eight directions a patch lies from another, by the difference of their codes: logits (N, 8)."""

    def __init__(self, code: int, width: int = 128):
        super().__init__()
        self.hidden = nn.Sequential(
            nn.Linear(code, width), nn.LeakyReLU(SLOPE), nn.Linear(width, width), nn.LeakyReLU(SLOPE)
        )
        self.last = nn.Linear(width, len(DIRECTIONS))

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Of codes (N, D) of two patches; the last layer's rows have length 1."""
        return F.linear(self.hidden(first - second), F.normalize(self.last.weight), self.last.bias)


def position_pairs(size: tuple[int, int], side: int, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Where `count` pairs of patches begin in an image `size` (h, w), (2, count, 2), and in which direction, (count,).

    The second is three quarters of a side to one side away, and in each axis up to a quarter more.
    """
    directions = torch.randint(len(DIRECTIONS), (count,), generator=generator)
    first = anywhere(size, side, count, generator)
    far = 3 * side // 4 + torch.randint(max(1, side // 4), (count, 2), generator=generator)
    return torch.stack([first, inside(first + far * DIRECTIONS[directions], size, side)]), directions


def near_pairs(size: tuple[int, int], side: int, count: int, generator: torch.Generator) -> Tensor:
    """Where `count` pairs of patches begin, (2, count, 2), that lie a 32nd of a side apart at most, 1 px at least."""
    most = max(1, side // 32)
    steps = [(y, x) for y in range(-most, most + 1) for x in range(-most, most + 1) if (y, x) != (0, 0)]
    moved = torch.tensor(steps)[torch.randint(len(steps), (count,), generator=generator)]
    first = anywhere(size, side, count, generator)
    return torch.stack([first, inside(first + moved, size, side)])


def anywhere(size: tuple[int, int], side: int, count: int, generator: torch.Generator) -> Tensor:
    """Where `count` patches begin that lie anywhere in an image `size` (h, w): (count, 2)."""
    return torch.stack([torch.randint(whole - side + 1, (count,), generator=generator) for whole in size], dim=1)


def inside(places: Tensor, size: tuple[int, int], side: int) -> Tensor:
    """`places` (count, 2) moved so far that the patches lie within an image `size` (h, w)."""
    return places.clamp_min(0).minimum(torch.tensor(size) - side)


def cut(image: Tensor, places: Tensor, side: int) -> Tensor:
    """The patches (..., C, side, side) of `image` (C, H, W) that begin at `places` (..., 2)."""
    patches = [image[:, y : y + side, x : x + side] for y, x in places.flatten(0, -2).tolist()]
    return torch.stack(patches).view(*places.shape[:-1], *patches[0].shape)
