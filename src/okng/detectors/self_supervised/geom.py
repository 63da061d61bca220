"""GEOM: classifying geometric transformations."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from okng.checks import at_least, check_input, positive
from okng.detectors.base import Batch, Collect, Detector, Phase, Scores, Train, Update
from okng.nn.images.geometric import Transformations
from okng.nn.networks.residual import WideResNet

WEIGHT_DECAY = 5e-4  # twice the authors' 0.00025, which multiplies the square and not half of it
ROUNDS, CHANGE = 1000, 1e-9  # at most, of fitting a Dirichlet distribution; below such a change of log α it ends
EULER = 0.5772156649015329  # -ψ(1)


class GEOM(Detector):
    """A classifier learns which of 72 transformations an OK image went through; what it can't name so is odd.

    Golan, El-Yaniv, "Deep Anomaly Detection Using Geometric Transformations", NeurIPS 2018. The transformations are all
    combinations of a flip, shifts by a quarter of the side and quarter turns. To the softmax vectors of each, of OK
    images, a Dirichlet distribution is fitted; the score is the negative log-likelihood of an image's 72 vectors, up to
    a constant. There is no map.

    `image_size` (h, w) and `channels` (1 or 3) of the input. `depth` and `width` of the wide residual network: 10 and
    64 are WRN-10-4, as for 32 px in the paper, 16 and 128 WRN-16-8, as for 64 px. `epochs`: passes over the OK images,
    each of which goes through one transformation in a pass; 216 are the authors' three passes over all 72.
    `batch_size`, `learning_rate`: of Adam.

    Deliberately otherwise: which transformation an image goes through is drawn anew in each pass, rather than all 72
    being met equally often. What a shift uncovers is mirrored without the edge, as in SSL-AD; the authors' code meets
    the edge twice. Images of 28 px aren't framed up to 32. Features are averaged over all places, whatever the size.
    The log-likelihood is of log-softmax, so that a probability of 0 isn't met. Quarter turns of an oblong image are
    resized to its shape.
    """

    fixed_size = True
    concentration: Tensor

    def __init__(
        self,
        image_size: tuple[int, int] = (32, 32),
        channels: int = 3,
        depth: int = 10,
        width: int = 64,
        epochs: int = 216,
        batch_size: int = 128,
        learning_rate: float = 1e-3,
    ):
        super().__init__()
        check_input(image_size, channels)
        at_least(1, epochs=epochs, batch_size=batch_size)
        positive(learning_rate=learning_rate)
        self.epochs, self.batch_size, self.learning_rate = epochs, batch_size, learning_rate
        self.transformations = Transformations(image_size, flips=True, shifts=True)
        self.network = WideResNet(channels, depth, width)
        count = len(self.transformations)  # T
        self.head = nn.Linear(self.network.features, count)
        self.register_buffer("concentration", torch.ones(count, count))  # of each transformation's Dirichlet, a row

    def phases(self) -> Iterator[Phase]:
        """Learn to name transformations; then the distributions of what is said of each."""
        optimizer = torch.optim.Adam(self.parameters(), self.learning_rate, weight_decay=WEIGHT_DECAY)
        update = Update(self.loss, optimizer)
        yield Train("naming", [update], self.epochs, [self.network, self.head], self.batch_size, augment=self.augment)
        sums = torch.zeros(3, *self.concentration.shape, dtype=torch.float64)  # of y and log y; how many

        def visit(batch: Batch) -> None:
            told = self.told(batch.images).cpu().double()  # (B, T, T)
            sums.add_(torch.stack([told.exp().sum(0), told.sum(0), torch.full_like(told[0], len(told))]))

        def finish() -> None:
            self.concentration = dirichlet(sums[0] / sums[2], sums[1] / sums[2]).to(self.concentration)

        yield Collect("distributions", visit, finish)

    def augment(self, image: Tensor, generator: torch.Generator) -> Tensor:
        """Which transformation `image` goes through."""
        return torch.randint(len(self.transformations), (), generator=generator)

    def loss(self, batch: Batch) -> Tensor:
        """Cross-entropy of which transformation each image went through."""
        (which,) = batch.views  # (B,)
        moved = self.transformations.one_each(batch.images, which)  # (B, C, H, W)
        return F.cross_entropy(self.head(self.network(moved * 2 - 1)), which)

    def told(self, images: Tensor) -> Tensor:
        """Log-softmax (B, T, T) of `images` (B, C, H, W): for each transformation, what the classifier calls it.

        Image by image, which bounds the space; an exported graph takes all at once.
        """
        if not torch.onnx.is_in_onnx_export() and len(images) > 1:
            return torch.cat([self.told(image) for image in images.split(1)])
        moved = self.transformations(images)  # (B, T, C, H, W)
        logits = self.head(self.network(moved.flatten(0, 1) * 2 - 1))  # (B*T, T)
        return F.log_softmax(logits, dim=1).view(-1, *self.concentration.shape)

    def forward(self, images: Tensor) -> Scores:
        """`image` (B,): minus the mean over transformations of the Dirichlet log-likelihood, without constants."""
        likelihoods = ((self.concentration - 1) * self.told(images)).sum(2)  # (B, T)
        return Scores(-likelihoods.mean(1))


def dirichlet(mean: Tensor, log_mean: Tensor) -> Tensor:
    """The most likely concentrations (…, K) of vectors whose mean is `mean` (…, K) and mean logarithm `log_mean`.

    Float64. Minka, "Estimating a Dirichlet distribution", 2000: the fixed point of ψ(αᵢ) = ψ(Σα) + mean log yᵢ, begun
    with the mean times Wicker et al.'s approximation of the sum ("A maximum likelihood approximation method for
    Dirichlet's parameter estimation", 2008). A round is one step of Newton's method in log αᵢ: all stay above 0.
    """
    spread = (mean * (mean.clamp_min(1e-300).log() - log_mean)).sum(-1, keepdim=True)  # 0 if all vectors are equal
    alpha = mean * (mean.shape[-1] - 1) * EULER / spread.clamp_min(1e-12)
    for _ in range(ROUNDS):
        missing = alpha.sum(-1, keepdim=True).digamma() + log_mean - alpha.digamma()
        step = missing / (alpha * torch.special.polygamma(1, alpha))
        alpha = alpha * step.clamp(-1, 1).exp()
        if float(step.abs().max()) < CHANGE:
            break
    return alpha
