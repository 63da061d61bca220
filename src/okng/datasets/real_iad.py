"""Real-IAD (Wang et al., CVPR 2024): thirty kinds of parts, each seen from five sides.

`realiad_1024/<part>/` (or another size) holds `OK/` and `NG/<kind>/`, an image's mask beside it; `<part>.json` says
what is for training and testing: "meta" with the "normal_class", "train" and "test" with "image_path", "mask_path" and
"anomaly_class" of each image. The files lie in `realiad_jsons/`, once more so inside it, or beside the images.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from okng.datasets.base import NG, OK, Dataset, Sample
from okng.errors import OkngError


def has_real_iad_layout(folder: Path) -> bool:
    """Whether `folder` is one kind of part of Real-IAD, with its JSON file."""
    return (folder / "OK").is_dir() and _json_of(folder) is not None


def open_real_iad(folder: Path) -> Dataset:
    """Trains on "train", tests on "test" of the JSON file, every view an image of its own.

    Raises `OkngError` for a file that is not Real-IAD's or names an image that is missing.
    """
    path = _json_of(folder)
    assert path is not None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        normal = content["meta"]["normal_class"]
        parts = {
            part: [_sample(folder, content["meta"].get("prefix", ""), one, normal) for one in content[part]]
            for part in ("train", "test")
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise OkngError(f"{path} can't be read as Real-IAD's ({error!r}); get the file again") from error
    train = tuple(sample for sample in parts["train"] if sample.label == OK)
    if not train:
        raise OkngError(f"{path} names no OK image for training; get the file again")
    said = f'The native split of {path.parent.name}/{path.name}: "train" for training, "test" for testing, by views.'
    ng = tuple(sample for sample in parts["train"] if sample.label == NG)
    if ng:
        said += f" Left out: {len(ng)} NG images in train."
    return Dataset(folder.resolve().name, "real-iad", said, train, tuple(parts["test"]), ng)


def _sample(folder: Path, prefix: str, one: dict[str, Any], normal: str) -> Sample:
    image, mask = (_file(folder, prefix, one.get(key)) for key in ("image_path", "mask_path"))
    if image is None:
        raise ValueError("an image without image_path")
    kind = str(one["anomaly_class"])
    return Sample(image, OK, kind) if kind == normal else Sample(image, NG, kind, mask)


def _file(folder: Path, prefix: str, name: str | None) -> Path | None:
    """The file called `name` inside the part's folder, or with the prefix beside it."""
    if not name:
        return None
    places = [folder / name, folder.resolve().parent / prefix / name, folder.resolve().parent / name]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise OkngError(f"{places[0]} is missing but named in the JSON file of {folder.name}; put it there")
    return found


def _json_of(folder: Path) -> Path | None:
    name, parent = f"{folder.resolve().name}.json", folder.resolve().parent
    for beside in (folder / name, parent / name):
        if beside.is_file() and '"normal_class"' in beside.read_text(encoding="utf-8", errors="replace"):
            return beside
    outer = [path for root in (parent, parent.parent) for path in sorted(root.glob("realiad_jsons*"))]
    places = [place for path in outer for place in (path / path.name / name, path / name)]
    return next((place for place in places if place.is_file()), None)
