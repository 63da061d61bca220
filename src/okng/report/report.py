"""One self-contained HTML file about a run of inspections, to be read by people who were not there."""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from okng.datasets.base import NG, OK, Mask
from okng.inspection.inspector import Inspector
from okng.inspection.model_file import write_atomically
from okng.inspection.outputs import partial_name
from okng.inspection.overlay import heat_range_if_any
from okng.inspection.verdict.result import Inspection
from okng.report.charts import expected_false_alarms, histogram, rate_above, rate_of, roc
from okng.report.language import Translate, translator, words
from okng.report.page import page
from okng.report.pictures import pictures, thumbnail
from okng.report.settings import settings
from okng.report.shortlist import Kept, Shortlist
from okng.report.table import Table, learning_command
from okng.report.words import distance, how_far, p

NAMED_UNREADABLE = 100
HELD_OUT = 10  # of the oddest held-out OK images
OTHER_RATES = (0.001, 0.01, 0.02, 0.05, 0.1, 0.2)


class Report:
    """Collects inspections one by one and writes them up.

    A score is kept of every image, and its line in a file, but maps only of the images to be shown: the `worst` highest
    scores, `borderline` ones around the threshold and, where labels are known, up to `worst` missed NG images
    and as many false alarms. `model` is the file of `inspector`, for the command that learns false alarms; `total` how
    many images there will be: a report of fewer says that it is one of a part. `language`: "en" or "ko".
    """

    def __init__(
        self,
        title: str,
        inspector: Inspector,
        worst: int = 24,
        borderline: int = 12,
        model: Path | None = None,
        total: int | None = None,
        language: str = "en",
    ):
        self.title = title
        self.language = language
        self._say = translator(language)
        self.inspector = inspector
        _ = inspector.calibration  # of several products one has to be meant
        self.model = model
        self.total = total
        self.inspected = 0
        self.unreadable: list[tuple[str, str]] = []
        self.unreadable_count = 0
        self._scores: dict[tuple[str, int | None], array[float]] = defaultdict(lambda: array("d"))
        self._milliseconds: dict[str, float] = defaultdict(float)
        self._called: dict[int | None, int] = defaultdict(int)  # NG, by label
        self._table = Table()
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
        mask: Mask | None = None,
    ) -> None:
        """Take in one result; `label` is 0 for OK, 1 for NG, None for unknown, `kind` its folder or class.

        `mask` marks where the defect really is, in a file or several, and is drawn over the heatmap.

        Thumbnails are read from `inspection.path` when the report is written; give `image`, the pixels that
        were inspected, where there is no file.
        """
        self.inspected += 1
        self._scores[kind, label].append(inspection.score)
        self._called[label] += inspection.is_ng
        self._table.add(inspection, label, kind)
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
        pixels = None if image is None else thumbnail(self.inspector, image, inspection.size)
        kept = Kept(self.inspected, inspection, label, kind, pixels, mask)
        for shortlist, priority in wanted:
            shortlist.push(priority, kept)

    def skip(self, path: Path | str, reason: str) -> None:
        """Count an image that could not be read; the first `NAMED_UNREADABLE` are listed."""
        self.unreadable_count += 1
        if len(self.unreadable) < NAMED_UNREADABLE:
            self.unreadable.append((str(path), reason))

    @property
    def complete(self) -> bool:
        """Whether all `total` images were inspected or found unreadable, as far as that is known."""
        return self.total is None or self.inspected + self.unreadable_count >= self.total

    def write(self, path: Path, metrics: Mapping[str, Any] | None = None) -> Path:
        """Write the HTML file and all results as a CSV file beside it, all or nothing, and return the page's path.

        `metrics` by their names, such as all that `okng.evaluate` returns: floats are shown below the ROC curve. They
        need labels: without both an OK and an NG image they are left out, as the curve is. A report of a part is
        NAME.partial.html, and leaves an older `path` alone.
        """
        path = Path(path).expanduser()
        written = path if self.complete else partial_name(path)
        beside = written.with_suffix(".csv")
        content = self._content(metrics or {})
        html = page("report.html", self.title, self.inspector, self.language, csv=beside.name, **content)
        write_atomically(beside, self._table.as_csv())
        write_atomically(written, html)
        if self.complete:  # what was left by a run that was stopped is outlived
            for part in (partial_name(written), partial_name(beside)):
                part.unlink(missing_ok=True)
        return written

    def _places(self, inspection: Inspection, label: int | None) -> Iterator[tuple[Shortlist, float]]:
        """The shortlists that `inspection` stands for, with its priority in each."""
        score = inspection.score
        yield self.worst, score
        yield (self.just_ng, -score) if inspection.is_ng else (self.just_ok, score)
        if label == OK and inspection.is_ng:
            yield self.false_alarms, score
        if label == NG and not inspection.is_ng:
            yield self.missed, -score

    def _content(self, metrics: Mapping[str, Any]) -> dict[str, Any]:
        """Everything the template shows."""
        calibration, t = self.inspector.calibration, self._say
        named = words(self.language)
        figures = {name: value for name, value in metrics.items() if isinstance(value, float | np.floating)}
        groups = {key: np.array(scores) for key, scores in self._scores.items()}
        ok, ng, unlabelled = (
            np.concatenate([np.empty(0), *(scores for (_, of), scores in groups.items() if of == label)])
            for label in (OK, NG, None)
        )
        scores = np.concatenate([ok, ng, unlabelled])
        rows = [(t("report.row_ok"), ok), (t("report.row_ng"), ng)]
        rows.append((t("report.row_none" if len(ok) or len(ng) else "report.row_all"), unlabelled))
        rows = [(name, values) for name, values in rows if len(values)]
        return {
            "inspected": self.inspected,
            "complete": self.complete,
            "total": self.total,
            "p": partial(p, calibration=calibration),
            "how_far": partial(how_far, calibration=calibration, language=self.language),
            "table": self._table.for_page(calibration),
            "learning": learning_command(self.model, self.inspector),
            "held_out": self._held_out(scores),
            "called_ng": sum(self._called.values()),
            "unreadable": self.unreadable,
            "unreadable_count": self.unreadable_count,
            "false_alarms": rate_of(self._called[OK], len(ok)),
            "expected": expected_false_alarms(calibration, len(ok)) if len(ok) else None,
            "caught": rate_of(self._called[NG], len(ng)),
            "histogram": histogram(rows, calibration) if rows else None,
            "roc": roc(ok, ng) if len(ok) and len(ng) else None,
            "metrics": [(named.get(f"metric.{name}", name), value) for name, value in figures.items()],
            "rates": self._other_rates(ok, ng, scores) if self.inspected else [],
            "kinds": self._kinds(groups) if any(kind for kind, _ in groups) else [],
            "sections": self._sections(len(ok), len(ng)),
            "settings": settings(
                self.inspector,
                {stage: total / self.inspected for stage, total in self._milliseconds.items()},
                self.language,
            ),
            "heat": heat_range_if_any(calibration),
        }

    def _held_out(self, scores: np.ndarray) -> list[dict[str, Any]]:
        """The oddest held-out OK images, the oddest first, each with how many of the inspected `scores` are above."""
        calibration, provenance = self.inspector.calibration, self.inspector.manifest.get("provenance", {})
        learnt = [provenance, *provenance.get("updates", ())]
        names = {image["score"]: image["image"] for each in learnt for image in each.get("stand_apart", ())}
        return [
            {
                "score": score,
                "name": names.get(score, ""),
                "distance": distance(score, calibration),
                "above": int((scores > score).sum()),
                "beyond": calibration.is_ng(score),
            }
            for score in calibration.scores[::-1][:HELD_OUT].tolist()
        ]

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
                "kind": kind or self._say("report.no_kind"),
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
                seen = None if kept.number in shown else pictures(kept, self.inspector, self._say)
                cards.append({"rank": rank, "kept": kept, "name": _name(kept, self._say), "pictures": seen})
                shown.add(kept.number)
            result.append({"name": name, "cards": cards, "total": total})
        return result


def _name(kept: Kept, t: Translate) -> str:
    """Folder and file name, for file names alone repeat (`crack/000.png`, `stain/000.png`)."""
    path = kept.inspection.path
    return t("report.image", n=kept.inspection.index) if path is None else "/".join(Path(path).parts[-2:])
