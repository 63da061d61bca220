"""SSD: contrastive features and the Mahalanobis distance."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from okng.checks import at_least, check_input, positive
from okng.detectors.base import Batch, Collect, Detector, Phase, Scores, Train, Update
from okng.nn.images.augmentation import Augmentation, view
from okng.nn.learning.contrastive import nt_xent
from okng.nn.learning.schedules import cosine
from okng.nn.networks.residual import ResNet
from okng.nn.vectors.covariance import ledoit_wolf, whitening_of
from okng.nn.vectors.kmeans import assigned, kmeans

TEMPERATURE, PROJECTED = 0.5, 128  # of the contrastive loss; numbers that it compares
MOMENTUM, WEIGHT_DECAY = 0.9, 1e-4
WARM_UP, START, END = 10, 0.02, 2e-4  # epochs, a tenth of all at most; shares of the rate where it begins and ends
COPIES = 10  # of a known NG image, each augmented anew
SMALLEST = 1e-6  # of the largest variance: below, a direction is taken for one in which OK images don't vary
AUGMENTATION = Augmentation(crop=(0.2, 1))


class SSD(Detector):
    """Features learnt by contrast among OK images; odd is far from their clusters, in units of how those spread.

    Sehwag, Chiang, Mittal, "SSD: A Unified Framework for Self-Supervised Outlier Detection", ICLR 2021. SimCLR teaches
    a network; features before its projection head, of length 1 and standardised, are clustered, and the score is the
    squared Mahalanobis distance to the nearest cluster. There is no map.

    `image_size` (h, w) and `channels` (1 or 3) of the input. `blocks` of the network's groups, its `width`, and whether
    they are of a `bottleneck`: 3, 4, 6, 3, 64 and true are ResNet-50. `clusters` of OK images, by k-means. `epochs`,
    `batch_size`: images, two views of each. `learning_rate`: of stochastic gradient descent with momentum 0.9, rising
    over 10 epochs and falling as half a cosine.

    Deliberately otherwise: the loss is the paper's; the authors' code has it times the temperature over 0.07, 7.1 times
    as large. Images are brought to [-1, 1], not to the data set's mean and deviation. Colours are changed in a fixed
    order, brightness first; a crop that would leave the image is cut at its border. The warm-up is a tenth of a
    training of less than 100 epochs. A direction in which OK images vary by less than a millionth of the most is left
    out. Nor does a cluster of one image, or of copies, count: by its covariance, 0, nothing is far from it.
    """

    fixed_size = True
    mean: Tensor
    deviation: Tensor
    centres: Tensor
    whitenings: Tensor

    def __init__(
        self,
        image_size: tuple[int, int] = (32, 32),
        channels: int = 3,
        blocks: tuple[int, ...] = (3, 4, 6, 3),
        width: int = 64,
        bottleneck: bool = True,
        clusters: int = 1,
        epochs: int = 500,
        batch_size: int = 512,
        learning_rate: float = 0.5,
    ):
        super().__init__()
        check_input(image_size, channels)
        at_least(1, clusters=clusters, epochs=epochs, batch_size=batch_size)
        positive(learning_rate=learning_rate)
        self.clusters, self.epochs, self.batch_size, self.learning_rate = clusters, epochs, batch_size, learning_rate
        self.network = ResNet(channels, blocks, width, bottleneck)
        features = self.network.features  # D
        self.projection = nn.Sequential(nn.Linear(features, features), nn.ReLU(), nn.Linear(features, PROJECTED))
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("deviation", torch.ones(features))
        self.register_buffer("centres", torch.zeros(0, features))  # (k, D)
        self.register_buffer("whitenings", torch.zeros(0, features, features))  # (k, D, D)

    def phases(self) -> Iterator[Phase]:
        """Contrast; then the clusters of what is learnt."""
        parameters = [*self.network.parameters(), *self.projection.parameters()]
        optimizer = torch.optim.SGD(parameters, self.learning_rate, MOMENTUM, weight_decay=WEIGHT_DECAY)
        schedule = partial(cosine, end=END, warm_up=min(0.1, WARM_UP / self.epochs), start=START)
        trains = [self.network, self.projection]
        update = Update(self.loss, optimizer, schedule=schedule)
        yield Train("contrasting", [update], self.epochs, trains, self.batch_size, augment=self.augment)
        seen: list[list[Tensor]] = []

        def finish() -> None:
            usual, odd = (torch.cat(parts) for parts in zip(*seen, strict=True))
            self.conclude(usual, odd)

        yield Collect("clusters", lambda batch: seen.append(self.usual_and_odd(batch)), finish)

    def usual_and_odd(self, batch: Batch) -> list[Tensor]:
        """The features (_, D) of OK images, and of known NG images, augmented."""
        return [self.features(batch.images), self.mean.new_zeros(0, len(self.mean))]

    def conclude(self, usual: Tensor, odd: Tensor) -> None:
        """Clusters of `usual` (N, D), each with the pseudo-inverse of its covariance."""
        standard = self.standardise(usual)
        self.centres = kmeans(standard, self.clusters)
        _, cluster = assigned(standard, self.centres)
        members = [standard[cluster == m] for m in range(len(self.centres))]
        members = [one for one in members if len(one) > 1 and (one != one[0]).any()] or [standard]
        self.centres = torch.stack([one.mean(0) for one in members]).to(self.mean)
        self.whitenings = torch.stack([pseudo_whitening(one) for one in members]).to(self.mean)

    def standardise(self, features: Tensor) -> Tensor:
        """Learn mean and deviation of `features` (N, D), and bring them to 0 and 1; what does not vary stays."""
        self.mean, deviation = features.mean(0), features.std(0, correction=0)
        self.deviation = torch.where(deviation > SMALLEST, deviation, 1.0)
        return (features - self.mean) / self.deviation

    def augment(self, image: Tensor, generator: torch.Generator) -> Tensor:
        """What the two views of an image are drawn by, (2, _)."""
        return torch.stack([AUGMENTATION.draw(generator) for _ in range(2)])

    def loss(self, batch: Batch) -> Tensor:
        """NT-Xent of two views of each OK image."""
        ok = batch.labels == 0
        images, drawn = batch.images[ok], batch.views[0][ok]
        views = torch.cat([view(images, drawn[:, 0]), view(images, drawn[:, 1])])
        if len(images) == 0:  # a batch of known NG images teaches nothing
            return sum(p.sum() for p in self.projection.parameters()) * 0  # type: ignore[return-value]
        first, second = self.projection(self.network(views * 2 - 1)).chunk(2)
        return nt_xent(first, second, TEMPERATURE)

    def features(self, images: Tensor) -> Tensor:
        """Features (B, D) of length 1 of `images` (B, C, H, W)."""
        return F.normalize(self.network(images * 2 - 1), dim=1)

    def distances(self, images: Tensor) -> Tensor:
        """The squared Mahalanobis distance (B, k) of `images` to each cluster."""
        standard = (self.features(images) - self.mean) / self.deviation  # (B, D)
        apart = standard[:, None] - self.centres  # (B, k, D)
        white = torch.einsum("kij,bkj->bki", self.whitenings, apart)
        return white.square().sum(2)

    def forward(self, images: Tensor) -> Scores:
        """`image` (B,): the distance to the nearest cluster."""
        return Scores(self.distances(images).amin(1))


class SSDk(SSD):
    """As SSD, with a few NG images of each known kind: odd is also what is nearer to those than to OK images.

    Sehwag, Chiang, Mittal, as above. Known NG images are augmented ten times; both covariances are shrunk
    as Ledoit and Wolf do. The score is the distance to OK images minus that to the known NG images.

    `image_size` (h, w) and `channels` (1 or 3) of the input. `blocks` of the network's groups, its `width`, and whether
    they are of a `bottleneck`: 3, 4, 6, 3, 64 and true are ResNet-50. `epochs`, `batch_size`: images, two views of
    each. `learning_rate`: of stochastic gradient descent with momentum 0.9, rising over 10 epochs and falling as half
    a cosine.

    Deliberately otherwise: as SSD. The network learns from OK images alone. A millionth of the mean variance is added
    to both covariances.
    """

    needs_ng = True

    def __init__(
        self,
        image_size: tuple[int, int] = (32, 32),
        channels: int = 3,
        blocks: tuple[int, ...] = (3, 4, 6, 3),
        width: int = 64,
        bottleneck: bool = True,
        epochs: int = 500,
        batch_size: int = 512,
        learning_rate: float = 0.5,
    ):
        super().__init__(image_size, channels, blocks, width, bottleneck, 1, epochs, batch_size, learning_rate)

    def usual_and_odd(self, batch: Batch) -> list[Tensor]:
        """The features (_, D) of OK images as they are, and of ten views of each NG image."""
        ok = batch.labels == 0
        odd = batch.images[~ok].repeat_interleave(COPIES, 0)
        drawn = [AUGMENTATION.draw().to(odd) for _ in odd]
        if not drawn:
            return super().usual_and_odd(batch)
        return [self.features(batch.images[ok]), self.features(view(odd, torch.stack(drawn)))]

    def conclude(self, usual: Tensor, odd: Tensor) -> None:
        """A Gaussian of `usual` (N, D) and one of `odd` (N', D)."""
        both = [self.standardise(usual), (odd - self.mean) / self.deviation]
        self.centres = torch.stack([one.mean(0) for one in both])
        self.whitenings = torch.stack([whitening_of(ledoit_wolf(one)) for one in both]).to(self.mean)

    def forward(self, images: Tensor) -> Scores:
        """`image` (B,): the distance to OK images minus that to known NG ones."""
        usual, odd = self.distances(images).unbind(1)
        return Scores(usual - odd)


def pseudo_whitening(vectors: Tensor) -> Tensor:
    """W (D, D) float64 with WᵀW the pseudo-inverse of the covariance of `vectors` (n, D), which may be singular."""
    exact = vectors.cpu().double()
    centred = (exact - exact.mean(0)) / len(exact) ** 0.5
    if len(centred) > centred.shape[1]:  # the covariance's triangle: as long singular values, of fewer rows
        centred = torch.linalg.qr(centred, mode="r").R
    _, lengths, directions = torch.linalg.svd(centred, full_matrices=False)  # (r,), (r, D)
    kept = lengths.square() > SMALLEST * lengths.square().amax().clamp_min(1e-300)
    whitening = torch.zeros(exact.shape[1], exact.shape[1], dtype=torch.float64)
    whitening[: int(kept.sum())] = directions[kept] / lengths[kept, None]
    return whitening
