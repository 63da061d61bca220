"""CFA: coupled-hypersphere feature adaptation."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from okng.checks import at_least, check_input, positive
from okng.detectors.base import Batch, Collect, Detector, Phase, Scores, Train, Update, freeze
from okng.errors import OkngError
from okng.nn.features.backbones import Backbone
from okng.nn.features.patches import local_average, on_finest_grid
from okng.nn.images.blur import gaussian_blur
from okng.nn.vectors.distances import squared_distances
from okng.nn.vectors.kmeans import kmeans
from okng.nn.vectors.neighbours import nearest_squared

SOFT = 1e-3  # the share ν of features that may leave their spheres; it weighs the loss
MARGIN = 0.1  # α, how far within the next spheres a patch may lie, as a squared length
FIRST_RADIUS = 1e-5


class CFA(Detector):
    """A small layer learns to pull OK patches into spheres around the nearest of a few memories; odd is far from all.

    Lee, Lee, Song, "CFA: Coupled-Hypersphere-Based Feature Adaptation for Target-Oriented Anomaly Localization", IEEE
    Access 2022. The memories are the mean patch of each position, as the layer describes it before it learns, so that
    there are as many whatever the number of images, and parts must lie alike. Each patch is pulled into the spheres of
    its nearest memories and pushed out of those of the next; all have one radius, which is learnt too.

    `image_size` (h, w) of the input. `backbone`, `strides`, `weights`: the frozen network and where its features are
    taken, all brought to the finest grid (the paper: wide_resnet50_2 at 4, 8 and 16). `reduce`: how many times fewer
    features the layer describes a patch by than there are. `thin`: how many times fewer memories than positions
    there are, centres of k-means; 1 keeps all. `nearest`: how many memories a patch is pulled to, and how many more
    it is pushed from. `epochs`, `batch_size`, `learning_rate`: of AdamW. `sigma`: of the Gaussian that smooths the map,
    in pixels of the input.

    Deliberately otherwise: the last epoch counts, where published figures are of the best on the test set. The map is
    smoothed on the patch grid, before any enlargement.
    """

    fixed_size = True
    pretrained = True
    memories: Tensor

    def __init__(
        self,
        image_size: tuple[int, int] = (224, 224),
        backbone: str = "efficientnet_lite0",
        strides: tuple[int, ...] = (4, 8, 16),
        weights: str = "imagenet",
        reduce: int = 1,
        thin: int = 1,
        nearest: int = 3,
        epochs: int = 30,
        batch_size: int = 4,
        learning_rate: float = 1e-3,
        sigma: float = 4.0,
    ):
        super().__init__()
        check_input(image_size, 3)
        at_least(1, reduce=reduce, thin=thin, nearest=nearest, epochs=epochs, batch_size=batch_size)
        positive(learning_rate=learning_rate, sigma=sigma)
        self.backbone = freeze(Backbone(backbone, strides, weights))
        self.nearest, self.thin, self.sigma = nearest, thin, sigma
        self.epochs, self.batch_size, self.learning_rate = epochs, batch_size, learning_rate
        h, w = (side // min(self.backbone.strides) for side in image_size)
        d = sum(self.backbone.channels)
        if h * w // thin < 2 * nearest:
            raise OkngError(
                f"thin leaves {h * w // thin} memories of {h * w} positions, and nearest {nearest} needs {2 * nearest}"
            )
        if d < reduce:
            raise OkngError(f"reduce is at most {d}, the channels that {backbone} has at these strides, not {reduce}")
        self.descriptor = Descriptor(d, d // reduce)
        self.register_buffer("memories", torch.zeros(0, d // reduce))  # (M, d')

    @property
    def multiple(self) -> int:
        """The coarsest stride, so that every grid divides the input."""
        return max(self.backbone.strides)

    def phases(self) -> Iterator[Phase]:
        """The memories, of the layer as it begins; then the layer and the radius."""
        seen: Tensor | float = 0.0
        count = 0

        def visit(batch: Batch) -> None:
            nonlocal seen, count
            seen = seen + self.descriptor(batch.prepared[0]).sum(0).cpu().double()  # (h, w, d')
            count += len(batch.prepared[0])

        def finish() -> None:
            assert isinstance(seen, Tensor)
            means = (seen / count).float().to(self.memories).flatten(0, 1)  # (h*w, d')
            self.memories = means if self.thin == 1 else kmeans(means, len(means) // self.thin, restarts=1)

        yield Collect("memories", visit, finish, self.patches)
        optimizer = torch.optim.AdamW(self.descriptor.parameters(), self.learning_rate, weight_decay=5e-4, amsgrad=True)
        yield Train(
            "descriptor", [Update(self.loss, optimizer)], self.epochs, [self.descriptor], self.batch_size,
            prepare=self.patches,
        )  # fmt: skip

    def patches(self, images: Tensor) -> Tensor:
        """The backbone's features (B, d, h, w) of `images` (B, 3, H, W), averaged over 3 × 3 positions."""
        return on_finest_grid([local_average(f, 3) for f in self.backbone(images)])

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """How far patches are outside of the spheres of their nearest memories, and within those of the next."""
        squared = squared_distances(self.descriptor(batch.prepared[0]).flatten(0, 2), self.memories)  # (B*h*w, M)
        return self.pulled_and_pushed(squared.topk(2 * self.nearest, largest=False).values)

    def pulled_and_pushed(self, squared: Tensor) -> dict[str, Tensor]:
        """The losses of squared distances (N, 2K) to the nearest memories, nearest first."""
        pulled, pushed = squared.split(self.nearest, dim=1)  # (N, K) each
        within = self.descriptor.radius.square()
        return {
            "pulled": F.relu(pulled - within).mean() / SOFT,
            "pushed": F.relu(within - pushed - MARGIN).mean() / SOFT,
        }

    def distances(self, described: Tensor) -> Tensor:
        """How far `described` patches (B, h, w, d') are from a memory, less where the next are as near: (B, h, w)."""
        memories = self.memories.expand(described.shape[0], -1, -1)  # (B, M, d')
        near = nearest_squared(described.flatten(1, 2), memories, self.nearest).sqrt()  # (B, h*w, K)
        return (F.softmin(near, dim=2)[:, :, 0] * near[:, :, 0]).view(described.shape[:3])

    def forward(self, images: Tensor) -> Scores:
        """`map` (B, h, w), smoothed; `image` (B,) its maximum."""
        far = gaussian_blur(
            self.distances(self.descriptor(self.patches(images))), self.sigma / min(self.backbone.strides)
        )
        return Scores(far.amax((1, 2)), far)


class Descriptor(nn.Module):
    """One linear layer that sees a patch and its two coordinates, in [-1, 1] (CoordConv); and the spheres' radius."""

    def __init__(self, channels: int, described: int):
        super().__init__()
        self.layer = nn.Conv2d(channels + 2, described, 1)
        self.radius = nn.Parameter(torch.tensor(FIRST_RADIUS))

    def forward(self, patches: Tensor) -> Tensor:
        """What it makes of `patches` (B, d, h, w): (B, h, w, d')."""
        h, w = patches.shape[-2:]
        y, x = (torch.linspace(-1, 1, side).to(patches) for side in (h, w))
        places = torch.stack([y[:, None].expand(h, w), x[None].expand(h, w)])  # (2, h, w)
        described: Tensor = self.layer(torch.cat([patches, places.expand(patches.shape[0], -1, -1, -1)], 1)).permute(
            0, 2, 3, 1
        )
        return described
