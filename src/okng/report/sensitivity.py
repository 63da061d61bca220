"""The page of what a model would find: a curve for each kind of planted defect, and examples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from okng.inspection.inspector import Inspector
from okng.inspection.model_file import write_atomically
from okng.planted.result import Sensitivity
from okng.report.charts import power
from okng.report.page import page
from okng.report.pictures import drawn, thumbnail
from okng.report.settings import settings


def write_sensitivity(path: Path, title: str, inspector: Inspector, result: Sensitivity, language: str = "en") -> Path:
    """Write the HTML file, all or nothing, and return `path`."""
    shown = found(inspector, result, language)
    html = page("sensitivity.html", title, inspector, language, settings=settings(inspector, {}, language), **shown)
    write_atomically(Path(path), html)
    return Path(path)


def found(inspector: Inspector, result: Sensitivity, language: str = "en") -> dict[str, Any]:
    """What the section on sensitivity shows, of this page and of the one of a training."""
    sizes = [point.size for point in result.overall.points]
    curves = [result.overall, *result.curves.values()]
    return {
        "sensitivity": result,
        "sizes": sizes,
        "plants": curves[1].points[0].plants,
        "curves": [(curve, power(curve, sizes[0], sizes[-1], language)) for curve in curves],
        "examples": [(kind, _examples(inspector, result, kind)) for kind in result.curves],
    }


def _examples(inspector: Inspector, result: Sensitivity, kind: str) -> list[dict[str, Any]]:
    """Plants of `kind` from sizes of which few, half and nearly all are found: the first of each, not chosen."""
    shown = []
    for point, recipe, inspection in result.examples(kind):
        planted = result.planted(recipe)
        pixels = thumbnail(inspector, planted.pixels, inspection.size)
        pictures = drawn(pixels, inspection, inspector.calibration, planted.mask, inspector.rules)
        shown.append({"point": point, "inspection": inspection, "pictures": pictures})
    return shown
