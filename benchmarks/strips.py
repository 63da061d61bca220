"""Pictures of the methods' pages: a transistor with a defect, what each method makes of it, and the mask.

    python benchmarks/strips.py DATA [--only NAME …]

DATA holds mvtec_ad/transistor/. Each method that says where is fitted to the first 60 OK images, and shown the first
image of a damaged case: the same for all, and not chosen by how it comes out. One that learns in one pass has 160 px
and its defaults otherwise; one that trains has its arguments for a CPU, and holds a fifth out. Without --only it draws
those that learn in one pass: minutes on one core.

Writes docs/images/methods/NAME.webp, four pictures: the image; its map in colours from its own middle value to its
highest, which shows where the method looks, however little; the heatmap as reports have it, without colour where OK
images are as odd; the labelled mask. The images are MVTec AD's (CC BY-NC-SA 4.0), and so are these pictures.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import okng
from okng.datasets import open_dataset
from okng.datasets.masks import read_mask
from okng.detectors.cards import cards
from okng.detectors.catalogue import detector_class
from okng.inspection.overlay import heat_range, overlay

FOLDER = Path(__file__).parents[1] / "docs" / "images" / "methods"
LEARNT, SIZE, SIDE, GAP = 60, 160, 224, 6  # images, px of the input, of a panel and between two
LARGEST = 25_000  # bytes


def able() -> list[str]:
    """The methods that say where, and learn from OK images alone."""
    return [name for name, card in cards().items() if card.localizes and not detector_class(name).needs_ng]


def quick() -> list[str]:
    """Those of them that learn in one pass."""
    return [name for name in able() if detector_class(name).collects_only]


def given(name: str) -> dict[str, Any]:
    """What `okng.fit` is told besides."""
    return {"size": SIZE} if name in quick() else {**cards()[name].arguments["cpu-large"], "promise": "strict"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--only", nargs="+", default=quick(), choices=able())
    asked = parser.parse_args()
    data = open_dataset(asked.data / "mvtec_ad" / "transistor")
    odd = next(sample for sample in data.test if sample.kind == "damaged_case")
    assert isinstance(odd.image, Path) and odd.mask is not None
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in asked.only:
        inspector = okng.fit([sample.image for sample in data.train[:LEARNT]], name, device="cpu", **given(name))
        (seen,) = inspector.inspect(odd.image)
        image = Image.open(odd.image).convert("RGB")
        mask = Image.fromarray(read_mask(odd.mask).astype(np.uint8) * 255).convert("RGB")
        heat = seen.heatmap(image.size[::-1])  # (H, W)
        own = overlay(image, seen, float(np.median(heat)), float(heat.max()))
        panels = (image, own, overlay(image, seen, *heat_range(inspector.calibration)), mask)
        strip = Image.new("RGB", (len(panels) * SIDE + (len(panels) - 1) * GAP, SIDE), "white")
        for place, panel in enumerate(panels):
            strip.paste(panel.resize((SIDE, SIDE)), (place * (SIDE + GAP), 0))
        path = FOLDER / f"{name}.webp"
        strip.save(path, quality=70, method=6)
        size = path.stat().st_size
        print(f"{name}: {seen.verdict}, p {seen.p_value:.3f}, {size} bytes", flush=True)
        assert size <= LARGEST


if __name__ == "__main__":
    main()
