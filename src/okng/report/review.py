"""A small page of the oddest images that a fit was given as OK."""

from __future__ import annotations

import base64
import io
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from PIL import Image

from okng.inspection.images import UnreadableImage
from okng.inspection.inspector import Inspector
from okng.inspection.model_file import write_atomically
from okng.inspection.overlay import HEAT, heat_range, overlay
from okng.report.settings import asked, method, metric, number, share
from okng.training.review import Oddest, Review

WIDTH = 320  # pixels of a picture's longer side


def write_review(path: Path, title: str, inspector: Inspector, review: Review) -> Path:
    """Write the HTML file, all or nothing, and return `path`."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("okng.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters.update(number=number, share=share, asked=asked, metric=metric)
    content = {
        "title": title,
        "date": datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        "method": method(inspector),
        "calibration": inspector.calibration,
        "provenance": inspector.manifest["provenance"],
        "cross": review.method == "cross",
        "held_out": _cards(review.held_out, inspector, 0),
        "learnt": _cards(review.learnt, inspector, review.held_out.limit),
        "counts": (len(review.held_out.scores), len(review.learnt.scores)),
        "heat_colours": HEAT,
    }
    html = environment.get_template("review.html").render(**content)
    write_atomically(Path(path), html.encode("utf-8", "replace"))
    return Path(path)


def _cards(oddest: Oddest, inspector: Inspector, before: int) -> list[dict[str, Any]]:
    """What the `card` macro shows of each image."""
    if not oddest.scores:
        return []
    assert oddest.calibration is not None
    heat = None if oddest.calibration.peaks is None else heat_range(oddest.calibration)
    cards = []
    for rank, (inspection, source, name) in enumerate(oddest.ranked(), 1):
        scale = min(1.0, WIDTH / max(inspection.size))
        shape = (max(1, round(inspection.size[0] * scale)), max(1, round(inspection.size[1] * scale)))
        pictures: dict[str, Any] = {"original": None, "heatmap": None, "small": False, "reason": ""}
        try:
            pixels = replace(inspector.preprocess, mode="RGB", size=shape).load(source)[0]
        except UnreadableImage:
            pictures["reason"] = "the file could not be read again"
        else:
            image = Image.fromarray(pixels)
            if max(image.size) < WIDTH // 2:  # room for outlines
                factor = WIDTH // 2 // max(image.size)
                image = image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
            pictures["original"] = _data_uri(image)
            if heat is not None:
                pictures["heatmap"] = _data_uri(overlay(image, inspection, *heat))
        kept = {"number": before + rank, "inspection": inspection, "label": None, "kind": ""}
        cards.append({"rank": rank, "kept": kept, "name": name, "pictures": pictures})
    return cards


def _data_uri(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "jpeg", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
