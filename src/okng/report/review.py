"""The page of a training: the oddest images that a fit was given as OK, and what the model would find."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from okng.inspection.inspector import Inspector
from okng.inspection.model_file import write_atomically
from okng.inspection.reading.images import UnreadableImage
from okng.report.language import Translate, translator
from okng.report.page import page
from okng.report.pictures import drawn, thumbnail
from okng.report.sensitivity import found
from okng.training.review import Oddest, Review


def write_review(path: Path, title: str, inspector: Inspector, review: Review, language: str = "en") -> Path:
    """Write the HTML file, all or nothing, and return `path`."""
    t = translator(language)
    html = page(
        "review.html",
        title,
        inspector,
        language,
        provenance=inspector.manifest["provenance"],
        cross=review.method != "split",
        held_out=_cards(review.held_out, inspector, 0, t),
        learnt=_cards(review.learnt, inspector, review.held_out.limit, t),
        counts=(len(review.held_out.scores), len(review.learnt.scores)),
        unplanted=review.unplanted,
        **(found(inspector, review.sensitivity, language) if review.sensitivity else {"sensitivity": None}),
    )
    write_atomically(Path(path), html)
    return Path(path)


def _cards(oddest: Oddest, inspector: Inspector, before: int, t: Translate) -> list[dict[str, Any]]:
    """What the `card` macro shows of each image."""
    if not oddest.scores:
        return []
    assert oddest.calibration is not None
    cards = []
    for rank, (inspection, source, name) in enumerate(oddest.ranked(), 1):
        try:
            pictures = drawn(
                thumbnail(inspector, source, inspection.size), inspection, oddest.calibration, rules=inspector.rules
            )
        except UnreadableImage:
            reason = t("card.not_read")
            pictures = {"original": None, "heatmap": None, "small": False, "reason": reason, "mask": False}
        kept = {"number": before + rank, "inspection": inspection, "label": None, "kind": ""}
        cards.append({"rank": rank, "kept": kept, "name": name, "pictures": pictures})
    return cards
