"""What planted defects are worth: whether they order detectors and arguments as real defects do.

    python benchmarks/sensitivity.py DATA [--only transistor tile mono poly] [--tables]

DATA holds magnetic_tile/ and mvtec_ad/transistor/; ELPV comes from PyPI. Writes results/sensitivity.csv, after each
detector, and docs/sensitivity.svg; rows that are there are not measured again. `--tables` measures nothing and
prints the correlations as a table in Markdown. Each detector learns 160 of 200 OK images, the other 40 set
its threshold and are planted into; the real AUROC is of up to 80 OK and 80 NG test images. One seed. What planted
defects are like was fixed before any of this was run, and no test label decides anything here.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import math
import os
import platform
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import kendalltau, spearmanr
from torch import Tensor, nn

import okng
from okng.benchmark.reproduce import versions
from okng.benchmark.rows import read_rows, write_rows
from okng.datasets import NG, OK, Dataset, open_dataset
from okng.datasets.masks import read_mask
from okng.detectors.feature_matching.padim import PaDiM
from okng.detectors.feature_matching.patchcore import PatchCore
from okng.metrics import auroc
from okng.nn.features.backbones import Backbone
from okng.planted.result import Sensitivity
from okng.training.loop.frozen import compiled

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results" / "sensitivity.csv"
FIELDS = ("dataset", "group", "case", "figure", "value", "n", "seconds", "command", "versions", "machine", "date")
LEARNT, TESTED, PLANTS = 200, 80, 5
MORE = {"transistor": 8}  # plants of each kind and size, for the figure
SETS = {"transistor": "mvtec_ad/transistor", "tile": "magnetic_tile", "mono": "elpv/mono", "poly": "elpv/poly"}
STRIDES = (4, 8, 16, 32)
INK, PALE, RULE = "#1f2937", "#6b7280", "#e5e7eb"
CURVES = {"patch_memory": "#0b6892", "patchcore": "#7c3aed", "stfpm": "#b45309", "autoencoder": "#15803d"}
NUDGE = {"patch_memory": -4, "patchcore": 12}  # px, so that names don't lie on one another

BASE: dict[str, Any] = {"size": 256, "score": "top1%", "sigma": 8.0}
WITHIN = {  # PatchCore at 256 px
    "patchcore": {},
    "strides 8": {"strides": (8,)},
    "strides 16": {"strides": (16,)},
    "strides 8, 16, 32": {"strides": (8, 16, 32)},
    "no neighbourhood": {"neighbourhood": 1},
    "30 patches": {"coreset_size": 30},
    "the maximum as score": {"score": "max"},
}
ACROSS = (128, 192, 320)  # and 256
METHODS: dict[str, dict[str, Any]] = {
    "padim": {"size": 256},
    "stfpm": {"size": 128, "epochs": 5},
    "patch_memory": {},
    "autoencoder": {"size": 64, "code": 100, "epochs": 60, "batch_size": 16, "learning_rate": 1e-3},
}


class Shared(nn.Module):
    """A frozen backbone whose features are kept, for the next detector that is shown the same pixels."""

    whole: Any = None
    known: dict[int, list[Tensor]] = {}  # noqa: RUF012, of all detectors together

    def __init__(self, backbone: Backbone):
        super().__init__()
        self.strides, self.channels = backbone.strides, backbone.channels
        self.places = [STRIDES.index(stride) for stride in self.strides]
        if Shared.whole is None:
            Shared.whole = compiled(Backbone("efficientnet_lite0", STRIDES))

    def forward(self, images: Tensor) -> list[Tensor]:
        """As `Backbone.forward`."""
        kept = []
        for image in images:
            key = hash((image.shape, image.numpy().tobytes()))
            if key not in self.known:
                self.known[key] = [features[0].half() for features in Shared.whole(image[None])]
            kept.append(self.known[key])
        return [torch.stack([one[i] for one in kept]).float() for i in self.places]


class SharedPatchCore(PatchCore):
    """PatchCore on features that are kept."""

    @functools.wraps(PatchCore.__init__)
    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.backbone = Shared(self.backbone)  # type: ignore[assignment]


class SharedPaDiM(PaDiM):
    """PaDiM on features that are kept."""

    @functools.wraps(PaDiM.__init__)
    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.backbone = Shared(self.backbone)  # type: ignore[assignment]


def cases() -> Iterator[tuple[int, str, str, Any, dict[str, Any]]]:
    """Every detector: its input size, its groups, name, class and arguments; those of one size together."""
    for size in ACROSS:
        yield size, "sizes", f"patchcore {size} px", SharedPatchCore, {**BASE, "size": size}
    for case, arguments in WITHIN.items():
        groups = "arguments+sizes+methods" if case == "patchcore" else "arguments"
        yield 256, groups, case, SharedPatchCore, {**BASE, **arguments}
    yield 256, "methods", "padim", SharedPaDiM, METHODS["padim"]
    for case in ("stfpm", "autoencoder", "patch_memory"):
        yield METHODS[case].get("size", 0), "methods", case, case, METHODS[case]


def drawn(dataset: Dataset) -> tuple[list[Any], list[Any], np.ndarray]:
    """OK images to learn from, test images, and the labels of these."""
    rng = np.random.default_rng(0)
    learnt = [dataset.train[i].image for i in rng.permutation(len(dataset.train))[:LEARNT]]
    test = []
    for label in (OK, NG):
        some = [sample for sample in dataset.test if sample.label == label]
        test += [some[i] for i in rng.permutation(len(some))[:TESTED]]
    return learnt, [sample.image for sample in test], np.array([sample.label for sample in test])


def figures(result: Sensitivity, curve: bool) -> Iterator[tuple[str, float]]:
    """What planted defects say of a detector: shares found and called NG, AUROC against the images as they are."""
    cells: dict[tuple[str, float], list[float]] = {}
    for trial in result.trials:
        cells.setdefault((trial.recipe.kind, trial.recipe.size), []).append(trial.score)
    clean = np.array(result.clean)
    ranked = {
        cell: auroc(np.repeat([0, 1], [len(clean), len(scores)]), np.concatenate([clean, scores]))
        for cell, scores in cells.items()
    }
    yield "planted_found", result.found
    yield "planted_called", float(np.mean([p.called / p.plants for c in result.curves.values() for p in c.points]))
    yield "planted_auroc", float(np.mean(list(ranked.values())))
    ladder = sorted({size for _, size in cells})
    for name, some in (("small", ladder[:3]), ("large", ladder[3:])):
        yield f"planted_auroc_{name}", float(np.mean([v for (_, size), v in ranked.items() if size in some]))
        yield f"planted_found_{name}", float(np.mean([t.found for t in result.trials if t.recipe.size in some]))
    for point in result.overall.points if curve else ():
        for name in ("found", "low", "high"):
            value = point.share if name == "found" else getattr(point, name)
            yield f"curve {name} at {point.size:g} px", float(value)
    yield "found_from_px", result.overall.smallest
    yield "called_ng_elsewhere", result.elsewhere / len(result.trials)


def measure(name: str, source: str, rows: list[dict[str, Any]]) -> None:
    """Every detector on one data set that has no rows yet."""
    dataset = open_dataset(source)
    learnt, tested, labels = drawn(dataset)
    before = 0
    for size, group, case, detector, arguments in cases():
        if any(row["dataset"] == name and row["case"] == case for row in rows):
            continue
        if size != before:
            Shared.known.clear()
            before = size
        start = time.monotonic()
        inspector = okng.fit(learnt, detector, holdout=0.2, device="cpu", **arguments)
        real = auroc(labels, inspector.score_samples(tested))
        result = okng.sensitivity(inspector, learnt, plants=MORE.get(name, PLANTS))
        seconds = round(time.monotonic() - start, 1)
        count = f"{int((labels == OK).sum())} OK and {int((labels == NG).sum())} NG, {len(result.trials)} plants"
        common = {
            "dataset": name, "group": group, "case": case, "n": count, "seconds": seconds,
            "command": f"python benchmarks/sensitivity.py DATA --only {name}", "versions": versions(),
            "machine": f"{os.cpu_count()} cores, {platform.machine()}, no GPU",
            "date": datetime.date.today().isoformat(),
        }  # fmt: skip
        for figure, value in [("real_auroc", real), *figures(result, name in MORE)]:
            rows.append({**common, "figure": figure, "value": f"{float(value):.4g}"})
        write_rows(RESULTS, FIELDS, rows)
        print(
            name,
            case,
            f"real {real:.4f}",
            *(f"{k} {v:.3f}" for k, v in list(figures(result, False))[:7]),
            seconds,
            flush=True,
        )


APART = 0.02  # of real AUROC; a standard error of one is about .015 here
PLANTED = ("planted_auroc", "planted_found", "planted_auroc_small", "planted_auroc_large")


def correlations(rows: list[dict[str, Any]]) -> list[str]:
    """Lines of Markdown: per set and group Spearman's (Kendall's) correlation of the planted with the real order.

    Last: of the pairs whose real AUROCs lie `APART`, how many planted AUROC puts in the same order.
    """
    table: dict[tuple[str, str], dict[str, dict[str, float]]] = {}
    for row in rows:
        for group in row["group"].split("+"):
            table.setdefault((row["dataset"], group), {}).setdefault(row["case"], {})[row["figure"]] = float(
                row["value"]
            )
    lines = [
        "| set | compared | real AUROC | " + " | ".join(name.replace("_", " ") for name in PLANTED) + " | pairs |",
        "|---|---|---|---|" + "---|" * len(PLANTED),
    ]
    for (dataset, group), compared in sorted(table.items(), key=lambda item: (item[0][1], item[0][0])):
        real = [figures["real_auroc"] for figures in compared.values()]
        cells = []
        for name in PLANTED:
            planted = [figures[name] for figures in compared.values()]
            cells.append(f"{spearmanr(planted, real).statistic:.2f} ({kendalltau(planted, real).statistic:.2f})")
        pairs = [(i, j) for i in range(len(real)) for j in range(len(real)) if real[i] - real[j] >= APART]
        planted = [figures["planted_auroc"] for figures in compared.values()]
        cells.append(f"{sum(planted[i] > planted[j] for i, j in pairs)} of {len(pairs)}")
        lines.append(
            f"| {dataset} | {len(real)} {group} | {min(real):.3f} to {max(real):.3f} | " + " | ".join(cells) + " |"
        )
    return lines


def real_sizes(source: str) -> np.ndarray:
    """The longest sides, in px, of the boxes around the real defects' masks."""
    found = []
    for sample in open_dataset(source).test:
        if sample.mask is not None:
            rows, columns = np.nonzero(read_mask(sample.mask))
            if len(rows):
                found.append(max(np.ptp(rows), np.ptp(columns)) + 1)
    return np.array(found)


def figure(rows: list[dict[str, Any]], sizes: np.ndarray) -> None:
    """docs/sensitivity.svg: on transistor the share of all plants found against size, and the real defects' `sizes`."""
    left, top, width, height = 60, 20, 560, 300
    low, high = 4.0, 320.0

    def x(size: float) -> float:
        return round(left + width * math.log(size / low) / math.log(high / low), 1)

    def y(share: float) -> float:
        return round(top + height * (1 - share), 1)

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left + width + 150} {top + height + 90}" '
        'font-family="system-ui, sans-serif" font-size="13">',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for share in (0, 0.25, 0.5, 0.75, 1):
        out.append(f'<line x1="{left}" x2="{left + width}" y1="{y(share)}" y2="{y(share)}" stroke="{RULE}"/>')
        out.append(f'<text x="{left - 8}" y="{y(share) + 4}" text-anchor="end" fill="{PALE}">{share:.0%}</text>')
    below = top + height
    out += [
        f'<text x="{x(size)}" y="{below + 44}" text-anchor="middle" fill="{PALE}">{size}</text>'
        for size in (5, 10, 20, 40, 80, 160, 320)
    ]
    rug = f'y1="{below + 8}" y2="{below + 24}" stroke="{INK}" stroke-opacity=".45" stroke-width="1.5"'
    out += [f'<line x1="{x(size)}" x2="{x(size)}" {rug}/>' for size in sizes]
    axis = "longest side of the defect in px, of an image of 320"
    out += [
        f'<text x="{left + width + 8}" y="{below + 21}" fill="{INK}">real defects</text>',
        f'<text x="{left + width / 2}" y="{below + 70}" text-anchor="middle" fill="{INK}">{axis}</text>',
    ]
    for case, colour in CURVES.items():
        own = {
            row["figure"]: float(row["value"]) for row in rows if (row["dataset"], row["case"]) == ("transistor", case)
        }
        found = sorted((float(name.split()[3]), share) for name, share in own.items() if name.startswith("curve found"))
        if not found:
            continue
        out.append(
            f'<polyline fill="none" stroke="{colour}" stroke-width="2.5" points="'
            + " ".join(f"{x(size)},{y(share)}" for size, share in found)
            + '"/>'
        )
        for size, share in found:
            ends = [y(own[f"curve {end} at {size:g} px"]) for end in ("low", "high")]
            out.append(f'<line x1="{x(size)}" x2="{x(size)}" y1="{ends[0]}" y2="{ends[1]}" stroke="{colour}"/>')
            out.append(f'<circle cx="{x(size)}" cy="{y(share)}" r="4" fill="{colour}"/>')
        place = f'x="{x(found[-1][0]) + 8}" y="{y(found[-1][1]) + NUDGE.get(case, 4)}"'
        out.append(f'<text {place} fill="{colour}">{case}: real AUROC {own["real_auroc"]:.3f}</text>')
    (ROOT / "docs" / "sensitivity.svg").write_text("\n".join([*out, "</svg>"]) + "\n")


def main() -> None:
    """Measure what is missing, then print what it says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--only", nargs="+", choices=tuple(SETS), default=list(SETS))
    parser.add_argument("--tables", action="store_true")
    asked = parser.parse_args()
    rows: list[dict[str, Any]] = list(read_rows(RESULTS))
    for name in () if asked.tables else asked.only:
        measure(name, SETS[name] if SETS[name].startswith("elpv") else str(asked.data / SETS[name]), rows)
    print("\n".join(correlations(rows)))
    figure(rows, real_sizes(str(asked.data / "mvtec_ad/transistor")))


if __name__ == "__main__":
    main()
