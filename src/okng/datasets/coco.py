"""Small crops of the objects in COCO, with their background and without (images and labels: Lin et al., ECCV 2014).

Made from COCO's own files, `annotations/instances_<part>.json` and the images in `<part>/`, as the slides on
attention-guided OCGAN describe: ten classes, boxes of at least 50 px with sides of at most 1 to 2, brought to
32 × 32, 550 of each class, 500 to train and 50 to test. In the masked version all but the object is black. A file
that has none of these classes is another set in COCO's format: there all its classes count.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from okng.datasets.base import Sample
from okng.datasets.protocols import Classes
from okng.errors import OkngError, in_one_line
from okng.inspection.reading.files import natural_order
from okng.inspection.reading.images import open_image

CLASSES = ("airplane", "car", "bird", "cat", "sports ball", "dog", "bowl", "horse", "boat", "truck")
VERSIONS = ("original", "masked")
SIDE = 32
SMALLEST = 50  # pixels, of either side of a box
ASPECT = 2.0  # of the longer side to the shorter, at most
TRAIN, TEST = 500, 50  # of each class


def has_coco_files(folder: Path) -> bool:
    """Whether `folder` holds COCO's instances."""
    return any((folder / "annotations").glob("instances_*.json"))


def read_coco(folder: Path, version: str, seed: int) -> Classes:
    """The crops as uint8 (32, 32, 3), drawn by `seed`; `version` is "original" or "masked".

    Both versions hold the same objects in the same order. Groups of objects (`iscrowd`, run-length masks) are left
    out, and so are those without an outline or whose image the file does not list. A class with fewer than 550 such
    objects gives one in eleven of them to the test part. Raises `OkngError` for damaged files, and where no object is
    left.
    """
    instances, images = _instances(folder)
    chosen = _choose(instances, seed)
    if not chosen:
        raise OkngError(
            f"{folder} has no object to crop; give single ones, outlined by polygons, with sides of {SMALLEST} px or "
            f"more and at most 1 to {ASPECT:g}"
        )
    files = {image["id"]: images / image["file_name"] for image in instances["images"]}
    wanted: dict[int, list[dict[str, Any]]] = {}
    for objects in chosen.values():
        for one in objects:
            wanted.setdefault(one["image_id"], []).append(one)
    crops: dict[int, np.ndarray] = {}
    for number, objects in wanted.items():  # each image is decoded once
        picture = open_image(files[number]).convert("RGB")
        for one in objects:
            crops[one["id"]] = _crop(picture, one, version)
    train, test = [], []
    for name, objects in chosen.items():
        held = TEST if len(objects) == TRAIN + TEST else len(objects) // 11
        samples = [Sample(crops[one["id"]], kind=name) for one in objects]
        train += samples[held:]
        test += samples[:held]
    counts = ", ".join(f"{name} {len(objects)}" for name, objects in chosen.items())
    about = f"Crops of {folder.resolve().name}'s {images.name}, {version} version, drawn by seed {seed}: {counts}."
    return Classes(folder, "coco", tuple(train), tuple(test), about)


def _instances(folder: Path) -> tuple[dict[str, Any], Path]:
    """The instances of the first part whose images are there too, `train…` before `val…`, and the images' folder."""
    found = sorted((folder / "annotations").glob("instances_*.json"), key=lambda path: natural_order(path.name))
    for path in found:
        images = folder / path.stem.removeprefix("instances_")
        if images.is_dir():
            try:
                return json.loads(path.read_text(encoding="utf-8")), images
            except (OSError, ValueError) as error:
                raise OkngError(f"{path} cannot be read ({in_one_line(error)}); get the file again") from error
    parts = " or ".join(f"{path.stem.removeprefix('instances_')}/" for path in found)
    raise OkngError(f"{folder} has annotations but no images; put {parts} beside annotations/")


def _choose(instances: dict[str, Any], seed: int) -> dict[str, list[dict[str, Any]]]:
    """Up to 550 fitting objects of each class, drawn by `seed`, in the order drawn."""
    try:
        names = {category["id"]: category["name"] for category in instances["categories"]}
        known = {image["id"]: image["file_name"] for image in instances["images"]}
        classes = CLASSES if set(CLASSES) & set(names.values()) else names.values()
        fitting: dict[str, list[dict[str, Any]]] = {name: [] for name in classes}
        for one in sorted(instances["annotations"], key=lambda one: one["id"]):
            if names[one["category_id"]] in fitting and one["image_id"] in known and _fits(one):
                fitting[names[one["category_id"]]].append(one)
    except (KeyError, TypeError, ValueError) as error:
        raise OkngError(f"the instances file is not COCO's ({error!r}); get the file again") from error
    chosen = {}
    for name, objects in fitting.items():
        order = np.random.default_rng(seed).permutation(len(objects))[: TRAIN + TEST]
        chosen[name] = [objects[i] for i in order]
    return {name: objects for name, objects in chosen.items() if objects}


def _fits(one: dict[str, Any]) -> bool:
    """Whether an object is single, outlined by polygons, large enough and not too long."""
    _, _, width, height = one["bbox"]
    polygons = one["segmentation"]
    if one["iscrowd"] or not isinstance(polygons, list) or not polygons:
        return False
    if any(len(polygon) < 6 or len(polygon) % 2 for polygon in polygons):
        return False
    return bool(min(width, height) >= SMALLEST and max(width, height) <= ASPECT * min(width, height))


def _crop(picture: Image.Image, one: dict[str, Any], version: str) -> np.ndarray:
    """The object's box at 32 × 32 (32, 32, 3), uint8; masked before it is made smaller."""
    left, top, width, height = one["bbox"]
    box = (round(left), round(top), round(left + width), round(top + height))
    crop = picture.crop(box)
    if version == "masked":
        inside = Image.new("L", crop.size)
        for polygon in one["segmentation"]:  # x, y, x, y, … in pixels of the whole image
            points = [(x - box[0], y - box[1]) for x, y in zip(polygon[::2], polygon[1::2], strict=True)]
            ImageDraw.Draw(inside).polygon(points, fill=255)
        crop = Image.composite(crop, Image.new("RGB", crop.size), inside)
    return np.asarray(crop.resize((SIDE, SIDE), Image.Resampling.BILINEAR))
