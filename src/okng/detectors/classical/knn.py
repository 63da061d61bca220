"""Nearest neighbours."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from okng.checks import at_least
from okng.detectors.classical.vectors import VectorDetector
from okng.nn.vectors.distances import nearest_distances


class NearestNeighbours(VectorDetector):
    """Far from even the nearest OK images is odd.

    Ramaswamy, Rastogi, Shim, "Efficient Algorithms for Mining Outliers from Large Data Sets", SIGMOD 2000: the distance
    to the k-th nearest; Angiulli, Pizzuti, "Fast Outlier Detection in High Dimensional Spaces", PKDD 2002: the mean
    distance to the k nearest.

    `features`: "pixels", or the name of a backbone whose last features, averaged over the image, are taken instead.
    `weights`: the backbone's: "imagenet", "none" or a file. `contrast`: whether each image's pixels are first made
    less their mean and divided by their mean absolute deviation; a backbone's features never are. `components`: the
    share of the variance that the principal components kept explain, in (0, 1), or none for all values as they are.
    `neighbours`: k; fewer, where fewer images were learnt. `distance`: "largest" to the k-th, "mean" of the k.
    """

    learnt: Tensor

    def __init__(
        self,
        features: str = "pixels",
        weights: str = "imagenet",
        contrast: bool = False,
        components: float | None = None,
        neighbours: int = 5,
        distance: Literal["largest", "mean"] = "largest",
    ):
        super().__init__(features, weights, contrast, components)
        at_least(1, neighbours=neighbours)
        self.neighbours, self.distance = neighbours, distance
        self.register_buffer("learnt", torch.zeros(0, 0))  # (N, d)

    def learn(self, vectors: Tensor) -> None:
        """Keep them."""
        self.learnt = vectors

    def score(self, vectors: Tensor) -> Tensor:
        """The distance to the k-th nearest vector, or the mean of the k, (B,)."""
        count = min(self.neighbours, len(self.learnt))
        distances, _ = nearest_distances(vectors, self.learnt, count)  # (B, k), nearest first
        return distances[:, -1] if self.distance == "largest" else distances.mean(1)
