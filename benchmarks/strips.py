"""Pictures of the methods' pages: a transistor with a defect, what each quick method makes of it, and the mask.

    python benchmarks/strips.py DATA [--only NAME …]

DATA holds mvtec_ad/transistor/. Each method that learns in one pass and says where is fitted to the first 60 OK
images at 160 px, with its defaults otherwise, and shown the first image of a damaged case: the same for all, and not
chosen by how it comes out. Writes docs/images/methods/NAME.webp: the image, its heatmap, the labelled mask.
Minutes on one core. The images are MVTec AD's (CC BY-NC-SA 4.0), and so are these pictures.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

import okng
from okng.datasets import open_dataset
from okng.datasets.masks import read_mask
from okng.detectors.cards import cards
from okng.detectors.catalogue import detector_class
from okng.inspection.overlay import heat_range, overlay

FOLDER = Path(__file__).parents[1] / "docs" / "images" / "methods"
LEARNT, SIZE, SIDE, GAP = 60, 160, 224, 6  # images, px of the input, px of a panel and between two
LARGEST = 25_000  # bytes


def quick() -> list[str]:
    """The methods that learn in one pass and say where."""
    kinds = {name: detector_class(name) for name, card in cards().items() if card.localizes}
    return [name for name, kind in kinds.items() if kind.collects_only and not kind.needs_ng]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--only", nargs="+", default=quick(), choices=quick())
    asked = parser.parse_args()
    data = open_dataset(asked.data / "mvtec_ad" / "transistor")
    odd = next(sample for sample in data.test if sample.kind == "damaged_case")
    assert isinstance(odd.image, Path) and odd.mask is not None
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in asked.only:
        inspector = okng.fit([sample.image for sample in data.train[:LEARNT]], name, size=SIZE, device="cpu")
        (seen,) = inspector.inspect(odd.image)
        image = Image.open(odd.image).convert("RGB")
        mask = Image.fromarray(read_mask(odd.mask).astype(np.uint8) * 255).convert("RGB")
        panels = (image, overlay(image, seen, *heat_range(inspector.calibration)), mask)
        strip = Image.new("RGB", (3 * SIDE + 2 * GAP, SIDE), "white")
        for place, panel in enumerate(panels):
            strip.paste(panel.resize((SIDE, SIDE)), (place * (SIDE + GAP), 0))
        path = FOLDER / f"{name}.webp"
        strip.save(path, quality=70, method=6)
        size = path.stat().st_size
        print(f"{name}: {seen.verdict}, p {seen.p_value:.3f}, {size} bytes", flush=True)
        assert size <= LARGEST


if __name__ == "__main__":
    main()
