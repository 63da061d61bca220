"""ECOD."""

from __future__ import annotations

import torch
from torch import Tensor

from okng.detectors.classical.vectors import VectorDetector

TIE = 1e-5  # of the range of all values: closer values are the same, whatever rounding did to them
ROWS = 4096  # columns that are sorted at once


class ECOD(VectorDetector):
    """An image many of whose values lie far out in the tails of the OK images' values is odd.

    Li, Zhao, Hu, Botta, Ionescu, Chen, "ECOD: Unsupervised Outlier Detection Using Empirical Cumulative Distribution
    Functions", IEEE Transactions on Knowledge and Data Engineering 2022. For each value, -log of the share of OK images
    that have as little, -log of the share that have as much, and the one of the two on whose side the OK images' values
    are skewed; the largest of them, summed over all values. There is nothing to choose.

    `features`: "pixels", or the name of a backbone whose last features, averaged over the image, are taken instead.
    `weights`: the backbone's: "imagenet", "none" or a file. `contrast`: whether each image's pixels are first made
    less their mean and divided by their mean absolute deviation; a backbone's features never are. `components`: the
    share of the variance that the principal components kept explain, in (0, 1), or none for all values as they are.

    Deliberately otherwise: PyOD, the authors' library, joins the images that it scores to those learnt, so that their
    scores depend on each other. Here each is joined alone, and the skewness is that of the images learnt.
    """

    ordered: Tensor
    skewed: Tensor

    def __init__(
        self,
        features: str = "pixels",
        weights: str = "imagenet",
        contrast: bool = False,
        components: float | None = None,
    ):
        super().__init__(features, weights, contrast, components)
        self.register_buffer("ordered", torch.zeros(0, 0))  # (D, N), each value's, from the smallest
        self.register_buffer("skewed", torch.zeros(0))  # (D,), -1 to the left, 1 to the right

    def learn(self, vectors: Tensor) -> None:
        """Sort each value, and see to which side it is skewed."""
        self.ordered = vectors.T.contiguous().sort(1).values
        sides = [_cubes(part) for part in vectors.T.split(ROWS)]
        self.skewed = torch.cat(sides).to(vectors)

    def score(self, vectors: Tensor) -> Tensor:
        """The sum of each value's largest surprise, (B,)."""
        total = 1 + int(self.ordered.shape[1])  # itself and those learnt
        as_little = 1 + self.below(vectors + TIE).to(vectors)  # (B, D)
        as_much = total - self.below(vectors - TIE).to(vectors)
        left, right = -(as_little / total).log(), -(as_much / total).log()  # (B, D)
        skew = left * (self.skewed < 0) + right * (self.skewed > 0) + (left + right) * (self.skewed == 0)
        return torch.maximum(torch.maximum(left, right), skew).sum(1)

    def below(self, vectors: Tensor) -> Tensor:
        """How many of each value's learnt ones are smaller, (B, D) int64, by bisection."""
        d, n = (int(side) for side in self.ordered.shape)
        table = self.ordered.flatten()
        start = n * torch.arange(d, device=vectors.device)  # (D,)
        count = torch.zeros_like(vectors, dtype=torch.int64)
        for bit in reversed(range(n.bit_length())):
            further = count + 2**bit  # (B, D)
            smaller = table[start + further.clamp_max(n) - 1] < vectors
            count = torch.where(smaller & (further <= n), further, count)
        return count


def _cubes(values: Tensor) -> Tensor:
    """The signs (D,) of the skewness of `values` (D, N)."""
    centred = values.cpu().double()
    centred = centred - centred.mean(1, keepdim=True)
    return centred.pow(3).mean(1).sign()
