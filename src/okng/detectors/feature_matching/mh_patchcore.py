"""MH-PatchCore."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from okng.checks import at_least, positive
from okng.detectors.base import Batch, Collect, Detector, Phase, Scores, freeze
from okng.errors import OkngError
from okng.nn.features.patches import local_average, on_finest_grid
from okng.nn.features.vit import backbone_of
from okng.nn.images.blur import gaussian_blur
from okng.nn.vectors.coreset import greedy_coreset
from okng.nn.vectors.neighbours import nearest_squared
from okng.nn.vectors.principal_subspace import principal_subspace
from okng.nn.vectors.running_gaussians import RunningGaussians


class MHPatchCore(Detector):
    """A small memory of OK patches, compared by a Mahalanobis distance; all of it is learnt from a stream.

    Ferrari, Osmani, Lamma, "Mahalanobis PatchCore", arXiv 2605.27748, 2026. Principal components of OK patches are
    brought to one variance, so that the plain distance between two patches is their Mahalanobis distance. Few patches
    are held while it learns, however many images there are: see `MergeReduce`.

    `backbone`, `strides`, `weights`: the frozen network and where its features are taken (the paper: wide_resnet50_2 at
    8 and 16). `blocks`: of a vision transformer, instead of `strides`: after which its patch tokens are taken, counted
    from 1, or from the end, -1 being the last. `neighbourhood`: side of the square over which features are averaged
    around each position. `explained`: the share of the variance that the components explain, above 0 and up to 1.
    `shrinkage`: how far the variances of the components are drawn towards their mean, 0 to 1; at 0 the last component
    counts as much as the first, at 1 distances are PatchCore's. `bank`: how many patches are kept. `chunk`: how many
    are kept of a batch, and of two such chunks. `neighbours`: how many memories weigh an image's score, one having
    nothing to weigh by. `sigma`: of the Gaussian that smooths the map, in pixels of the input.

    Deliberately otherwise: features are averaged per channel rather than pooled to 1,024 values. The components are
    exact, of a covariance that is streamed, not incremental ones. The covariance of what they make of a patch is then
    known, a diagonal matrix of their variances, and so is its Cholesky factor: the pass that gathers it is left out.
    The map is smoothed on the patch grid, before any enlargement.
    """

    pretrained = True
    collects_only = True
    mean: Tensor
    whitening: Tensor
    memories: Tensor

    def __init__(
        self,
        backbone: str = "efficientnet_lite0",
        strides: tuple[int, ...] = (8, 16),
        weights: str = "imagenet",
        neighbourhood: int = 3,
        explained: float = 0.99,
        shrinkage: float = 0.07,
        bank: int = 1000,
        chunk: int = 256,
        neighbours: int = 9,
        sigma: float = 4.0,
        blocks: tuple[int, ...] = (),
    ):
        super().__init__()
        if not 0 < explained <= 1:
            raise OkngError(f"explained is a share of the variance, above 0 and up to 1, not {explained}")
        if not 0 <= shrinkage <= 1:
            raise OkngError(f"shrinkage is from 0 to 1, not {shrinkage}")
        if neighbourhood < 1 or neighbourhood % 2 == 0:
            raise OkngError(f"neighbourhood is an odd number such as 3, not {neighbourhood}")
        at_least(1, bank=bank, chunk=chunk, neighbours=neighbours)
        positive(sigma=sigma)
        self.backbone = freeze(backbone_of(backbone, strides, blocks, weights))
        self.neighbourhood, self.explained, self.shrinkage = neighbourhood, explained, shrinkage
        self.bank, self.chunk, self.neighbours, self.sigma = bank, chunk, neighbours, sigma
        d = sum(self.backbone.channels)
        self.register_buffer("mean", torch.zeros(d))  # (d,)
        self.register_buffer("whitening", torch.zeros(d, 0))  # (d, r)
        self.register_buffer("memories", torch.zeros(0, 0))  # (M, r), whitened

    @property
    def multiple(self) -> int:
        """The coarsest stride, so that every grid divides the input."""
        return max(self.backbone.strides)

    def phases(self) -> Iterator[Phase]:
        """Stream mean and covariance of all patches, then all patches through the whitening that follows from them."""
        yield self.gather_covariance(RunningGaussians())
        yield self.gather_memories(MergeReduce(self.chunk))

    def gather_covariance(self, gaussian: RunningGaussians) -> Collect:
        """A pass through `gaussian`, of a single position; in float64 and on the CPU, as not every GPU has it."""

        def visit(batch: Batch) -> None:
            gaussian.update(self.described(batch.prepared).flatten(0, 2)[None].cpu().double())  # (1, B*h*w, d)

        def finish() -> None:
            covariance = gaussian.scatter[0] / max(1, gaussian.count - 1)  # (d, d)
            self.mean = gaussian.mean[0, 0].to(self.mean)
            self.whitening = whitening_of_components(covariance, self.explained, self.shrinkage).to(self.mean)

        return Collect("covariance", visit, finish, self.backbone)

    def gather_memories(self, stream: MergeReduce) -> Collect:
        """A pass through `stream`, of which the memory is chosen."""

        def visit(batch: Batch) -> None:
            patches = self.described(batch.prepared).to(self.mean.dtype)
            with torch.autocast(patches.device.type, enabled=False):  # full precision from here on
                stream.add(self.whitened(patches).flatten(0, 2))  # (B*h*w, r)

        def finish() -> None:
            self.memories = farthest_first(stream.held, self.bank)

        return Collect("memory", visit, finish, self.backbone)

    def described(self, pyramid: Sequence[Tensor]) -> Tensor:
        """Patch descriptors (B, h, w, d) of the backbone's features, (B, C_s, h_s, w_s) for each stride."""
        features = [local_average(f, self.neighbourhood) for f in pyramid]
        return on_finest_grid(features).permute(0, 2, 3, 1)

    def whitened(self, patches: Tensor) -> Tensor:
        """`patches` (B, h, w, d) in the components' axes, each of one variance where nothing shrinks: (B, h, w, r)."""
        return (patches - self.mean) @ self.whitening

    def forward(self, images: Tensor) -> Scores:
        """Squared distances to the memory: `map` (B, h, w), smoothed, on the finest stride's grid, `image` (B,)."""
        whitened = self.whitened(self.described(self.backbone(images)))  # (B, h, w, r)
        queries = whitened.flatten(1, 2)  # (B, h*w, r)
        # Image by image, which bounds the memory; an exported graph, whose batch is open, takes all at once.
        each = [queries] if torch.onnx.is_in_onnx_export() else queries.split(1)
        squared = torch.cat([nearest_squared(q, self.memories.expand(q.shape[0], -1, -1))[..., 0] for q in each])
        highest, place = squared.max(1)  # (B,), (B,)
        oddest = queries.gather(1, place[:, None, None].expand(-1, 1, queries.shape[2]))[:, 0]  # (B, r)
        smooth = gaussian_blur(squared.view(whitened.shape[:3]), self.sigma / min(self.backbone.strides))
        return Scores(self.weight(oddest) * highest, smooth)

    def weight(self, oddest: Tensor) -> Tensor:
        """PatchCore's weight (B,), 1 - 1/b to 1, of each image's oddest patch (B, r), by squared distances.

        1 - exp |q - m*|² / sum of exp |q - m|² over the b memories nearest to m*, itself among them, m* being nearest
        to q. Exponents go into one logarithm of the sum, which takes their maximum off: alone they pass what a float
        can hold. By m* alone all weights would be 0, and here they are 1.
        """
        b = min(self.neighbours, len(self.memories))
        if b == 1:
            return torch.ones_like(oddest[:, 0])
        norms = self.memories.square().sum(1)  # (M,)
        star = self.memories[torch.addmm(norms, oddest, self.memories.T, alpha=-2).argmin(1)]  # (B, r)
        around = torch.addmm(norms, star, self.memories.T, alpha=-2).topk(b, largest=False).indices  # (B, b)
        squared = (oddest[:, None] - self.memories[around]).square().sum(2)  # (B, b)
        return 1 - torch.exp((oddest - star).square().sum(1) - squared.logsumexp(1))


def whitening_of_components(covariance: Tensor, explained: float, shrinkage: float) -> Tensor:
    """W (d, r): xW are the first principal components of x, the fewest that explain a share, at one variance.

    Of `covariance` (d, d) float64. |xW| is the Mahalanobis length of the components of x by (1 - s)S + s(tr S / r)I,
    whose S is the diagonal matrix of their variances; none of them counts as less than 1e-8 of their mean.
    """
    basis = principal_subspace(covariance, explained)  # (d, r)
    variances = (basis * (covariance @ basis)).sum(0)  # (r,)
    mean = variances.mean()
    shrunk = (1 - shrinkage) * variances + shrinkage * mean
    return basis / shrunk.clamp_min(max(1e-8 * float(mean), 1e-12)).sqrt()


class MergeReduce:
    """The farthest vectors of a stream, of which few are held at a time: k-centre by merge and reduce.

    Of each batch `chunk` are kept. Two chunks that stand for as many batches each become one that stands for both, as
    digits carry in a binary counter: after n batches there are at most log2(n) + 1 chunks.
    """

    def __init__(self, chunk: int):
        self.chunk = chunk
        self.chunks: list[Tensor | None] = []  # the i-th, (chunk, r), stands for 2^i batches

    @property
    def held(self) -> Tensor:
        """All vectors that are held now: (n, r)."""
        return torch.cat([chunk for chunk in self.chunks if chunk is not None])

    def add(self, vectors: Tensor) -> None:
        """Take in a batch (n, r)."""
        carried = farthest_first(vectors, self.chunk)
        for level, there in enumerate(self.chunks):
            if there is None:
                self.chunks[level] = carried
                return
            self.chunks[level] = None
            carried = farthest_first(torch.cat([there, carried]), self.chunk)
        self.chunks.append(carried)


def farthest_first(vectors: Tensor, count: int) -> Tensor:
    """At most `count` of `vectors` (n, r), each the farthest from those before; the first from the mean of all."""
    if len(vectors) <= count:
        return vectors
    first = int((vectors - vectors.mean(0)).square().sum(1).argmax())
    return vectors[greedy_coreset(vectors, count, first)]
