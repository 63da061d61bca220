"""Metaformer: a meta-learnt autoencoder that attends to the object."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from okng.checks import at_least, check_input, positive
from okng.detectors.base import Batch, Detector, Phase, Scores, Train, Update
from okng.errors import OkngError
from okng.nn.images.augmentation import Augmentation, view
from okng.nn.images.ssim import dssim_map
from okng.nn.images.textures import procedural_texture
from okng.nn.networks.strided import strided_coders

VIEWS = Augmentation(crop=(0.5, 1.0), grey=0.0)  # of the picture that a task is made of
LARGEST = 8  # the shorter side of the grid on which it attends, at most

Parameters = Mapping[str, Tensor]


class InstanceAttention(nn.Module):
    """A transformer's layer that looks at where the object is: (B, C, h, w) to the same, and the map (B, h, w).

    Each position is told how likely it is a part of the object, a in (0, 1), and what is attended to is weighed by it:
    softmax(q k / √d + log a).
    """

    def __init__(self, channels: int, grid: tuple[int, int], heads: int):
        super().__init__()
        self.heads = heads
        self.places = nn.Parameter(0.02 * torch.randn(grid[0] * grid[1], channels))  # (n, C)
        self.instance = nn.Conv2d(channels, 1, 3, padding=1)
        self.before, self.between = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.ask, self.out = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)
        self.perceptron = nn.Sequential(nn.Linear(channels, 2 * channels), nn.GELU(), nn.Linear(2 * channels, channels))

    def weights(self, tokens: Tensor, instance: Tensor) -> tuple[Tensor, Tensor]:
        """What each of `tokens` (B, n, C) attends to, (B, heads, n, n), and what it finds there (B, heads, n, d)."""
        b, n, c = tokens.shape
        asked = self.ask(self.before(tokens)).view(b, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        query, key, value = asked[0], asked[1], asked[2]  # (B, heads, n, d)
        logits = query @ key.transpose(2, 3) / (c // self.heads) ** 0.5  # (B, heads, n, n)
        return (logits + F.logsigmoid(instance)[:, None, None]).softmax(3), value

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Of `features` (B, C, h, w)."""
        instance = self.instance(features).flatten(1)  # (B, n), logits
        tokens = features.flatten(2).transpose(1, 2) + self.places  # (B, n, C)
        weights, value = self.weights(tokens, instance)
        tokens = tokens + self.out((weights @ value).transpose(1, 2).flatten(2))  # (B, n, C)
        tokens = tokens + self.perceptron(self.between(tokens))
        attended = tokens.transpose(1, 2).reshape(features.shape)  # (B, C, h, w)
        return attended, instance.sigmoid().view_as(features[:, 0])


class AttentiveAutoencoder(nn.Module):
    """Images (B, C, H, W) in [0, 1] to copies and the map of the object, (B, h, w) in (0, 1).

    No normalisation over the batch: a task has few images, and each one's copy is its own.
    """

    def __init__(self, image_size: tuple[int, int], channels: int, code: int, width: int, heads: int):
        super().__init__()
        encoder, decoder = strided_coders(image_size, channels, code, width)
        (h, w), before = image_size, 0
        while min(h, w) > LARGEST or not before:
            h, w, before, inner = (h + 1) // 2, (w + 1) // 2, before + 2, width * 2 ** (before // 2)
        self.down, self.attention = encoder[:before], InstanceAttention(inner, (h, w), heads)
        self.code, self.decoder = encoder[before:], nn.Sequential(*decoder, nn.Sigmoid())

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Of `images`."""
        features, instance = self.attention(self.down(images))  # (B, C', h, w), (B, h, w)
        return self.decoder(self.code(features)), instance


class Metaformer(Detector):
    """An autoencoder that has learnt on other pictures to learn from a few; it attends to the object, and odd is what
    it can't copy there.

    Wu, Chen, Fuh, Liu, "Learning Unsupervised Metaformer for Anomaly Detection", ICCV 2021. First it is meta-trained by
    MAML (Finn, Abbeel, Levine, ICML 2017) on tasks of copying a few images, none of them of what is inspected: an inner
    loop adapts the weights to some images of a task, and the outer loop improves the weights that it began with, by how
    well others are copied then. What it begins with is then adapted to the OK images. An attention layer learns where
    the object is, from a prior of what is salient, and its positions look there.

    `image_size` (h, w) and `channels` (1 or 3) of the input. `code`: how many numbers an image is squeezed into.
    `width`: channels after the first layer; they double as the sides halve. `heads`: of the attention. `shots`: images
    of a task to adapt to, and as many to test on. `inner_steps`, `inner_rate`: gradient steps of the inner loop, and
    their size; with 0 steps it is plain pre-training. `first_order`: whether the outer gradient leaves out how the
    inner one changes, which costs less. `tasks`: of an outer step, one beside each OK image of a batch. `meta_epochs`,
    `meta_rate`: of the outer loop, by Adam. `meta_steps`: after how many batches it ends, in place of `meta_epochs`.
    `prior_weight`: of the squared difference of the object's map from the prior. `epochs`, `batch_size`,
    `learning_rate`: of the adaptation to OK images, by Adam.

    What the abstract and summaries of the paper say is kept; its text could not be had, and there is no public code. So
    layers, losses (squared error and structural dissimilarity), size, steps and rates are this library's. Deliberately
    otherwise: the paper's tasks are of photographs (MSRA10K among others) that are not at hand: here a task is views
    of one auxiliary image, or where none are given of a drawn picture, a textured thing before another texture. The
    paper's prior is a saliency network taught with masks; here salient is a colour that is further from the border's
    mean than the border's own is. The map is weighed by one plus the attention, so that a defect beside the object is
    not lost. All OK images adapt it, however many they are.
    """

    fixed_size = True
    takes_auxiliary = True

    def __init__(
        self,
        image_size: tuple[int, int] = (128, 128),
        channels: int = 3,
        code: int = 100,
        width: int = 16,
        heads: int = 4,
        shots: int = 5,
        inner_steps: int = 3,
        inner_rate: float = 0.5,
        first_order: bool = False,
        tasks: int = 4,
        meta_epochs: int = 200,
        meta_rate: float = 1e-3,
        meta_steps: int | None = None,
        prior_weight: float = 0.1,
        epochs: int = 100,
        batch_size: int = 16,
        learning_rate: float = 1e-3,
    ):
        super().__init__()
        check_input(image_size, channels)
        at_least(1, code=code, width=width, heads=heads, shots=shots, tasks=tasks, epochs=epochs, batch_size=batch_size)
        at_least(1, meta_epochs=meta_epochs, meta_steps=meta_steps)
        at_least(0, inner_steps=inner_steps, prior_weight=prior_weight)
        positive(inner_rate=inner_rate, meta_rate=meta_rate, learning_rate=learning_rate)
        if width % heads:
            raise OkngError(f"width is a multiple of heads, which is {heads}, not {width}")
        self.shots, self.tasks, self.first_order = shots, tasks, first_order
        self.inner_steps, self.inner_rate, self.prior_weight = inner_steps, inner_rate, prior_weight
        self.meta_epochs, self.meta_rate, self.meta_steps = meta_epochs, meta_rate, meta_steps
        self.epochs, self.batch_size, self.learning_rate = epochs, batch_size, learning_rate
        self.network = AttentiveAutoencoder(image_size, channels, code, width, heads)

    def phases(self) -> Iterator[Phase]:
        """Meta-training on other pictures; then adaptation to the OK images."""
        outer = Update(self.outer_loss, torch.optim.Adam(self.network.parameters(), self.meta_rate))
        yield Train(
            "meta-training", [outer], self.meta_epochs, [self.network], self.tasks, steps=self.meta_steps,
            augment=self.augment, may_rise=True,  # a task may be harder than those of the first epoch
        )  # fmt: skip
        update = Update(
            lambda batch: self.losses(dict(self.network.named_parameters()), batch.images),
            torch.optim.Adam(self.network.parameters(), self.learning_rate),
        )
        yield Train("adaptation", [update], self.epochs, [self.network], self.batch_size)

    def augment(self, image: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """What a task is made of: a drawn picture (C, H, W), and how its views are drawn, (2 shots, 11)."""
        drawn = torch.stack([VIEWS.draw(generator) for _ in range(2 * self.shots)])
        return drawn_picture(image.shape[0], (image.shape[1], image.shape[2]), generator), drawn

    def tasks_of(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Support and query images of each task, (T, shots, C, H, W) each; none of them is an OK image."""
        pictures, drawn = batch.views
        if batch.auxiliary is not None:
            pictures = batch.auxiliary  # (T, C, H, W)
        repeated = pictures.repeat_interleave(2 * self.shots, 0)  # (T * 2 shots, C, H, W)
        views = view(repeated, drawn.flatten(0, 1)).view(len(pictures), 2, self.shots, *pictures.shape[1:])
        return views[:, 0], views[:, 1]

    def losses(self, parameters: Parameters, images: Tensor) -> dict[str, Tensor]:
        """Of the network with these `parameters` on `images` (B, C, H, W): the copies', and the object's map's."""
        copies, instance = functional_call(self.network, dict(parameters), (images,))
        apart = (instance - prior(images, (instance.shape[1], instance.shape[2]))).square().mean()
        return {"copies": gap(images, copies).mean(), "prior": self.prior_weight * apart}

    def adapted(self, parameters: Parameters, support: Tensor) -> Parameters:
        """The inner loop: `parameters` after gradient steps on `support` (shots, C, H, W), as a function of them."""
        for _ in range(self.inner_steps):
            total = torch.stack([*self.losses(parameters, support).values()]).sum()
            slopes = torch.autograd.grad(total, [*parameters.values()], create_graph=not self.first_order)
            parameters = {
                name: value - self.inner_rate * slope
                for (name, value), slope in zip(parameters.items(), slopes, strict=True)
            }
        return parameters

    def outer_loss(self, batch: Batch) -> dict[str, Tensor]:
        """The losses on each task's query images of what its support images made of the weights, means over tasks."""
        own = dict(self.network.named_parameters())
        each = [
            self.losses(self.adapted(own, support), query) for support, query in zip(*self.tasks_of(batch), strict=True)
        ]
        return {name: torch.stack([losses[name] for losses in each]).mean() for name in each[0]}

    def forward(self, images: Tensor) -> Scores:
        """`map` (B, H, W): how far image and copy are apart, up to twice that on the object; `image` (B,) its mean."""
        copies, instance = self.network(images)  # (B, C, H, W), (B, h, w)
        size = [images.shape[2], images.shape[3]]
        where = F.interpolate(instance[:, None], size, mode="bilinear", align_corners=False)[:, 0]  # (B, H, W)
        odd = gap(images, copies) * (1 + where)  # (B, H, W)
        return Scores(odd.mean((1, 2)), odd)


def gap(images: Tensor, copies: Tensor) -> Tensor:
    """Squared error and structural dissimilarity of each pixel, means over channels: (B, H, W)."""
    return ((images - copies).square() + dssim_map(images, copies)).mean(1)


def prior(images: Tensor, grid: tuple[int, int]) -> Tensor:
    """Where something salient is in `images` (B, C, H, W), on a `grid` (h, w): (B, h, w) in [0, 1].

    That is what differs in colour from the mean of the image's border, by more than the border itself does.
    """
    edges = images[:, :, 0], images[:, :, -1], images[:, :, :, 0], images[:, :, :, -1]
    border = torch.cat(edges, 2)  # (B, C, 2 W + 2 H)
    mean = border.mean(2)[:, :, None, None]  # (B, C, 1, 1)
    usual = (border - mean[:, :, 0]).square().sum(1).sqrt().mean(1)  # (B,)
    distance = (images - mean).square().sum(1).sqrt()  # (B, H, W)
    salient = F.adaptive_avg_pool2d((distance - usual[:, None, None]).clamp_min(0), grid)  # (B, h, w)
    return salient / salient.amax((1, 2), keepdim=True).clamp_min(1e-3)


def drawn_picture(channels: int, size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """A picture (`channels`, h, w) in [0, 1] of a textured ellipse before another texture."""
    thing, ground = (procedural_texture(channels, size, generator) for _ in range(2))
    down, right, tall, wide = torch.rand(4, generator=generator).tolist()
    y = (torch.arange(size[0])[:, None] + 0.5) / size[0] - (0.3 + 0.4 * down)
    x = (torch.arange(size[1]) + 0.5) / size[1] - (0.3 + 0.4 * right)
    inside = (y / (0.15 + 0.25 * tall)).square() + (x / (0.15 + 0.25 * wide)).square() < 1  # (h, w)
    return torch.where(inside, thing, ground)
