"""`Inspection`: what okng says of one image, shared by command line, Python, report and server."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from PIL import Image

from okng.errors import OkngError
from okng.inspection.verdict.calibration import Calibration
from okng.inspection.verdict.likeness import Traits
from okng.inspection.verdict.regions import Region, find_regions
from okng.inspection.verdict.rules import Rules

NO_RULES = Rules()


@dataclass(frozen=True)
class Inspection:
    """What okng says of one image.

    `index` is its place among the images given, `path` the file, or None for pixels given directly. `score`
    is raw, higher = odder. `p_value` is the conformal p-value and `verdict` "OK" or "NG" (see `Calibration`).
    `map` (h, w) is on the detector's own grid, None for detectors that do not localise. `regions` and `size`
    (height, width) are in pixels of the original image. `timing` is in milliseconds: "decode" and "score". `reasons`
    say why an image is NG, or why one with such a score is OK all the same; `traits` what the original is like.
    `product`: by whose threshold it was judged, None where the model is of one product.
    """

    index: int
    path: str | None
    score: float
    p_value: float
    verdict: str
    size: tuple[int, int]
    map: np.ndarray | None = field(repr=False)
    regions: tuple[Region, ...]
    timing: dict[str, float]
    reasons: tuple[str, ...] = ()
    traits: Traits | None = field(default=None, repr=False)
    product: str | None = None

    def __repr__(self) -> str:
        where = f"image {self.index}" if self.path is None else self.path
        regions = "no map" if self.map is None else f"{len(self.regions)} region{'s'[: len(self.regions) != 1]}"
        figures = f"score {self.score:.4g}, p {self.p_value:.4f}, {regions}"
        of = "" if self.product is None else f" as {self.product}"
        return f"<Inspection: {self.verdict}{of}, {figures}, {where} ({self.size[0]}x{self.size[1]})>"

    @property
    def is_ng(self) -> bool:
        """Whether the verdict is NG."""
        return self.verdict == "NG"

    def heatmap(self, size: tuple[int, int] | None = None) -> np.ndarray:
        """The map brought bilinearly to `size` (height, width), by default the original image's.

        Raw scores, float32. Raises `OkngError` when the detector gives no map.
        """
        if self.map is None:
            raise OkngError("this detector gives no map; `okng list` shows which ones localise")
        return upsample(self.map, size or self.size)

    def to_dict(self) -> dict[str, Any]:
        """The result without the map, as JSON values; "product" is among them where there are several."""
        of = {} if self.product is None else {"product": self.product}
        return {
            "path": self.path,
            "score": self.score,
            "p_value": self.p_value,
            "verdict": self.verdict,
            "reasons": list(self.reasons),
            "height": self.size[0],
            "width": self.size[1],
            "regions": [asdict(region) for region in self.regions],
            "timing_ms": self.timing,
            **of,
        }


def judged(seen: Inspection, calibration: Calibration, rules: Rules = NO_RULES) -> Inspection:
    """An inspection with the p-value, the verdict and the regions of a calibration, and of `rules`."""
    regions: list[Region] = []
    if seen.map is not None and calibration.pixel_threshold is not None:
        regions = find_regions(seen.map, calibration.pixel_threshold, seen.size)
    verdict, told, why = rules.judge(seen.score, regions, seen.size, calibration)
    p_value = calibration.p_value(seen.score)
    return replace(seen, p_value=p_value, verdict=verdict, regions=told, reasons=why)


def p_words(p_value: float, smallest: float) -> str:
    """A p-value in words: "p 0.14", or "p <= 0.023" at the `smallest` one, below which nothing can be told."""
    return f"p {'<= ' if p_value <= smallest else ''}{p_value:.2g}"


def upsample(scores: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bring a map (h, w) bilinearly to `size` (height, width); pixel centres correspond, float32."""
    height, width = size
    image = Image.fromarray(scores.astype(np.float32))
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))
