"""One self-contained HTML file about a run of inspections, to be read by people who were not there."""

from __future__ import annotations

import base64
import io
from array import array
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from heapq import heappush, heapreplace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from okng.datasets.base import NG, OK
from okng.inspection.images import Source, UnreadableImage
from okng.inspection.inspector import Inspector
from okng.inspection.model_file import write_atomically
from okng.inspection.overlay import HEAT, heat_range, overlay
from okng.inspection.result import Inspection
from okng.report.charts import expected_false_alarms, histogram, rate_above, roc
from okng.report.settings import BASES, asked, method, metric, number, settings, share

THUMBNAIL = 480  # pixels of the longer side
SMALL = 128  # up to this long a side, pixels are shown as they are, and JPEG would smear them
NAMED_UNREADABLE = 100
OTHER_RATES = (0.001, 0.01, 0.02, 0.05, 0.1, 0.2)
METRIC_NAMES = {
    "image_auroc": "Image AUROC",
    "image_ap": "Image AP",
    "f1_max": "F1-max (oracle threshold)",
    "pixel_auroc": "Pixel AUROC",
    "aupro": "AUPRO (FPR ≤ 0.3)",
}


@dataclass(frozen=True)
class Kept:
    """The `number`-th image, which may be shown; `pixels` is its thumbnail where there is no file."""

    number: int
    inspection: Inspection
    label: int | None
    kind: str
    pixels: np.ndarray | None


class Shortlist:
    """The `limit` images of highest priority among all that were offered; ties go to the earlier one."""

    def __init__(self, limit: int):
        self.limit = limit
        self.offered = 0
        self._heap: list[tuple[float, int, Kept]] = []

    def wants(self, priority: float) -> bool:
        """Count an offer; whether it belongs here so far."""
        self.offered += 1
        return len(self._heap) < self.limit or (self.limit > 0 and priority > self._heap[0][0])

    def push(self, priority: float, kept: Kept) -> None:
        """Take the image last offered, and drop the lowest when full."""
        entry = (priority, -self.offered, kept)
        if len(self._heap) < self.limit:
            heappush(self._heap, entry)
        else:
            heapreplace(self._heap, entry)

    def ranked(self) -> list[Kept]:
        """Highest priority first."""
        return [kept for _, _, kept in sorted(self._heap, key=lambda entry: entry[:2], reverse=True)]


class Report:
    """Collects inspections one by one and writes them up.

    All scores are kept, eight bytes each, but maps only of the images to be shown: the `worst` highest
    scores, `borderline` ones around the threshold and, where labels are known, up to `worst` missed NG images
    and as many false alarms.
    """

    def __init__(self, title: str, inspector: Inspector, worst: int = 24, borderline: int = 12):
        self.title = title
        self.inspector = inspector
        self.inspected = 0
        self.unreadable: list[tuple[str, str]] = []
        self.unreadable_count = 0
        self._scores: dict[tuple[str, int | None], array[float]] = defaultdict(lambda: array("d"))
        self._milliseconds: dict[str, float] = defaultdict(float)
        self.worst = Shortlist(worst)
        self.just_ng = Shortlist(borderline // 2)
        self.just_ok = Shortlist(borderline - borderline // 2)
        self.false_alarms = Shortlist(worst)
        self.missed = Shortlist(worst)

    def add(
        self,
        inspection: Inspection,
        label: int | None = None,
        kind: str = "",
        image: np.ndarray | None = None,
    ) -> None:
        """Take in one result; `label` is 0 for OK, 1 for NG, None for unknown, `kind` its folder or class.

        Thumbnails are read from `inspection.path` when the report is written; give `image`, the pixels that
        were inspected, where there is no file.
        """
        self.inspected += 1
        self._scores[kind, label].append(inspection.score)
        for stage, milliseconds in inspection.timing.items():
            self._milliseconds[stage] += milliseconds
        wanted = [
            (shortlist, priority)
            for shortlist, priority in self._places(inspection, label)
            if shortlist.wants(priority)
        ]
        if not wanted:
            return
        if inspection.map is not None:  # a view would keep the maps of its whole batch alive
            inspection = replace(inspection, map=inspection.map.copy())
        pixels = None if image is None else self._thumbnail(image, inspection.size)
        kept = Kept(self.inspected, inspection, label, kind, pixels)
        for shortlist, priority in wanted:
            shortlist.push(priority, kept)

    def skip(self, path: Path | str, reason: str) -> None:
        """Count an image that could not be read; the first `NAMED_UNREADABLE` are listed."""
        self.unreadable_count += 1
        if len(self.unreadable) < NAMED_UNREADABLE:
            self.unreadable.append((str(path), reason))

    def write(self, path: Path, metrics: dict[str, float] | None = None) -> Path:
        """Write the HTML file, all or nothing, and return `path`; `metrics` are shown below the ROC curve.

        Metrics need labels: without both an OK and an NG image they are left out, as the curve is.
        """
        from jinja2 import Environment, PackageLoader, StrictUndefined

        environment = Environment(
            loader=PackageLoader("okng.report"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        environment.filters.update(number=number, share=share, asked=asked, metric=metric)
        html = environment.get_template("report.html").render(**self._content(metrics or {}))
        write_atomically(Path(path), html.encode("utf-8", "replace"))  # file names need not be valid Unicode
        return Path(path)

    def _places(self, inspection: Inspection, label: int | None) -> Iterator[tuple[Shortlist, float]]:
        """The shortlists that `inspection` stands for, with its priority in each."""
        score = inspection.score
        yield self.worst, score
        yield (self.just_ng, -score) if inspection.is_ng else (self.just_ok, score)
        if label == OK and inspection.is_ng:
            yield self.false_alarms, score
        if label == NG and not inspection.is_ng:
            yield self.missed, -score

    def _content(self, metrics: dict[str, float]) -> dict[str, Any]:
        """Everything the template shows."""
        calibration = self.inspector.calibration
        groups = {key: np.array(scores) for key, scores in self._scores.items()}
        ok, ng, unlabelled = (
            np.concatenate([np.empty(0), *(scores for (_, of), scores in groups.items() if of == label)])
            for label in (OK, NG, None)
        )
        scores = np.concatenate([ok, ng, unlabelled])
        rows = [("Labelled OK", ok), ("Labelled NG", ng)]
        rows.append(("Without a label" if len(ok) or len(ng) else "Inspected", unlabelled))
        rows = [(name, values) for name, values in rows if len(values)]
        return {
            "title": self.title,
            "date": datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
            "method": method(self.inspector),
            "calibration": calibration,
            "bases": BASES,
            "inspected": self.inspected,
            "called_ng": int((scores > calibration.threshold).sum()),
            "unreadable": self.unreadable,
            "unreadable_count": self.unreadable_count,
            "false_alarms": rate_above(ok, calibration.threshold),
            "expected": expected_false_alarms(calibration, len(ok)) if len(ok) else None,
            "caught": rate_above(ng, calibration.threshold),
            "histogram": histogram(rows, calibration) if rows else None,
            "roc": roc(ok, ng) if len(ok) and len(ng) else None,
            "metrics": [(METRIC_NAMES.get(name, name), value) for name, value in metrics.items()],
            "rates": self._other_rates(ok, ng, scores) if self.inspected else [],
            "kinds": self._kinds(groups) if any(kind for kind, _ in groups) else [],
            "sections": self._sections(len(ok), len(ng)),
            "settings": settings(
                self.inspector, {stage: total / self.inspected for stage, total in self._milliseconds.items()}
            ),
            "heat": None if calibration.peaks is None else heat_range(calibration),
            "heat_colours": HEAT,
        }

    def _other_rates(self, ok: np.ndarray, ng: np.ndarray, scores: np.ndarray) -> list[dict[str, Any]]:
        """What other false-alarm rates would have given on the same images, with the one in force."""
        current = self.inspector.calibration
        others = [current.at(rate) for rate in OTHER_RATES if rate != current.false_alarm_rate]
        others = [other for other in others if other.basis != "largest"]  # those rates are out of reach
        return [
            {
                "calibration": calibration,
                "current": calibration is current,
                "false_alarms": rate_above(ok, calibration.threshold),
                "caught": rate_above(ng, calibration.threshold),
                "called_ng": rate_above(scores, calibration.threshold),
            }
            for calibration in sorted([current, *others], key=lambda other: (-other.threshold, other.false_alarm_rate))
        ]

    def _kinds(self, groups: dict[tuple[str, int | None], np.ndarray]) -> list[dict[str, Any]]:
        """One row per kind and label, OK first, then NG from the least to the best caught."""
        threshold = self.inspector.calibration.threshold
        rows: list[dict[str, Any]] = [
            {
                "kind": kind or "(none)",
                "label": label,
                "above": rate_above(scores, threshold),
                "median": float(np.median(scores)),
            }
            for (kind, label), scores in groups.items()
        ]
        order = {OK: 0, NG: 1, None: 2}
        return sorted(rows, key=lambda row: (order[row["label"]], row["above"].share, row["kind"]))

    def _sections(self, ok: int, ng: int) -> list[dict[str, Any]]:
        """The images to show by section; one that an earlier section shows is only referred to."""
        around = [*reversed(self.just_ng.ranked()), *self.just_ok.ranked()]
        sections: list[tuple[str, list[Kept], int]] = []
        if ng:
            sections.append(("missed", self.missed.ranked(), self.missed.offered))
        if ok:
            sections.append(("false-alarms", self.false_alarms.ranked(), self.false_alarms.offered))
        if self.inspected:
            sections.append(("worst", self.worst.ranked(), self.inspected))
            sections.append(("borderline", around, len(around)))
        shown: set[int] = set()
        result = []
        for name, images, total in sections:
            cards = []
            for rank, kept in enumerate(images, 1):
                pictures = None if kept.number in shown else self._pictures(kept)
                cards.append({"rank": rank, "kept": kept, "name": _name(kept), "pictures": pictures})
                shown.add(kept.number)
            result.append({"name": name, "cards": cards, "total": total})
        return result

    def _pictures(self, kept: Kept) -> dict[str, Any]:
        """The original and its heatmap as data URIs; None for what there is not."""
        inspection = kept.inspection
        pixels, reason = kept.pixels, "its pixels were not kept"
        if pixels is None and inspection.path is not None:
            try:
                pixels = self._thumbnail(inspection.path, inspection.size)
            except UnreadableImage:
                reason = "the file could not be read again"
        if pixels is None:
            return {"original": None, "heatmap": None, "small": False, "reason": reason}
        image = Image.fromarray(pixels)
        calibration = self.inspector.calibration
        small = max(image.size) <= SMALL
        heatmap = None
        if inspection.map is not None and calibration.peaks is not None:
            enlarge = max(1, THUMBNAIL // 2 // max(image.size)) if small else 1  # room for outlines
            canvas = image.resize((image.width * enlarge, image.height * enlarge), Image.Resampling.NEAREST)
            heatmap = _data_uri(overlay(canvas, inspection, *heat_range(calibration)))
        return {"original": _data_uri(image), "heatmap": heatmap, "small": small, "reason": ""}

    def _thumbnail(self, source: Source, size: tuple[int, int]) -> np.ndarray:
        """The image in colour, uint8 (h, w, 3), its longer side at most `THUMBNAIL`; `size` is its own."""
        scale = min(1.0, THUMBNAIL / max(size))
        shape = (max(1, round(size[0] * scale)), max(1, round(size[1] * scale)))
        return replace(self.inspector.preprocess, mode="RGB", size=shape).load(source)[0]


def _name(kept: Kept) -> str:
    """Folder and file name, for file names alone repeat (`crack/000.png`, `stain/000.png`)."""
    path = kept.inspection.path
    return f"image {kept.inspection.index}" if path is None else "/".join(Path(path).parts[-2:])


def _data_uri(image: Image.Image) -> str:
    """PNG for small images, which JPEG would smear, else JPEG."""
    kind = "png" if max(image.size) <= SMALL else "jpeg"
    buffer = io.BytesIO()
    image.save(buffer, kind, optimize=True, **({"quality": 85} if kind == "jpeg" else {}))
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
