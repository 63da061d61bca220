"""What of a folder is learnt as OK: never silently what looks like NG, like a mask or like a test.

One rule for the command line and for Python. What is surely something else is left out and counted; where that is not
sure, the folder is refused with what to give instead. A list of files is a decision and is taken as given.
"""

from __future__ import annotations

import json
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path

from okng.datasets.masks import is_marked, is_mask_folder, masks_beside
from okng.datasets.names import DEPTH, GOOD, says_good, says_ng, says_only_ng, says_test, words
from okng.errors import OkngError, OkngWarning
from okng.inspection.reading.files import find_images

WAYS_OUT = "give a plain folder of OK images, or lay all out as MVTec AD: train/good, test/KIND, ground_truth/KIND"


def ok_images(folder: Path, strict: bool = False) -> tuple[list[Path], str]:
    """The images in `folder` and below to learn as OK, and a sentence or two of what else is there, counted.

    Left out are folders that are called after defects, masks or tests, at every depth, masks beside their images,
    images whose mask marks something, and files called NG among others that are not. Raises `OkngError` where masks
    elsewhere in the folder mark defects in nobody knows which images, where other folders lie beside one called good,
    where nothing is left, for a folder of masks, and, if `strict`, for a folder below that can't be read.
    """
    own = folder.resolve().name
    images, masks, left_out = _sort(folder, lambda name: says_ng(name) or says_test(name), strict)
    if is_mask_folder(own, [*masks, *images]):
        raise OkngError(f"{folder} holds masks, not images of parts; {WAYS_OUT}")
    beside = masks_beside(images)
    marked = sorted({image for mask, image in beside.items() if image is not None and is_marked(mask)})
    others = {*beside, *marked}
    images = [image for image in images if image not in others]
    named = [image for image in images if says_ng(image.stem)]
    if len(named) < len(images):  # a word that all have tells nothing apart
        images = [image for image in images if image not in set(named)]
        left_out += _counted(named, "image", "called NG")
        named = []
    left_out += _counted(list(beside), "mask", "beside images")
    left_out += _counted(marked, "image", "whose mask marks something")
    if not images and left_out:
        raise OkngError(f"{folder} has no image that is surely OK: it has {', '.join(left_out)}; {WAYS_OUT}")
    _refuse_doubt(folder, images, masks)
    said = [f"Left out: {', '.join(left_out)}."] if left_out else []
    doubtful = [f"a folder called {own}"] if says_only_ng(own) else []
    called_ok = {image for image in images if words(image.stem) & GOOD}
    if called_ok and not named:
        rest = [image for image in images if image not in called_ok]
        doubtful += _counted(rest, "image", "not called OK as others are")
    doubtful += _counted(named, "image", "called NG") + _counted(_outlined(images), "image", "with labelme's outlines")
    said += [f"Learnt as OK all the same: {', '.join(doubtful)}."] if doubtful else []
    return images, " ".join(said)


def part_images(folder: Path) -> tuple[list[Path], dict[Path, Path | None], list[Path]]:
    """The images of parts in `folder` and below, OK or not; the masks beside them, each with its image; other masks.

    The other masks lie in folders that are called so: `gt/`, `label/`.
    """
    images, masks, _ = _sort(folder, lambda name: False)
    beside = masks_beside(images)
    return [image for image in images if image not in beside], beside, masks


def lister(strict: bool = False) -> Callable[[Path], list[Path]]:
    """`ok_images` of any folder, with an `OkngWarning` of what is left out: how `okng.fit` and `okng.update` list."""

    def listed(folder: Path) -> list[Path]:
        images, said = ok_images(folder, strict)
        if said:
            warnings.warn(f"{folder}: {said}", OkngWarning, stacklevel=2)
        return images

    return listed


def _sort(
    folder: Path, is_other: Callable[[str], bool], strict: bool = False
) -> tuple[list[Path], list[Path], list[str]]:
    """Images, masks by their folders, and all that is left out, counted; `is_other` is asked of folders' names."""
    places = _by_folder(find_images(folder, strict))
    below: dict[Path, list[Path]] = defaultdict(list)  # all images of every folder
    for place, inside in places.items():
        for path in _way(folder, place):
            below[path] += inside
    colour = {path.parent for path in below if words(path.name) == {"rgb"}}
    verdicts = {}
    for path, inside in below.items():
        if is_mask_folder(path.name, inside):
            verdicts[path] = "mask"
        elif (path.parent in colour and words(path.name) & DEPTH) or is_other(path.name):
            verdicts[path] = "image"
    kept, masks, counts = [], [], Counter[Path]()
    for place, inside in places.items():
        first = next((path for path in _way(folder, place) if path in verdicts), None)
        if first is None:
            kept += inside
            continue
        counts[first] += len(inside)
        if verdicts[first] == "mask":
            masks += inside
    said = [
        f"{n} {verdicts[path]}{'s' * (n > 1)} in {path.relative_to(folder).as_posix()}/" for path, n in counts.items()
    ]
    return kept, masks, said


def _by_folder(images: list[Path]) -> dict[Path, list[Path]]:
    found: dict[Path, list[Path]] = defaultdict(list)
    for image in images:
        found[image.parent].append(image)
    return found


def _way(folder: Path, place: Path) -> list[Path]:
    """The folders from below `folder` down to `place`."""
    depth = len(place.parts) - len(folder.parts)
    return [place, *place.parents][:depth][::-1]


def _refuse_doubt(folder: Path, images: list[Path], masks: list[Path]) -> None:
    """Where it isn't sure which images are OK."""
    ways = [_way(folder, place) for place in _by_folder(images)]
    unsure = any(not any(says_good(path.name) for path in way) for way in ways)
    if unsure and (mask := next((mask for mask in masks if is_marked(mask)), None)) is not None:
        example = mask.relative_to(folder).as_posix()
        raise OkngError(f"{folder} has masks such as {example}, so not all its images are OK; {WAYS_OUT}")
    children: dict[Path, set[str]] = defaultdict(set)
    for way in ways:
        for path in way:
            children[path.parent].add(path.name)
    for parent, names in children.items():
        good = sorted(name for name in names if says_good(name))
        if good and any(not words(name) & GOOD for name in names):
            raise OkngError(
                f"{parent} has other folders beside {good[0]}/; give {parent / good[0]} to learn from it alone, "
                f"or normal={good[0]!r} to test on the others"
            )


def _outlined(images: list[Path]) -> list[Path]:
    """The images beside which labelme's file outlines something; nobody knows whether that is a defect."""
    found = []
    for place, inside in _by_folder(images).items():
        known = {path.stem for path in place.glob("*.json")}
        found += [image for image in inside if image.stem in known and _has_shapes(image.with_suffix(".json"))]
    return found


def _has_shapes(path: Path) -> bool:
    try:
        return bool(json.loads(path.read_text(encoding="utf-8"))["shapes"])
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _counted(paths: list[Path], what: str, which: str) -> list[str]:
    """One entry that says how many, with an example; none where there are none."""
    n = len(paths)
    return [f"{n} {what}{'s' * (n > 1)} {which} ({paths[0].name})"] if n else []
