"""Draw parts to try okng with: metal washers, OK ones and ones with a planted defect.

    python benchmarks/draw_parts.py [--side 256] [--ok 80] [--into .]

Makes parts/ok and parts/ng in the folder, and new/ with twelve unseen ones, of which four have a defect. Everything is
drawn, so the pictures are anybody's to use. The pages of the site are written with these images.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from okng.planted.defects import plant

KINDS = ("scratch", "spot", "stain", "dent", "missing")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--ok", type=int, default=80)
    parser.add_argument("--into", type=Path, default=Path())
    asked = parser.parse_args()
    draw_parts(asked.into, asked.side, asked.ok)


def draw_parts(folder: Path, side: int, ok: int) -> None:
    """`ok` OK parts, ten NG ones, and twelve new ones, of which number 3, 6, 9 and 12 are NG."""
    for name, count, every in (("parts/ok", ok, 0), ("parts/ng", 10, 1), ("new", 12, 3)):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(1, count + 1):
            seed = {"parts/ok": 0, "parts/ng": 10_000, "new": 20_000}[name] + number
            image = washer(side, seed)
            if every and number % every == 0:
                image = spoilt(image, KINDS[number // every % len(KINDS)], seed)
            Image.fromarray(image).save(folder / name / f"{number:03d}.png")


def washer(side: int, seed: int) -> np.ndarray:
    """A brushed ring with six holes on a dark belt, uint8 (side, side, 3), drawn twice as large and brought down."""
    rng, large = np.random.default_rng(seed), 2 * side
    y, x = np.mgrid[:large, :large] / large - 0.5
    y, x = y - rng.normal(0, 0.01), x - rng.normal(0, 0.01)
    radius, angle = np.hypot(y, x), np.arctan2(y, x) + rng.uniform(0, 2 * np.pi)
    turn = angle % (np.pi / 3) - np.pi / 6  # from the nearest of the six holes
    hole = np.hypot(radius * np.cos(turn) - 0.27, radius * np.sin(turn)) < 0.035
    metal = (radius < 0.4) & (radius > 0.14) & ~hole
    noise = Image.fromarray(rng.normal(128, 60, (large, large)).clip(0, 255).astype(np.uint8))
    grain = np.asarray(noise.filter(ImageFilter.BoxBlur(2)))
    rings = np.cos(radius * large * 0.9 + rng.uniform(0, 6)) * 5
    light = 150 + 45 * (x + y) + rings + (grain - 128.0) * 0.5 - 90 * np.maximum(radius - 0.37, 0) / 0.03
    belt = 42 + (grain - 128.0) * 0.25
    grey = np.where(metal, light, belt) * rng.normal(1, 0.02)
    colour = np.stack([grey, grey * 1.01, grey * 1.05], -1).clip(0, 255).astype(np.uint8)
    return np.asarray(Image.fromarray(colour).resize((side, side), Image.Resampling.BOX))


def spoilt(image: np.ndarray, kind: str, seed: int) -> np.ndarray:
    """`image` with a defect on its metal, a tenth to a fifth of its side long."""
    side = len(image)
    for attempt in range(100):
        size = side * (0.1 + 0.1 * ((seed + attempt) % 10) / 10)
        planted = plant(image, kind, size, 1000 * seed + attempt)
        radius = np.hypot(*(np.argwhere(planted.mask).mean(0) - side / 2)) / side
        if 0.2 < radius < 0.35:
            return planted.pixels
    raise SystemExit(f"no place for a {kind}")


if __name__ == "__main__":
    main()
