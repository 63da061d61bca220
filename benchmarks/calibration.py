"""Which calibration wastes least: the split, cross-fitting, CV+, and estimators of the threshold, over 20 draws each.

    python benchmarks/calibration.py DATA [--sets NAME ...] [--counts 50 100 200 500] [--draws 20] [--size 128]

DATA holds magnetic_tile/ and mvtec_ad/transistor/; ELPV comes from PyPI. Writes results/calibration.csv.

Of each set's OK images, training and test together, one of each group of near copies is taken, so that no part is both
learnt and unseen. A draw takes n of them to learn and to calibrate by; all others are unseen. PatchCore at 96 px with
the mean of the highest hundredth as the score; features are computed once per set, a draw selects its coresets anew, on
one thread. 5 % are asked.

`split`: a fifth is held out and never learnt. `cross K`: K folds calibrate, the model learns all images. `pooled K`:
the first fold's model stays, and the scores of all folds calibrate it. `cv+`: five models stay, and each calibration
score is compared with the new image's score by the model that had not learnt that calibration image. `own out`: no
fold; a learnt image is judged by the final memory without its own patches.

The threshold: `rank`, the k-th largest score, k = floor(rate (n + 1)); `hd`, the estimate of Harrell & Davis
(Biometrika 69, 1982) of the quantile at 1 - rate; `tail`, the generalised Pareto fit that okng takes where n are too
few. `oracle` is what the true 5 % point of the same model would catch, taken from its unseen OK scores; `gap` is how
much less is caught than that.

NG images serve to count how many are caught and for nothing else; the table is read, nothing is fitted to them.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.special import betainc
from torch import Tensor

from okng.benchmark.reproduce import versions
from okng.benchmark.rows import read_rows, write_rows
from okng.datasets import NG, OK, open_dataset
from okng.detectors.base import Batch, Collect
from okng.detectors.catalogue import create
from okng.detectors.feature_matching.patchcore import PatchCore
from okng.inspection.reading.images import Preprocess, Source
from okng.inspection.verdict.calibration import Calibration, tail_threshold
from okng.nn.features.patches import mean_of_highest
from okng.training.images.copies import near_copies
from okng.training.images.data import TrainingImages
from okng.training.loop.frozen import compiled_backbones

RESULTS = Path(__file__).parents[1] / "results" / "calibration.csv"
FIELDS = (
    *("dataset", "n", "method", "threshold", "caught", "caught_sd", "oracle", "gap", "false_alarms", "false_alarms_sd"),
    *("seconds", "draws", "unseen", "ng", "size", "command", "versions", "machine", "date"),
)
COUNTS, RATE = (50, 100, 200, 500), 0.05
FEWEST_UNSEEN = 50
UNSEEN, NG_IMAGES = 200, 100  # at most


class Set:
    """Features of one data set, and what PatchCore says of it after learning some of its images."""

    def __init__(self, source: str, size: int):
        dataset = open_dataset(source)
        self.name = dataset.name
        samples = [*dataset.train, *dataset.test]
        ok = TrainingImages([s.image for s in samples if s.label == OK], Preprocess("RGB", size, 16))
        first = np.unique(near_copies(ok.thumbnails()), return_index=True)[1]
        ng = [s.image for s in samples if s.label == NG]
        ng = [ng[i] for i in np.random.default_rng(0).permutation(len(ng))[:NG_IMAGES]]
        self.ok, self.ng = np.arange(len(first)), np.arange(len(first), len(first) + len(ng))
        detector = create("patchcore")
        assert isinstance(detector, PatchCore)
        self.detector = detector
        self.features = self.prepared([*(ok.sources[i] for i in first), *ng], ok.preprocess)

    def prepared(self, sources: Sequence[Source], preprocess: Preprocess) -> list[tuple[Tensor, ...]]:
        """The backbone's features of each image: (1, C_s, h_s, w_s) for each stride."""
        features = []
        with torch.no_grad(), compiled_backbones(self.detector):
            for source in sources:
                pixels = torch.from_numpy(preprocess.load(source)[0].copy())  # (H, W, 3)
                features.append(tuple(self.detector.backbone(pixels.permute(2, 0, 1)[None].float() / 255)))
        return features

    @torch.no_grad()
    def learn(self, images: np.ndarray, seed: int) -> Tensor:
        """PatchCore's memory after it has learnt `images`, centred on the detector's `centre`: (M, D)."""
        torch.manual_seed(seed)
        (phase,) = self.detector.phases()
        assert isinstance(phase, Collect)
        for i in images:
            phase.visit(Batch(torch.empty(1, 3, 1, 1, device="meta"), torch.tensor([i]), self.features[i]))
        for _ in phase.finish() or ():
            pass
        return self.detector.bank

    @torch.no_grad()
    def scores(self, images: np.ndarray) -> np.ndarray:
        """What the detector, as it has learnt last, says of `images` (m,)."""
        found = []
        for i in images:
            queries = (self.detector.described(self.features[i]) - self.detector.centre).flatten(0, 2)  # (P, D)
            squared, _ = self.detector.nearest(queries)
            found.append(float(mean_of_highest(squared.clamp_min(0).sqrt()[None], 0.01)))
        return np.array(found)

    @torch.no_grad()
    def own_out(self, images: np.ndarray) -> np.ndarray:
        """What the memory says of each of the learnt `images` (m,) without the patches that are its own."""
        bank = self.detector.bank  # (M, D)
        found = []
        for i in images:
            queries = (self.detector.described(self.features[i]) - self.detector.centre).flatten(0, 2)  # (P, D)
            squared = queries.square().sum(1)[:, None] + bank.square().sum(1) - 2 * queries @ bank.T  # (P, M)
            squared[:, squared.amin(0) < 1e-5 * bank.square().sum(1).mean()] = torch.inf
            found.append(float(mean_of_highest(squared.amin(1).clamp_min(0).sqrt()[None], 0.01)))
        return np.array(found)


def by_rank(scores: np.ndarray) -> float:
    """The threshold that okng takes, the tail's or the largest score where n are too few included."""
    return Calibration.fit(scores, None, "cross", RATE).threshold


def by_harrell_davis(scores: np.ndarray) -> float:
    """A mean of all order statistics, weighted by the law of the one at the quantile 1 - RATE."""
    n = len(scores)
    edges = betainc((n + 1) * (1 - RATE), (n + 1) * RATE, np.arange(n + 1) / n)  # (n + 1,)
    return float(np.diff(edges) @ np.sort(scores))


def by_tail(scores: np.ndarray) -> float:
    """The generalised Pareto fit to the highest fifth."""
    return tail_threshold(np.sort(scores), RATE)


ESTIMATORS = {"rank": by_rank, "hd": by_harrell_davis, "tail": by_tail}


def draw(images: Set, n: int, seed: int) -> Iterator[tuple[str, str, np.ndarray, np.ndarray, np.ndarray, float]]:
    """Of one draw, for each method and estimator: which unseen OK and NG images are called NG, and the oracle's NG.

    With the seconds that learning and judging the calibration images took.
    """
    order = np.random.default_rng(seed).permutation(images.ok)
    learnt, unseen = order[:n], order[n : n + UNSEEN]
    Said = tuple[np.ndarray, np.ndarray]  # scores of unseen and of NG images

    def fold_by_fold(folds: Sequence[np.ndarray], models: int) -> tuple[list[np.ndarray], list[Said], list[float]]:
        """The scores of each fold, what the first `models` of them say, and the seconds of each fold."""
        scores, seconds = [], []
        said: list[Said] = []
        for fold in folds:
            start = time.perf_counter()
            images.learn(np.setdiff1d(learnt, fold), seed)
            scores.append(images.scores(fold))
            seconds.append(time.perf_counter() - start)
            if len(said) < models:
                said.append((images.scores(unseen), images.scores(images.ng)))
        return scores, said, seconds

    def estimates(method: str, scores: np.ndarray, said: Said, seconds: float) -> Iterator[Any]:
        oracle = said[1] > np.quantile(said[0], 1 - RATE)
        for name, estimator in ESTIMATORS.items():
            if name != "tail" or len(scores) > 10:
                threshold = estimator(scores)
                yield method, name, said[0] > threshold, said[1] > threshold, oracle, seconds

    fifths = np.array_split(learnt, 5)
    few = n <= 200  # beyond it only what is in question, for the time it takes
    scores, said, seconds = fold_by_fold(fifths if few else fifths[:1], 5)
    yield from estimates("split", scores[0], said[0], seconds[0])
    start = time.perf_counter()
    images.learn(learnt, seed)
    once = time.perf_counter() - start
    own = images.own_out(learnt)
    once_and_own = time.perf_counter() - start
    final = images.scores(unseen), images.scores(images.ng)
    oracle = final[1] > np.quantile(final[0], 1 - RATE)
    if few:
        yield from estimates("own out", own, final, once_and_own)
        yield from estimates("pooled 5", np.concatenate(scores), said[0], sum(seconds))
        yield from estimates("cross 5", np.concatenate(scores), final, sum(seconds) + once)
        ok, ng = (  # (1 + #{i: R_i >= the score by the model without i}) / (n + 1) <= RATE
            1 + sum((fold >= other[kind][:, None]).sum(1) for fold, other in zip(scores, said, strict=True))
            <= RATE * (n + 1) + 1e-9
            for kind in (0, 1)
        )
        yield "cv+", "rank", ok, ng, oracle, sum(seconds)
    for count in (10, n) if n <= 50 else (10,):
        scores, said, seconds = fold_by_fold(np.array_split(learnt, count), 1)
        name = "n" if count == n else str(count)
        yield from estimates(f"pooled {name}", np.concatenate(scores), said[0], sum(seconds))
        yield from estimates(f"cross {name}", np.concatenate(scores), final, sum(seconds) + once)


def main() -> None:
    """Measure all sets, a row for each method."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--sets", nargs="+", default=["transistor", "magnetic_tile", "elpv/mono", "elpv/poly"])
    parser.add_argument("--counts", nargs="+", type=int, default=COUNTS)
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--size", type=int, default=96)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    places = {"transistor": asked.data / "mvtec_ad" / "transistor", "magnetic_tile": asked.data / "magnetic_tile"}
    more = "".join(
        f" --{k} {v}" for k, v in (("draws", asked.draws), ("size", asked.size)) if v != parser.get_default(k)
    )
    for source in asked.sets:
        images = Set(str(places.get(source, source)), asked.size)
        rows: list[dict[str, Any]] = []
        for n in asked.counts:
            unseen = min(UNSEEN, len(images.ok) - n)
            if unseen < FEWEST_UNSEEN:
                continue
            kept: dict[tuple[str, str], list[tuple[float, ...]]] = {}
            for seed in range(asked.draws):
                for method, threshold, ok, ng, oracle, seconds in draw(images, n, seed):
                    kept.setdefault((method, threshold), []).append((ok.mean(), ng.mean(), oracle.mean(), seconds))
            for (method, threshold), found in kept.items():
                alarms, caught, oracle, seconds = np.array(found).T
                rows.append({
                    "dataset": images.name, "n": n, "method": method, "threshold": threshold,
                    "caught": f"{caught.mean():.3f}", "caught_sd": f"{caught.std(ddof=1):.3f}",
                    "oracle": f"{oracle.mean():.3f}", "gap": f"{oracle.mean() - caught.mean():.3f}",
                    "false_alarms": f"{alarms.mean():.4f}", "false_alarms_sd": f"{alarms.std(ddof=1):.4f}",
                    "seconds": f"{np.median(seconds):.2f}", "draws": asked.draws, "unseen": unseen,
                    "ng": len(images.ng), "size": asked.size,
                    "command": f"python benchmarks/calibration.py DATA --sets {source}{more}",
                    "versions": versions(), "machine": f"{os.cpu_count()} cores, {platform.machine()}, no GPU",
                    "date": datetime.date.today().isoformat(),
                })  # fmt: skip
                print(*(rows[-1][field] for field in FIELDS[:13]), flush=True)
        others = read_rows(RESULTS) if RESULTS.exists() else []
        anew = {(row["dataset"], str(row["size"]), str(row["n"])) for row in rows}
        others = [r for r in others if (r["dataset"], r["size"], r["n"]) not in anew]
        write_rows(RESULTS, FIELDS, [*others, *rows])


if __name__ == "__main__":
    main()
