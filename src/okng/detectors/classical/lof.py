"""Local outlier factor."""

from __future__ import annotations

import torch
from torch import Tensor

from okng.checks import at_least
from okng.detectors.classical.vectors import VectorDetector
from okng.nn.vectors.distances import nearest_distances, squared_distances

TINY = 1e-10  # added to a mean distance, as copies have none
ROWS = 256  # vectors whose neighbours are looked up at once


class LocalOutlierFactor(VectorDetector):
    """An image that lies less densely than its own neighbours do is odd.

    Breunig, Kriegel, Ng, Sander, "LOF: Identifying Density-Based Local Outliers", SIGMOD 2000, for images that were not
    learnt. The density around an image is one over the mean reachability of its k neighbours among the learnt ones:
    their distance, or their own distance to their k-th neighbour where that is more. The score is the mean density
    around the neighbours over that around the image: about 1 for OK.

    `features`: "pixels", or the name of a backbone whose last features, averaged over the image, are taken instead.
    `weights`: the backbone's: "imagenet", "none" or a file. `contrast`: whether each image's pixels are first made
    less their mean and divided by their mean absolute deviation; a backbone's features never are. `components`: the
    share of the variance that the principal components kept explain, in (0, 1), or none for all values as they are.
    `neighbours`: k; fewer, where fewer images were learnt. The paper advises 10 to 50.
    """

    learnt: Tensor
    reach: Tensor
    density: Tensor

    def __init__(
        self,
        features: str = "pixels",
        weights: str = "imagenet",
        contrast: bool = False,
        components: float | None = None,
        neighbours: int = 20,
    ):
        super().__init__(features, weights, contrast, components)
        at_least(1, neighbours=neighbours)
        self.neighbours = neighbours
        self.register_buffer("learnt", torch.zeros(0, 0))  # (N, d)
        self.register_buffer("reach", torch.zeros(0))  # (N,), the distance to the k-th neighbour
        self.register_buffer("density", torch.zeros(0))  # (N,)

    def learn(self, vectors: Tensor) -> None:
        """Keep them, and of each its reach and the density around it, among the others."""
        self.learnt = vectors
        if len(vectors) == 1:
            self.reach, self.density = vectors.new_zeros(1), vectors.new_ones(1)
            return
        exact = vectors.cpu().double()
        count = min(self.neighbours, len(vectors) - 1)
        found = [self.others(exact, start, count) for start in range(0, len(exact), ROWS)]
        distances, index = (torch.cat(part) for part in zip(*found, strict=True))  # (N, k), nearest first
        reach = distances[:, -1]
        density = 1 / (torch.maximum(distances, reach[index]).mean(1) + TINY)
        self.reach, self.density = reach.to(vectors), density.to(vectors)

    @staticmethod
    def others(vectors: Tensor, start: int, count: int) -> tuple[Tensor, Tensor]:
        """Of some `vectors` (N, d) from `start` on, distances (r, k) and places (r, k) of the nearest others."""
        rows = vectors[start : start + ROWS]  # (r, d)
        squared = squared_distances(rows, vectors)  # (r, N), in float64
        squared[torch.arange(len(rows)), torch.arange(start, start + len(rows))] = torch.inf
        nearest = squared.topk(count, largest=False)
        return nearest.values.sqrt(), nearest.indices

    def score(self, vectors: Tensor) -> Tensor:
        """The local outlier factor, (B,)."""
        count = min(self.neighbours, max(1, len(self.learnt) - 1))
        distances, index = nearest_distances(vectors, self.learnt, count)  # (B, k) each
        reachability = torch.maximum(distances, self.reach[index]).mean(1) + TINY
        return self.density[index].mean(1) * reachability
