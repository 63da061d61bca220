"""GOAD: transformations told apart by distances to their centres."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from okng.checks import at_least, check_input, positive
from okng.detectors.base import Batch, Collect, Detector, Phase, Scores, Train, Update
from okng.nn.images.geometric import Transformations
from okng.nn.networks.residual import WideResNet

NORM_WEIGHT = 10.0  # of the features' mean square, which keeps distances from growing
SLOPE, GAIN = 0.2, 2**0.5  # for tables: of the leaky rectifier below zero; of the weights as they begin


class GOAD(Detector):
    """Features of OK images gather around a centre for each transformation; odd lies as near to other centres.

    Bergman, Hoshen, "Classification-Based Anomaly Detection for General Data", ICLR 2020, for images. Each image goes
    through all transformations, as GEOM's. A triplet-centre loss draws the features of each to its centre and away from
    the next one. The score is minus the log-likelihood of the right transformations, by a softmax over the negative
    squared distances to the centres. There is no map.

    `image_size` (h, w) and `channels` (1 or 3) of the input. `depth` and `width` of the wide residual network: 10 and
    64 are WRN-10-4. `shifts`: whether shifts by a quarter of the side are among the transformations, which are 72 then,
    and 8 flips and turns without them. `margin`: how much nearer its own centre a feature has to be, in squared
    distance. `triplet_weight`: of this loss beside the cross-entropy of a linear classifier, which is there in training
    alone. `epochs`, `batch_size`, `learning_rate`: of Adam; an image of a batch goes through all transformations.

    Deliberately otherwise: the centres that score are means over all OK images once the training is over, rather than
    running means of its last epoch. In the authors' blocks the second convolution takes the first one's output as it
    is, without the normalisation between; here it is an ordinary block. What a shift uncovers is mirrored without the
    edge, which theirs meets twice. Nothing is added to probabilities: the paper's ε is no part of the authors' code
    either, which may keep distances from being small and by default doesn't.
    """

    fixed_size = True
    centres: Tensor

    def __init__(
        self,
        image_size: tuple[int, int] = (32, 32),
        channels: int = 3,
        depth: int = 10,
        width: int = 64,
        shifts: bool = True,
        margin: float = 0.1,
        triplet_weight: float = 0.1,
        epochs: int = 16,
        batch_size: int = 4,
        learning_rate: float = 1e-3,
    ):
        super().__init__()
        check_input(image_size, channels)
        at_least(1, epochs=epochs, batch_size=batch_size)
        at_least(0, margin=margin, triplet_weight=triplet_weight)
        positive(learning_rate=learning_rate)
        self.margin, self.triplet_weight = margin, triplet_weight
        self.epochs, self.batch_size, self.learning_rate = epochs, batch_size, learning_rate
        self.transformations = Transformations(image_size, flips=True, shifts=shifts)
        self.network = WideResNet(channels, depth, width)
        self.head = nn.Linear(self.network.features, len(self.transformations))
        self.register_buffer("centres", torch.zeros(len(self.transformations), self.network.features))  # (M, D)

    def phases(self) -> Iterator[Phase]:
        """Gather the features of each transformation; then where their centres are."""
        optimizer = torch.optim.Adam(self.parameters(), self.learning_rate)
        update = Update(self.loss, optimizer)
        yield Train("gathering", [update], self.epochs, [self.network, self.head], self.batch_size)
        sums, count = torch.zeros(self.centres.shape, dtype=torch.float64), [0]

        def visit(batch: Batch) -> None:
            sums.add_(self.features(batch.images).cpu().double().sum(0))
            count[0] += len(batch.images)

        def finish() -> None:
            self.centres = (sums / count[0]).to(self.centres)

        yield Collect("centres", visit, finish)

    def features(self, images: Tensor) -> Tensor:
        """The features (B, M, D) of all transformations of `images` (B, C, H, W)."""
        moved = self.transformations(images)  # (B, M, C, H, W)
        features: Tensor = self.network(moved.flatten(0, 1) * 2 - 1)  # (B*M, D)
        return features.view(-1, len(self.transformations), self.network.features)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy of the transformation, the triplet-centre loss and the features' mean square, each weighed."""
        features = self.features(batch.images)  # (B, M, D)
        which = torch.arange(len(self.transformations), device=features.device).repeat(len(features))  # (B*M,)
        return {
            "cross-entropy": F.cross_entropy(self.head(features.flatten(0, 1)), which),
            "triplet-centre": self.triplet_weight * triplet_centre(features, self.margin),
            "norm": NORM_WEIGHT * features.square().mean(),
        }

    def forward(self, images: Tensor) -> Scores:
        """`image` (B,): minus the sum over transformations of the log-probability of the right one."""
        if not torch.onnx.is_in_onnx_export() and len(images) > 1:  # image by image, which bounds the space
            return Scores(torch.cat([self(image).image for image in images.split(1)]))
        told = by_distance(self.features(images), self.centres)  # (B, M, M)
        return Scores(-told.diagonal(dim1=1, dim2=2).sum(1))


class GOADTabular(Detector):
    """As GOAD, of numbers without places: random linear maps, the same for all images, are the transformations.

    Bergman, Hoshen, as above. An image is a row of a table, its pixels the columns, standardised by OK
    images; where they lie plays no part. Tables of numbers come as flat arrays, to scikit-learn's verbs
    (`okng.ImageOutlierDetector`), in 256 steps for each column. There is no map.

    `image_size` (h, w) and `channels` (1 or 3) of the input, so that it has h · w · channels columns. `maps`: how many
    transformations. `mapped`: how many numbers one makes of a row. `width` and `layers` of the network, which is the
    same for all of them. `margin`: how much nearer its own centre a feature has to be, in squared distance.
    `triplet_weight`: of this loss beside the cross-entropy of a linear classifier, which is there in training alone.
    `epochs`, `batch_size`, `learning_rate`: of Adam; an image of a batch goes through all maps.

    Deliberately otherwise: the centres that score are means over all OK images once the training is over. The authors'
    code rectifies the features for its classifier where they stand, so that it takes distances of rectified ones; here
    they are taken before. Weights begin by Xavier's rule with a gain of √2: that code defines it, but calls it on the
    whole network, where it changes nothing, so that theirs are PyTorch's. From those the defaults learnt next to
    nothing of scikit-learn's digits, by their training loss. The defaults are the authors' for KDD; columns that take
    one of several values aren't told from others.
    """

    fixed_size = True
    mean: Tensor
    deviation: Tensor
    matrices: Tensor
    centres: Tensor

    def __init__(
        self,
        image_size: tuple[int, int] = (8, 8),
        channels: int = 3,
        maps: int = 64,
        mapped: int = 64,
        width: int = 32,
        layers: int = 5,
        margin: float = 1.0,
        triplet_weight: float = 0.1,
        epochs: int = 25,
        batch_size: int = 64,
        learning_rate: float = 1e-3,
    ):
        super().__init__()
        check_input(image_size, channels, smallest=8)
        at_least(2, maps=maps)
        at_least(1, mapped=mapped, width=width, layers=layers, epochs=epochs, batch_size=batch_size)
        at_least(0, margin=margin, triplet_weight=triplet_weight)
        positive(learning_rate=learning_rate)
        self.margin, self.triplet_weight = margin, triplet_weight
        self.epochs, self.batch_size, self.learning_rate = epochs, batch_size, learning_rate
        columns = channels * image_size[0] * image_size[1]
        steps: list[nn.Module] = [nn.Linear(mapped, width, bias=False)]
        for _ in range(layers - 1):
            steps += [nn.LeakyReLU(SLOPE), nn.Linear(width, width, bias=False)]
        self.network = nn.Sequential(*steps)
        self.head = nn.Sequential(nn.LeakyReLU(SLOPE), nn.Linear(width, maps))
        for layer in (*self.network, *self.head):
            if isinstance(layer, nn.Linear):
                nn.init.xavier_normal_(layer.weight, GAIN)
        self.register_buffer("matrices", torch.randn(maps, columns, mapped))  # (M, d, r)
        self.register_buffer("mean", torch.zeros(columns))
        self.register_buffer("deviation", torch.ones(columns))
        self.register_buffer("centres", torch.zeros(maps, width))  # (M, D)

    def phases(self) -> Iterator[Phase]:
        """Standardise; gather the features of each map; then where their centres are."""
        rows: list[Tensor] = []

        def standardise() -> None:
            table = torch.cat(rows)  # (N, d)
            deviation = table.std(0, correction=0)
            self.mean, self.deviation = table.mean(0), torch.where(deviation > 0, deviation, 1.0)

        yield Collect("columns", lambda batch: rows.append(batch.images.flatten(1)), standardise)
        trains = [self.network, self.head]
        parameters = [parameter for module in trains for parameter in module.parameters()]
        optimizer = torch.optim.Adam(parameters, self.learning_rate, betas=(0.5, 0.999))
        yield Train("gathering", [Update(self.loss, optimizer)], self.epochs, trains, self.batch_size)
        seen: list[Tensor] = []

        def finish() -> None:
            self.centres = torch.cat(seen).mean(0)

        yield Collect("centres", lambda batch: seen.append(self.features(batch.images)), finish)

    def features(self, images: Tensor) -> Tensor:
        """The features (B, M, D) of all maps of `images` (B, C, H, W)."""
        rows = (images.flatten(1) - self.mean) / self.deviation  # (B, d)
        features: Tensor = self.network((rows @ self.matrices).transpose(0, 1))  # of (B, M, r)
        return features

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy of the map and the triplet-centre loss, weighed."""
        features = self.features(batch.images)  # (B, M, D)
        which = torch.arange(len(self.centres), device=features.device).repeat(len(features))  # (B*M,)
        return {
            "cross-entropy": F.cross_entropy(self.head(features.flatten(0, 1)), which),
            "triplet-centre": self.triplet_weight * triplet_centre(features, self.margin),
        }

    def forward(self, images: Tensor) -> Scores:
        """`image` (B,): minus the sum over maps of the log-probability of the right one."""
        told = by_distance(self.features(images), self.centres)  # (B, M, M)
        return Scores(-told.diagonal(dim1=1, dim2=2).sum(1))


def triplet_centre(features: Tensor, margin: float) -> Tensor:
    """How much `features` (B, M, D) miss being nearer to their own transformation's centre than to any other's.

    The mean of max(0, d² to the own centre + `margin` - d² to the nearest other); centres are the batch's means.
    """
    centres = features.mean(0)  # (M, D)
    squared = (features[:, :, None] - centres).square().sum(3)  # (B, M, M)
    own = torch.eye(len(centres), dtype=torch.bool, device=features.device)
    other = squared.masked_fill(own, torch.inf).amin(2)  # (B, M)
    return (squared.diagonal(dim1=1, dim2=2) + margin - other).clamp_min(0).mean()


def by_distance(features: Tensor, centres: Tensor) -> Tensor:
    """Log-probabilities (…, M): a softmax over minus the squared distances of `features` (…, D) to `centres` (M, D).

    Of |f - c|² the part |f|² is the same for all centres, so it cancels.
    """
    middle = centres.mean(0)  # shorter vectors are less rounded
    features, centres = features - middle, centres - middle
    return F.log_softmax(2 * features @ centres.T - centres.square().sum(1), dim=-1)
