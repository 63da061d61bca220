"""HTDG: a hierarchical generative model that tells transformations apart, for a few images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from okng.checks import at_least, check_input, positive
from okng.detectors.base import Batch, Collect, Detector, Phase, Scores, Train, Update
from okng.errors import OkngError
from okng.nn.images.augmentation import luma
from okng.nn.learning.adversarial import bounded, frozen
from okng.nn.networks.dcgan import SLOPE, start

BORDER = 5  # px that five unpadded layers take from each side: a patch is 11 × 11
SHIFT = 0.15  # of the side
NOISE = 0.1  # of how far the coarser scale's copy is from the image
RECONSTRUCTION = 100.0  # weight of the copy's squared error
BETAS = (0.5, 0.999)  # of Adam
LIMIT = 1e4  # nats
TURNS = (0, 1, 2, 3)

Move = tuple[bool, int, int, int, int]  # grey, flipped, shifts in x and y, quarter turns
GEOMETRIC: tuple[Move, ...] = (
    *((False, *each) for each in product((0, 1), (0, 1), (0, 1), TURNS)),
    *((False, flip, x, -1, 0) for flip, x in product((0, 1), (-1, 0, 1))),
    *((False, flip, -1, y, 0) for flip, y in product((0, 1), (0, 1))),
)  # 42
GREY: tuple[Move, ...] = (
    *((True, flip, 0, 0, turns) for flip, turns in product((0, 1), TURNS)),
    *((True, 0, x, y, 0) for x, y in ((1, 0), (-1, 0), (0, 1), (0, -1))),
)  # 12
MOVES: dict[str, tuple[Move, ...]] = {
    "all": GEOMETRIC,
    "flips": tuple((False, flip, 0, 0, turns) for flip, turns in product((0, 1), TURNS)),
    "turns": tuple((False, 0, 0, 0, turns) for turns in TURNS),
}


class Moves(nn.Module):
    """Transformations of images of one size, and the way back for what is said of their patches.

    `sources` (M, h * w): of which pixel of the image each pixel is taken. `back` (M, h' * w'): for each place inside
    the border, at which place of all transformed images it is, counted image by image, and `there` whether it is.
    """

    sources: Tensor
    back: Tensor
    there: Tensor
    grey: Tensor

    def __init__(self, moves: tuple[Move, ...], size: tuple[int, int]):
        super().__init__()
        self.size, (h, w) = size, (size[0] - 2 * BORDER, size[1] - 2 * BORDER)
        sources = torch.stack([places(size, *move[1:]) for move in moves])  # (M, h, w)
        inside = sources[:, BORDER : BORDER + h, BORDER : BORDER + w].flatten(1)  # (M, h' * w')
        found = torch.full((len(moves), size[0] * size[1]), -1)
        found.scatter_(1, inside, torch.arange(h * w).expand(len(moves), -1))
        found = found.view(-1, *size)[:, BORDER : BORDER + h, BORDER : BORDER + w].flatten(1)
        self.register_buffer("sources", sources.flatten(1), persistent=False)
        first = h * w * torch.arange(len(moves))[:, None]  # of a transformation's places among all
        self.register_buffer("back", first + found.clamp_min(0), persistent=False)
        self.register_buffer("there", (found >= 0).float(), persistent=False)
        self.register_buffer("grey", torch.tensor([move[0] for move in moves]), persistent=False)

    def __len__(self) -> int:
        return len(self.sources)

    def forward(self, images: Tensor) -> Tensor:
        """All transformations of each of `images` (B, C, h, w): (B * M, C, h, w)."""
        c, h, w = images.shape[1:]
        moved = images.flatten(2)[:, :, self.sources.flatten()].view(-1, c, len(self), h * w)  # (B, C, M, h * w)
        if c == 3:
            moved = torch.where(self.grey[:, None], luma(moved).expand_as(moved), moved)
        return moved.transpose(1, 2).reshape(-1, c, h, w)

    def put_back(self, told: Tensor) -> Tensor:
        """The mean over transformations of what is `told` (B, M, h', w') of patches, at their places: (B, h', w')."""
        back = told.flatten(1)[:, self.back.flatten()].view(-1, *self.there.shape) * self.there  # (B, M, h' * w')
        return (back.sum(1) / self.there.sum(0)).view(-1, *told.shape[2:])


def places(size: tuple[int, int], flip: int, x: int, y: int, turns: int) -> Tensor:
    """Which pixel of the image, counted row by row, each pixel (h, w) is: flipped, then shifted, then turned.

    What a shift uncovers is the image reflected at its border. Quarter turns of an oblong image are resized to its
    shape, each pixel being the nearest one.
    """
    height, width = size
    down, across = (
        (torch.arange(side) - by * int(SHIFT * side)).abs() for side, by in ((height, y), (width, x))
    )  # reflected at the left, and at the right:
    down, across = torch.minimum(down, 2 * (height - 1) - down), torch.minimum(across, 2 * (width - 1) - across)
    across = width - 1 - across if flip else across
    turned = (down[:, None] * width + across).rot90(turns)  # (h, w) or (w, h)
    rows = torch.arange(height) * turned.shape[0] // height
    return turned[rows[:, None], torch.arange(width) * turned.shape[1] // width]


def patch_network(inner: int, width: int, outer: int) -> nn.Sequential:
    """Five 3 × 3 layers without padding: (B, inner, h, w) to (B, outer, h - 10, w - 10)."""
    layers: list[nn.Module] = []
    for i in range(4):
        layers += [nn.Conv2d(width if i else inner, width, 3), nn.BatchNorm2d(width), nn.LeakyReLU(SLOPE)]
    return nn.Sequential(*layers, nn.Conv2d(width, outer, 3)).apply(start)


class HTDG(Detector):
    """At several scales a generator copies a few OK images with variations, and a discriminator of patches says which
    transformation an image went through, or that it is generated; where it can't tell, the image is odd.

    Sheynin, Benaim, Wolf, "A Hierarchical Transformation-Discriminating Generative Model for Few Shot Anomaly
    Detection", ICCV 2021, for 1, 5 or 10 images. The scales are learnt from coarse to fine. The score is one minus the
    probability of the right transformation, among those of OK images, averaged over patches, transformations, scales.

    `image_size` (h, w) and `channels` (1 or 3) of the input, which is the finest scale. `shots`: from how many of the
    OK images it learns, drawn at random where there are more. `scales`: at how many sizes the image is learnt, from
    coarse to fine; `coarsest`: the shorter side of the first, in px. `transformations`: "turns", the four turns, which
    the authors take for defects; "all", which they take for other classes, flips, shifts and turns, and of RGB greys,
    54 in all, 42 of grey images; "flips", eight flips and turns. `lowest`: the share of patches, those least sure, that
    count in the score; the authors take 0.05 or 0.1 for defects. `width`: channels, twice as many from the fifth scale
    on. `epochs`: steps of each network at each scale. `learning_rate`: of Adam, a tenth for the discriminator in the
    second half of the epochs. For digits of 28 px `shots=5, scales=3, coarsest=18, transformations="flips", width=16,
    epochs=150, learning_rate=2e-3` take a few minutes.

    Deliberately otherwise: the networks take their steps in turn, where the authors' code takes three of one and then
    three of the other in each of 500 (digits) or 1,000 iterations. The images are not made richer in contrast (CLAHE).
    They are made smaller, and handed to the next scale, bilinearly; that code rounds sides up, values to 8 bits, and
    interpolates in cubes, and by a shift it blurs. Its noise is a share of the mean absolute difference, here of the
    root of the mean square. The number that tells the generator which image to make is a share of how many there are.
    Scores are not brought to [0, 1] over a test set. A symmetric image looks alike after several transformations, and
    is never told apart.
    """

    fixed_size = True
    images: Tensor
    noise: Tensor

    def __init__(
        self,
        image_size: tuple[int, int] = (64, 64),
        channels: int = 3,
        shots: int = 10,
        scales: int = 6,
        coarsest: int = 25,
        transformations: Literal["all", "flips", "turns"] = "turns",
        lowest: float = 1.0,
        width: int = 32,
        epochs: int = 3000,
        learning_rate: float = 5e-4,
    ):
        super().__init__()
        check_input(image_size, channels)
        at_least(1, shots=shots, scales=scales, width=width, epochs=epochs)
        at_least(2 * BORDER + 2, coarsest=coarsest)
        positive(learning_rate=learning_rate)
        if not 0 < lowest <= 1:
            raise OkngError(f"lowest is a share above 0 and up to 1, such as 0.1, not {lowest}")
        self.shots, self.lowest, self.epochs, self.learning_rate = shots, lowest, epochs, learning_rate
        side = min(image_size)
        least = min(1.0, coarsest / side)
        shares = [least ** (1 - i / max(1, scales - 1)) if scales > 1 else 1.0 for i in range(scales)]
        self.sizes = [(round(share * image_size[0]), round(share * image_size[1])) for share in shares]
        moves = MOVES[transformations] + (GREY if transformations == "all" and channels == 3 else ())
        self.moves, self.generators, self.discriminators = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for i, size in enumerate(self.sizes):
            wide = width * min(2 ** (i // 4), 4)
            self.moves.append(Moves(moves, size))
            self.generators.append(patch_network(channels + 1, wide, channels))
            self.discriminators.append(patch_network(channels, wide, len(moves) + 1))  # the last is "generated"
            for axis, (whole, part) in enumerate(zip(image_size, size, strict=True)):
                self.register_buffer(f"shrink_{i}_{axis}", shrinking(whole, part), persistent=False)
            self.register_buffer(f"code_{i}", torch.zeros(1, 1, *size))  # the noise that makes the images themselves
        self.register_buffer("images", torch.zeros(0, channels, *image_size))  # (n, C, H, W), those learnt from
        self.register_buffer("noise", torch.zeros(scales, 0))  # (scales, n), its standard deviation

    def phases(self) -> Iterator[Phase]:
        """Draw the images; then learn a scale after the other."""
        seen: list[Tensor] = []

        def finish() -> None:
            everything = torch.cat(seen)  # (N, C, H, W)
            self.images = everything[torch.randperm(len(everything))[: self.shots].to(everything.device)]
            self.noise = torch.zeros(len(self.sizes), len(self.images), device=self.images.device)

        yield Collect("few images", lambda batch: seen.append(batch.images), finish)
        for scale in range(len(self.sizes)):
            yield self.scale_phase(scale)
        self.images, self.noise = self.images[:0], self.noise[:, :0]  # a model file needs neither

    def scale_phase(self, scale: int) -> Train:
        """Both networks of a `scale`, in turn, on what the finished scales below make."""
        generator, discriminator = self.generators[scale], self.discriminators[scale]
        if scale and generator[0].weight.shape == self.generators[scale - 1][0].weight.shape:  # type: ignore[union-attr, index]
            generator.load_state_dict(self.generators[scale - 1].state_dict())
            discriminator.load_state_dict(self.discriminators[scale - 1].state_dict())
        with torch.no_grad():
            real = self.shrunk(self.images * 2 - 1, scale)  # (n, C, h, w)
            code = getattr(self, f"code_{scale}")
            code.copy_(torch.randn_like(code))
            below = self.below(scale, again=True)  # (n, C, h, w)
            self.noise[scale] = NOISE * (real - below).square().mean((1, 2, 3)).sqrt() if scale else 1.0

        def told_apart(batch: Batch) -> dict[str, Tensor]:
            with torch.no_grad():
                generated = self.generated(scale, self.below(scale))
            return bounded(
                {
                    "real": self.surprise(real, scale, generated=False),
                    "generated": self.surprise(generated, scale, generated=True),
                },
                LIMIT,
            )

        def deceiving(batch: Batch) -> dict[str, Tensor]:
            with frozen(discriminator):
                surprise = self.surprise(self.generated(scale, self.below(scale)), scale, generated=False)
            copies = self.generated(scale, below, again=True)
            losses = {"deceived": surprise, "copies": RECONSTRUCTION * F.mse_loss(copies, real)}
            return bounded(losses, LIMIT)

        slower: Callable[[float], float] = lambda share: 1.0 if share < 0.5 else 0.1  # noqa: E731
        judge = torch.optim.Adam(discriminator.parameters(), self.learning_rate, BETAS)
        maker = torch.optim.Adam(generator.parameters(), self.learning_rate, BETAS)
        updates = [Update(told_apart, judge, schedule=slower), Update(deceiving, maker)]
        name = f"scale {scale + 1} of {len(self.sizes)}"
        return Train(name, updates, 1, [generator, discriminator], batch_size=1, steps=self.epochs)

    def shrunk(self, images: Tensor, scale: int) -> Tensor:
        """`images` (B, C, H, W) at the size of a `scale`, (B, C, h, w)."""
        rows, columns = getattr(self, f"shrink_{scale}_0"), getattr(self, f"shrink_{scale}_1")  # (h, H), (w, W)
        small: Tensor = rows @ images @ columns.T
        return small

    def generated(self, scale: int, below: Tensor, again: bool = False) -> Tensor:
        """Images (n, C, h, w) of a `scale`: what comes from `below`, (n, C, h, w), with noise, and what is added to it.

        The noise is drawn, or `again` that which should make the images learnt from.
        """
        n = len(below)
        code = getattr(self, f"code_{scale}")  # (1, 1, h, w)
        drawn = code.expand_as(below) if again else torch.randn_like(below if scale else below[:, :1]).expand_as(below)
        noisy = F.pad(self.noise[scale, :, None, None, None] * drawn + below, [BORDER] * 4)  # (n, C, h + 10, w + 10)
        which = torch.arange(n, device=below.device)[:, None, None, None] / n  # (n, 1, 1, 1)
        told = torch.cat([noisy, which.expand(-1, -1, *noisy.shape[2:])], 1)  # (n, C + 1, h + 10, w + 10)
        made: Tensor = self.generators[scale](told).tanh() + below  # (n, C, h, w)
        return made

    def below(self, scale: int, again: bool = False) -> Tensor:
        """What the scales below make, at the size of `scale`: (n, C, h, w), 0 for the first."""
        made = torch.zeros(len(self.images), self.images.shape[1], *self.sizes[0], device=self.images.device)
        with torch.no_grad():
            for i in range(scale):
                larger = self.sizes[i + 1]
                made = F.interpolate(self.generated(i, made, again), larger, mode="bilinear", align_corners=False)
        return made

    def surprise(self, images: Tensor, scale: int, generated: bool) -> Tensor:
        """Mean cross-entropy over all patches and transformations of `images` (n, C, h, w): "generated", or which."""
        moves = self.moves[scale]
        logits = self.discriminators[scale](moves(images))  # (n * M, M + 1, h', w')
        count = len(moves)  # type: ignore[arg-type]
        truth = torch.full((count,), count) if generated else torch.arange(count)  # (M,)
        truth = truth.to(logits.device).repeat(len(images))[:, None, None].expand(-1, *logits.shape[2:])
        return F.cross_entropy(logits, truth)

    def told(self, images: Tensor, scale: int) -> Tensor:
        """The probability (B, M, h', w') that is given to the right one of all transformations, at each patch."""
        moves = self.moves[scale]
        count = len(moves)  # type: ignore[arg-type]
        logits = self.discriminators[scale](moves(self.shrunk(images * 2 - 1, scale)))[:, :count]  # (B * M, M, h', w')
        right: Tensor = logits.softmax(1).unflatten(0, (-1, count)).diagonal(dim1=1, dim2=2)  # (B, h', w', M)
        return right.permute(0, 3, 1, 2)

    def forward(self, images: Tensor) -> Scores:
        """`image` (B,): one minus the right transformation's probability, averaged; `map` (B, h, w): the same by place.

        Image by image, which bounds the space; an exported graph takes all at once.
        """
        if not torch.onnx.is_in_onnx_export() and len(images) > 1:
            each = [self(image) for image in images.split(1)]
            return Scores(torch.cat([one.image for one in each]), torch.cat([one.map for one in each]))
        scores, maps = [], []
        for scale, moves in enumerate(self.moves):
            right = self.told(images, scale)  # (B, M, h', w')
            h, w = (side - 2 * BORDER for side in self.sizes[scale])
            count = max(1, round(self.lowest * h * w))
            least = right.flatten(2).topk(count, largest=False).values  # (B, M, count)
            scores.append(1 - least.mean(2).mean(1))
            framed = F.pad(1 - moves.put_back(right)[:, None], [BORDER] * 4, mode="replicate")  # type: ignore[operator]
            maps.append(F.interpolate(framed, self.sizes[-1], mode="bilinear", align_corners=False)[:, 0])
        return Scores(torch.stack(scores).mean(0), torch.stack(maps).mean(0))


def shrinking(whole: int, part: int) -> Tensor:
    """The matrix (part, whole) that resizes an axis, smoothly where it gets shorter."""
    return F.interpolate(torch.eye(whole)[None, None], (part, whole), mode="bilinear", antialias=True)[0, 0]
