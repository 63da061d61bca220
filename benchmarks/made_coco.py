"""Are masked images learnt faster? The slides' question about COCO, asked of a set in COCO's format that is made here.

    python benchmarks/made_coco.py DATA [--seeds 0 1 2 …]

DATA holds coil20/ and cifar10/. Made are scenes of 160 px: one of the objects of COIL-20, in one of its views and of
a random size, place and angle, on a photograph of CIFAR-10's training part turned to grey. The outlines are those of
the objects on their black ground. `coco_masks` then does what the slides describe, with a network of a quarter of the
width, fewer epochs and fewer images: 110 upright scenes of each object were learnt in two epochs by both versions,
which tells nothing. That there are 55, at any angle, was chosen by another seed's original version alone. This is not
COCO: no object is occluded, and the ground tells nothing of what is on it; views of the test part were also learnt, at
other angles and on other grounds. Rows go to results/made_coco.csv, in place of those of the same seeds.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from measure import FIELDS, RESULTS, row
from PIL import Image

from okng.benchmark.classifier import coco_masks
from okng.benchmark.rows import read_rows, write_rows
from okng.training.progress import Narrator

PATH = RESULTS / "made_coco.csv"
OF_EACH = 55  # scenes of an object; an eleventh of them is held out
SCENE = 160
DARK = 12  # of 255; darker is the ground of a view
SIZES = (60, 130)  # px, of the longer side of an object
ARGUMENTS = {"width": 16, "epochs": 30}
COIL = "COIL-20's objects on CIFAR-10's images"


def make(data: Path, folder: Path, seed: int) -> None:
    """Scenes in `folder`/train and their outlines in `folder`/annotations."""
    rng = np.random.default_rng(seed)
    grounds = sorted((data / "cifar10" / "train").rglob("*.jpg"))
    things = sorted(path for path in (data / "coil20").iterdir() if path.is_dir())
    (folder / "train").mkdir(parents=True)
    (folder / "annotations").mkdir()
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for category, thing in enumerate(things):
        views = sorted(thing.glob("*.png"))
        for _ in range(OF_EACH):
            number = len(images)
            ground = Image.open(grounds[rng.integers(len(grounds))]).convert("L").resize((SCENE, SCENE))
            view = Image.open(views[rng.integers(len(views))]).convert("L")
            outline, box = place(ground, view, rng)
            ground.save(folder / "train" / f"{number:05}.png")
            images.append({"id": number, "file_name": f"{number:05}.png"})
            annotations.append(
                {"id": number, "image_id": number, "category_id": category, "iscrowd": 0, "bbox": box,
                 "segmentation": [outline]}
            )  # fmt: skip
    categories = [{"id": number, "name": thing.name} for number, thing in enumerate(things)]
    made = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "annotations" / "instances_train.json").write_text(json.dumps(made), encoding="utf-8")


def place(ground: Image.Image, view: Image.Image, rng: np.random.Generator) -> tuple[list[float], list[float]]:
    """Draw the object of a view, black around it, onto the ground; its outline and box there, in pixels."""
    view = view.rotate(float(rng.uniform(0, 360)), Image.Resampling.BICUBIC, expand=True)
    left, top, right, bottom = view.point(lambda value: 255 * (value > DARK)).getbbox() or (0, 0, *view.size)
    view = view.crop((left, top, right, bottom))
    scale = rng.integers(*SIZES) / max(view.size)
    view = view.resize((max(2, round(view.width * scale)), max(2, round(view.height * scale))))
    lit = (np.asarray(view) > DARK).astype(np.uint8)  # (h, w)
    contours, _ = cv2.findContours(lit, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    contour = max(contours, key=cv2.contourArea)[:, 0]  # (P, 2), x and y
    inside = cv2.fillPoly(np.zeros_like(lit), [contour], 255)
    corner = rng.integers(0, np.array([SCENE - view.width, SCENE - view.height]) + 1)
    ground.paste(view, tuple(corner.tolist()), Image.fromarray(inside))
    points = contour + corner
    low, high = points.min(0), points.max(0) + 1
    return points.reshape(-1).astype(float).tolist(), [
        *low.astype(float).tolist(),
        *(high - low).astype(float).tolist(),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(10)))
    args = parser.parse_args()
    rows = []
    for seed in args.seeds:
        with tempfile.TemporaryDirectory() as scratch, Narrator() as tell:
            make(args.data, Path(scratch) / "made", seed)
            for version in ("original", "masked"):
                begun = time.monotonic()
                figures = coco_masks(Path(scratch) / "made", version, seed, **ARGUMENTS, tell=tell)
                rows += [
                    row(
                        f"made coco {version}", "vgg11_classifier", COIL, "supervised, all classes", metric, value,
                        arguments=str(ARGUMENTS), seed=seed, seconds=f"{time.monotonic() - begun:.1f}", code="",
                        command=f"python benchmarks/made_coco.py DATA --seeds {seed}",
                    )
                    for metric, value in figures.items()
                ]  # fmt: skip
                print(version, seed, figures, flush=True)
    others = [each for each in read_rows(PATH) if int(each["seed"]) not in args.seeds]
    write_rows(PATH, FIELDS, sorted([*others, *rows], key=lambda each: int(each["seed"])))


if __name__ == "__main__":
    main()
