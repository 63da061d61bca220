"""Isolation Forest."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from okng.checks import at_least
from okng.detectors.classical.vectors import VectorDetector


class IsolationForest(VectorDetector):
    """What few random cuts part from all the other images is odd.

    Liu, Ting, Zhou, "Isolation Forest", ICDM 2008. Each tree divides a sample of the OK images at a random value of a
    random feature, again and again, down to a height of log₂ of the sample. The score is 2^(-E[h] / c(ψ)), in (0, 1]:
    E[h] is the mean length of the image's path through the trees, where a leaf that holds m images counts c(m) more,
    and c(m) the mean path of an unsuccessful search in a binary tree of m. About 0.5 says nothing, near 1 is odd.

    `features`: "pixels", or the name of a backbone whose last features, averaged over the image, are taken instead.
    `weights`: the backbone's: "imagenet", "none" or a file. `contrast`: whether each image's pixels are first made
    less their mean and divided by their mean absolute deviation, as in the experiments of "Deep One-Class
    Classification"; a backbone's features never are. `components`: the share of the variance that the principal
    components kept explain, in (0, 1), or none for all values as they are. `trees`: how many. `samples`: how many OK
    images each tree sees, drawn without replacement; all, where there are fewer.

    A score changes in steps, where a value passes a cut. Rounding may do that to a backbone's features in an exported
    graph, which is then refused; one tree of a hundred moves the mean path by a hundredth of its own.
    """

    feature: Tensor
    threshold: Tensor
    below: Tensor
    length: Tensor
    usual: Tensor

    def __init__(
        self,
        features: str = "pixels",
        weights: str = "imagenet",
        contrast: bool = False,
        components: float | None = None,
        trees: int = 100,
        samples: int = 256,
    ):
        super().__init__(features, weights, contrast, components)
        at_least(1, trees=trees)
        at_least(2, samples=samples)
        self.trees, self.samples = trees, samples
        self.register_buffer("feature", torch.zeros(0, dtype=torch.int64))  # (nodes,), of all trees, one after another
        self.register_buffer("threshold", torch.zeros(0))  # (nodes,)
        self.register_buffer("below", torch.zeros(0, 2, dtype=torch.int64))  # (nodes, 2); a leaf's are itself
        self.register_buffer("length", torch.zeros(0))  # (nodes,), of the path that ends there
        self.register_buffer("usual", torch.ones(()))  # c(ψ)
        self.register_buffer("roots", torch.zeros(trees, dtype=torch.int64))  # (T,)

    def learn(self, vectors: Tensor) -> None:
        """Grow the trees by scikit-learn, seeded from torch's generator; keep them as tables of nodes."""
        from sklearn.ensemble import IsolationForest as Grower

        samples = min(self.samples, len(vectors))
        grower = Grower(
            n_estimators=self.trees, max_samples=samples, random_state=int(torch.randint(2**31 - 1, ()))
        ).fit(vectors.cpu().numpy())
        tables = [_table(tree.tree_) for tree in grower.estimators_]
        features, thresholds, children, lengths = zip(*tables, strict=True)
        first = np.cumsum([0, *(len(each) for each in features)])[:-1]  # where each tree's nodes begin, (T,)
        moved = [each + start for each, start in zip(children, first, strict=True)]
        where = vectors.device
        self.feature = torch.from_numpy(np.concatenate(features)).to(where)
        self.threshold = torch.from_numpy(np.concatenate(thresholds)).to(where)
        self.below = torch.from_numpy(np.concatenate(moved)).to(where)
        self.length = torch.from_numpy(np.concatenate(lengths)).to(where)
        self.roots = torch.from_numpy(first).to(where)
        self.usual = torch.tensor(usual_path(samples) or 1.0).to(vectors)

    def score(self, vectors: Tensor) -> Tensor:
        """2^(-E[h] / c(ψ)), (B,), by one step down all trees at once for each level."""
        node = torch.zeros_like(vectors[:, :1], dtype=torch.int64) + self.roots  # (B, T)
        for _ in range(math.ceil(math.log2(self.samples))):
            right = vectors.gather(1, self.feature[node]) > self.threshold[node]  # (B, T)
            both = self.below[node]  # (B, T, 2)
            node = torch.where(right, both[..., 1], both[..., 0])
        return torch.pow(2.0, -self.length[node].mean(1) / self.usual)


def usual_path(count: int) -> float:
    """c(m), the mean length of an unsuccessful search in a binary tree of `count` images; 0 for one."""
    if count <= 2:
        return float(max(0, count - 1))
    return 2 * (math.log(count - 1) + float(np.euler_gamma)) - 2 * (count - 1) / count


def _table(tree: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Of a scikit-learn tree with n nodes: features (n,), thresholds (n,), children (n, 2), lengths of paths (n,).

    scikit-learn compares values in float32 with thresholds in float64; the largest float32 that is not above such a
    threshold parts the same values.
    """
    leaf = tree.children_left < 0  # (n,)
    own = np.arange(tree.node_count)
    children = np.where(leaf[:, None], own[:, None], np.stack([tree.children_left, tree.children_right], 1))
    depth = np.zeros(tree.node_count)
    for node in own[~leaf]:  # parents come before their children
        depth[children[node]] = depth[node] + 1
    length = depth + [usual_path(int(count)) for count in tree.n_node_samples]
    threshold = tree.threshold.astype(np.float32)
    threshold = np.where(threshold > tree.threshold, np.nextafter(threshold, np.float32(-np.inf)), threshold)
    return np.where(leaf, 0, tree.feature).astype(np.int64), threshold, children, length.astype(np.float32)
