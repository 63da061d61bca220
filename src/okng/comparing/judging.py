"""What a comparison keeps of each test image that a method judged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from okng.comparing.pixels import counted, levels
from okng.datasets.base import NG, Mask, Sample
from okng.datasets.masks import read_mask
from okng.errors import OkngError
from okng.inspection.inspector import Inspector
from okng.inspection.reading.images import Source, UnreadableImage, fingerprint
from okng.inspection.verdict.result import Inspection, upsample
from okng.planted.measure import sensitivity
from okng.report.pictures import drawn, thumbnail
from okng.training.progress import Narrator

SIDE = 240  # pixels of the longer side of a picture


def mark_of(source: Source) -> str:
    """The fingerprint of an image or a mask; "unreadable" for one that can't be read."""
    try:
        return fingerprint(source)
    except UnreadableImage:
        return "unreadable"


def keys_of(samples: Sequence[Sample]) -> list[str]:
    """A name for each sample by its content, the same in every run: a second image of the same bytes ends in -2."""
    seen: Counter[str] = Counter()
    keys = []
    for sample in samples:
        digest = mark_of(sample.image)
        seen[digest] += 1
        keys.append(digest if seen[digest] == 1 else f"{digest}-{seen[digest]}")
    return keys


class Collected:
    """Takes in the inspections of `samples`, in the place of a report: scores, verdicts, pixels counted, pictures."""

    def __init__(self, inspector: Inspector, samples: Sequence[Sample], shown: Sequence[str]):
        self.inspector, self.samples = inspector, samples
        self.masks = any(sample.mask is not None for sample in samples)
        self._keys, self._shown = keys_of(samples), set(shown)
        self.total: int | None = None
        self.keys: list[str] = []
        self.pictures: dict[str, dict[str, Any]] = {}
        self._rows: list[tuple[int, float, bool]] = []
        self._maps: dict[int, tuple[np.ndarray, Mask | None, tuple[int, int]]] = {}

    def add(
        self,
        inspection: Inspection,
        label: int | None = None,
        kind: str = "",
        image: np.ndarray | None = None,
        mask: Mask | None = None,
    ) -> None:
        """Take in one result, as `Report.add` does."""
        key = self._keys[inspection.index]
        if self.masks and inspection.map is not None and (label != NG or mask is not None):
            self._maps[len(self.keys)] = (inspection.map.copy(), mask, inspection.size)
        self.keys.append(key)
        self._rows.append((int(label or 0), inspection.score, inspection.is_ng))
        if key in self._shown:
            source = self.samples[inspection.index].image
            pixels = thumbnail(self.inspector, source, inspection.size, SIDE)
            self.pictures[key] = {
                **drawn(pixels, inspection, self.inspector.calibration, mask, self.inspector.rules),
                "score": inspection.score, "p_value": inspection.p_value, "verdict": inspection.verdict,
                "label": "NG" if label == NG else "OK", "kind": kind,
                "name": "" if inspection.path is None else "/".join(Path(inspection.path).parts[-2:]),
            }  # fmt: skip

    def skip(self, path: Path | str, reason: str) -> None:
        """An image that could not be read is in no figure."""

    def arrays(self) -> dict[str, np.ndarray]:
        """One row per image, in the order of `keys`; pixel counts only where a mask says what they are of."""
        if not self._rows:
            raise OkngError("none of the test images could be read")
        labels, scores, called = (np.array(column) for column in zip(*self._rows, strict=True))
        found = {"labels": labels.astype(np.int8), "scores": scores, "called": called.astype(bool)}
        if not self._maps:
            return found
        edges = levels([scores for scores, _, _ in self._maps.values()])
        counts = [
            counted(np.zeros(size, bool) if mask is None else read_mask(mask), upsample(scores, size), edges)
            for scores, mask, size in self._maps.values()
        ]
        normal, defect, overlap = (np.stack(part).astype(np.float32) for part in zip(*counts, strict=True))
        return {**found, "masked": np.array(list(self._maps)), "normal": normal, "defect": defect, "overlap": overlap}


def planted(inspector: Inspector, samples: Sequence[Sample], tell: Narrator) -> dict[str, Any]:
    """What is found of defects planted into these OK images, as `Sensitivity.to_json` says it; or a "reason"."""
    try:
        return sensitivity(inspector, [sample.image for sample in samples], tell=tell).to_json()
    except OkngError as error:
        return {"reason": str(error)}
