"""Measure an inspector on a labelled data set."""

from __future__ import annotations

import math
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

import okng
from okng.datasets import NG, OK, Dataset, Sample
from okng.datasets.base import Mask
from okng.datasets.detect import opened
from okng.datasets.masks import read_mask
from okng.errors import OkngError, missing_extra
from okng.inspection.inspector import Inspector
from okng.inspection.reading.decoding import each_page
from okng.inspection.reading.images import UnreadableImage, fingerprint, image_size
from okng.inspection.verdict.result import Inspection
from okng.metrics import StreamingPixelMetrics, auroc, average_precision, f1_max, pixel_metrics
from okng.metrics.shares import wilson
from okng.training.progress import Narrator, narrated

if TYPE_CHECKING:
    from okng.report import Report

EXACT_PIXELS = 150_000_000  # 0.6 GB of maps; beyond it the streaming metrics take over


class Page(Protocol):
    """What is shown every result: a `Report`, or whatever else collects them. `total` is how many there will be."""

    total: int | None

    def add(
        self, inspection: Inspection, label: int | None, kind: str, image: np.ndarray | None, mask: Mask | None
    ) -> None:
        """One result, as `Report.add` says."""

    def skip(self, path: Path | str, reason: str) -> None:
        """An image that could not be read."""


@narrated
def evaluate(
    model: Inspector | str | Path,
    data: Dataset | str | Path,
    *,
    normal: str | int | None = None,
    protocol: str | None = None,
    abnormal: str | int | None = None,
    contamination: float = 0.0,
    seed: int = 0,
    report: Report | None = None,
    progress: bool = False,
    tell: Narrator | None = None,
) -> dict[str, Any]:
    """Measure `model`, an inspector or its file, on the test part of the labelled data set `data`.

    `data` is a folder in any layout of `okng list datasets`, divided as `okng.datasets.open_dataset` says by `normal`,
    `protocol`, `abnormal`, `contamination` (the share of NG images that training hid among its images) and `seed`: the
    same ones as in training. A `Dataset` is divided already and takes none of them. Each image is added to `report`, an
    `okng.Report`, where one is given. `progress`: show on standard error how far it is.

    The figures by name: "image_auroc", "image_ap", "f1_max", "pixel_auroc", "aupro" in [0, 1], NaN where "notes" says
    why; "measured_false_alarm_rate" and "caught", the shares of OK and of NG images called NG, and what they may be
    for other images alike, "measured_false_alarm_interval" and "caught_interval" (95 %); and counts. Raises
    `OkngError` for a data set without labelled test images.
    """
    if find_spec("sklearn") is None:  # the line inspects without it
        raise missing_extra("scikit-learn", "train")
    inspector = model if isinstance(model, Inspector) else okng.load(model)
    dataset = opened(data, normal, seed, protocol, abnormal, contamination)
    return evaluate_inspector(inspector, dataset, report, tell)


def evaluate_inspector(
    inspector: Inspector, dataset: Dataset, page: Page | None = None, tell: Narrator | None = None
) -> dict[str, Any]:
    """All figures of `inspector` on the test part of `dataset`, adding each result to `page` where one is given.

    Image figures come from raw scores. Pixel figures compare each map, brought bilinearly to the original size, with
    its mask at that size; NG samples without a mask are left out of them. A figure that is not defined is NaN and
    "notes" says why. Images that the model was given, to learn from or, in training or later, to calibrate by, are not
    tested on; "left_out" says how many.
    """
    tell = tell or Narrator(quiet=True)
    _ = inspector.calibration  # of several products one has to be meant
    samples, left_out = tested(inspector, dataset)
    if left_out:
        tell.say(f"{left_out} test images are left out, because the model was given them to learn or to calibrate by")
    _check_masks(samples)
    labels, scores, verdicts, skipped = [], [], [], []
    pixels = _Pixels()
    if page is not None:
        page.total = len(samples)
    tell.begin("evaluating", len(samples))

    def unreadable(error: UnreadableImage) -> None:
        skipped.append(str(error))
        tell.say(f"skipped: {error}")
        if page is not None:
            page.skip(error.path, error.reason)

    for inspection in inspector.inspect([sample.image for sample in samples], unreadable=unreadable):
        sample = samples[inspection.index]
        labels.append(sample.label)
        scores.append(inspection.score)
        verdicts.append(inspection.is_ng)
        pixels.add(sample, inspection)
        if page is not None:
            image = sample.image if isinstance(sample.image, np.ndarray) else None
            page.add(inspection, sample.label, sample.kind, image, sample.mask)
        tell.advance()
    figures = _figures(np.array(labels), np.array(scores), np.array(verdicts), inspector, pixels, skipped)
    return {**figures, "left_out": left_out}


def tested(inspector: Inspector, dataset: Dataset) -> tuple[list[Sample], int]:
    """The labelled test images, in the order they are judged, and how many are left out: the model was given them."""
    labelled = [page for sample in dataset.test if sample.label is not None for page in _pages(sample)]
    if not labelled:
        hint = "`okng inspect` needs no labels, and of folders of classes --normal names the OK one"
        raise OkngError(f"{dataset.name} has no labelled test images; {hint}")
    seen = set(inspector.manifest.get("seen", ()))
    samples = [sample for sample in labelled if not _is_one_of(sample, seen)]
    return samples, len(labelled) - len(samples)


def _pages(sample: Sample) -> list[Sample]:
    """The sample, or one for each page where its file has several."""
    if isinstance(sample.image, np.ndarray):
        return [sample]
    return [replace(sample, image=Path(page)) for page in each_page(sample.image) if isinstance(page, Path | str)]


def _is_one_of(sample: Sample, fingerprints: set[str]) -> bool:
    try:
        return bool(fingerprints) and fingerprint(sample.image) in fingerprints
    except UnreadableImage:  # it is told of where it would be inspected
        return False


def _check_masks(samples: list[Sample]) -> None:
    """Before anything is scored, that every mask can be read and has its image's size."""
    for sample in samples:
        if sample.mask is None:
            continue
        for path in [sample.mask] if isinstance(sample.mask, Path) else sample.mask:
            try:
                mask = image_size(path)
            except UnreadableImage as error:
                raise OkngError(f"{error}; put the mask right, or take it away to go without") from error
            try:
                size = image_size(sample.image)
            except UnreadableImage:  # it is told of where it would be inspected
                continue
            if mask != size:
                raise OkngError(f"{path} is {mask[0]}x{mask[1]} but its image {size[0]}x{size[1]}; fix the mask")


def _figures(
    labels: np.ndarray,
    scores: np.ndarray,
    verdicts: np.ndarray,
    inspector: Inspector,
    pixels: _Pixels,
    skipped: list[str],
) -> dict[str, Any]:
    ok, ng = labels == OK, labels == NG
    best = f1_max(labels, scores)
    pixel_auroc, aupro, pixel_note = pixels.compute()
    notes: dict[str, str] = {}
    of_images, of_pixels = ("image_auroc", "image_ap", "f1_max"), ("pixel_auroc", "aupro")
    if not labels.size:
        notes |= dict.fromkeys((*of_images, *of_pixels), "undefined: none of the test images could be read")
    elif not (ok.any() and ng.any()):
        notes |= dict.fromkeys(of_images, f"undefined: the test images are all {'OK' if ok.any() else 'NG'}")
    if labels.size and pixel_note:
        notes |= dict.fromkeys(of_pixels, pixel_note)
    notes.setdefault("f1_max", "oracle: its threshold is chosen on the test labels")
    return {
        "n_ok": int(ok.sum()),
        "n_ng": int(ng.sum()),
        "image_auroc": auroc(labels, scores),
        "image_ap": average_precision(labels, scores),
        "f1_max": best.value,
        "pixel_auroc": pixel_auroc,
        "aupro": aupro,
        "asked_false_alarm_rate": inspector.calibration.false_alarm_rate,
        "measured_false_alarm_rate": float(verdicts[ok].mean()) if ok.any() else math.nan,
        "measured_false_alarm_interval": wilson(int(verdicts[ok].sum()), int(ok.sum())) if ok.any() else None,
        "caught": float(verdicts[ng].mean()) if ng.any() else math.nan,
        "caught_interval": wilson(int(verdicts[ng].sum()), int(ng.sum())) if ng.any() else None,
        "promise": inspector.promise(),
        "skipped": skipped,
        "notes": notes,
    }


class _Pixels:
    """Masks and maps, kept while they are few and counted into histograms from then on."""

    def __init__(self) -> None:
        self.masks: list[np.ndarray] = []
        self.maps: list[np.ndarray] = []
        self.streaming: StreamingPixelMetrics | None = None
        self.count = self.marked = 0  # pixels, and those of them that a mask marks
        self.with_mask = 0
        self.localizes = True

    def add(self, sample: Sample, inspection: Inspection) -> None:
        """One image; its mask has the image's size."""
        self.localizes = inspection.map is not None
        if not self.localizes or (sample.label == NG and sample.mask is None):
            return
        mask = np.zeros(inspection.size, bool)
        if sample.mask is not None:
            mask = read_mask(sample.mask)
            self.with_mask += 1
        self.count += mask.size
        self.marked += int(mask.sum())
        heat = inspection.heatmap()
        if self.streaming is None and self.count <= EXACT_PIXELS:
            self.masks.append(mask)
            self.maps.append(heat)
            return
        if self.streaming is None:
            self.streaming = StreamingPixelMetrics()
            for kept in zip(self.masks, self.maps, strict=True):
                self.streaming.update(*kept)
            self.masks, self.maps = [], []
        self.streaming.update(mask, heat)

    def compute(self) -> tuple[float, float, str]:
        """Pixel AUROC, AUPRO, and what is to be said of them: why they are undefined, or how inexact."""
        if not self.localizes:
            return math.nan, math.nan, "undefined: this detector gives no map"
        if not self.with_mask:
            return math.nan, math.nan, "undefined: the data set has no masks"
        if self.marked in (0, self.count):
            which = "no mask marks anything" if not self.marked else "the masks leave no pixel normal"
            return math.nan, math.nan, f"undefined: {which}"
        if self.streaming is None:
            return *pixel_metrics(self.masks, self.maps), ""
        note = f"of {self.count:,} pixels, counted in bins: exact to {max(self.streaming.bound()):.1g}"
        return *self.streaming.compute(), note


def metric_lines(figures: dict[str, Any]) -> list[str]:
    """The figures as lines for a person."""
    names = {
        "image_auroc": "image AUROC", "image_ap": "image AP", "f1_max": "F1-max",
        "pixel_auroc": "pixel AUROC", "aupro": "AUPRO (to 0.3)",
    }  # fmt: skip
    lines = [f"{figures['n_ok']} OK and {figures['n_ng']} NG images"]
    for key, name in names.items():
        note = figures["notes"].get(key, "")
        value = "" if math.isnan(figures[key]) else f"{figures[key]:.4f}  "
        lines.append(f"  {name:<15}{value}{note}")
    asked, measured = figures["asked_false_alarm_rate"], figures["measured_false_alarm_rate"]
    if not math.isnan(measured):
        within = _between(figures["measured_false_alarm_interval"])
        lines.append(f"  false alarms   {measured:.2%} of OK images, {within} (asked {asked:.2%})")
    if not math.isnan(figures["caught"]):
        lines.append(f"  caught         {figures['caught']:.2%} of NG images, {_between(figures['caught_interval'])}")
    return lines


def _between(interval: tuple[float, float]) -> str:
    """So few images tell a share: 1 of 60 is 0.3 to 8.9 %."""
    return f"95 % interval {interval[0]:.1%} to {interval[1]:.1%}"
