"""Draw docs/images/solar-cells.jpg: one OK cell and NG cells at fixed ranks of the score, not the prettiest ones.

okng demo && python benchmarks/readme_picture.py okng-demo/mono.okng
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

import okng
from okng.datasets import NG, open_dataset
from okng.inspection.overlay import heat_range, overlay

SIDE, GAP, TEXT = 230, 8, 26
TARGET = Path(__file__).parents[1] / "docs" / "images" / "solar-cells.jpg"


def main(model: str) -> None:
    """Inspect the test cells and lay five of them side by side, originals above, results below."""
    inspector = okng.load(model)
    test = open_dataset("elpv/mono").test
    found = list(inspector.inspect([sample.image for sample in test]))
    ng = sorted((i for i in found if test[i.index].label == NG), key=lambda i: i.score)
    ok = sorted((i for i in found if test[i.index].label != NG), key=lambda i: i.score)
    chosen = [ok[len(ok) // 2], *(ng[round(q * (len(ng) - 1))] for q in (0.3, 0.5, 0.7, 0.9))]
    sheet = Image.new("RGB", (len(chosen) * (SIDE + GAP) - GAP, 2 * SIDE + GAP + TEXT), "white")
    font = ImageFont.load_default(15)
    for column, inspection in enumerate(chosen):
        assert inspection.path is not None
        cell = Image.open(inspection.path).convert("RGB").resize((SIDE, SIDE))
        x = column * (SIDE + GAP)
        sheet.paste(cell, (x, 0))
        sheet.paste(overlay(cell, inspection, *heat_range(inspector.calibration)), (x, SIDE + GAP))
        words = f"{inspection.verdict}   score {inspection.score:.1f}   p {inspection.p_value:.3f}"
        ImageDraw.Draw(sheet).text((x + 4, 2 * SIDE + GAP + 5), words, fill="black", font=font)
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(TARGET, quality=85)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
