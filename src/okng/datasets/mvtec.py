"""MVTec AD (Bergmann et al., CVPR 2019) and the sets that lie as it does: `train/good`, `test/<kind>`, masks.

- MVTec AD, MPDD (Jezek et al., ICUMT 2021), VisA in MVTec's form: masks in `ground_truth/<kind>/<stem>_mask.*` or
  `<stem>.*`; BTAD (Mishra et al., ISIE 2021): `ok` and `ko` for good and bad.
- MVTec LOCO (Bergmann et al., IJCV 130, 2022): several masks of one image, `ground_truth/<kind>/<stem>/000.png`.
- MVTec AD 2 (Heckler-Kram et al., 2025): `test_public/{good,bad,ground_truth/bad}` beside test parts without labels.
- MVTec 3D-AD (Bergmann et al., VISAPP 2022): `rgb/`, `xyz/` and `gt/` inside each kind.
- BMAD (Bao et al., CVPR Workshops 2024): `img/` and `label/` inside the kinds `good` and `Ungood` of `test/`.
"""

from __future__ import annotations

import unicodedata
from pathlib import Path

from okng.datasets.base import NG, OK, Dataset, Sample
from okng.datasets.class_folders import images_by_class
from okng.datasets.folder import no_images
from okng.datasets.masks import is_mask_folder, match_masks, one_or_several
from okng.datasets.names import FILLER, says_good, says_masks, says_test, words
from okng.datasets.ok_images import ok_images, part_images
from okng.errors import OkngError
from okng.inspection.reading.files import find_images, subfolders

TESTS = ("test", "test_public")
ABOUT = {
    "mvtec-loco": "Masks of one image are united; the saturation in defects_config.json, of sPRO, is not used.",
    "mvtec-3d": "The colour images in rgb/ alone.",
    "mvtec-ad-2": "The private test parts have no labels.",
}


def has_mvtec_layout(folder: Path) -> bool:
    """Whether `folder/train` holds one folder, of good images, and there is a test part."""
    if not (folder / "train").is_dir() or not any((folder / test).is_dir() for test in TESTS):
        return False
    inside = subfolders(folder / "train")
    kinds = [
        path.name for path in inside if not says_masks(path.name) or not is_mask_folder(path.name, find_images(path))
    ]
    return len(kinds) == 1 and says_good(kinds[0])


def open_mvtec(folder: Path, normal: str | None = None) -> Dataset:
    """One category: trains on `train/good`, tests on `test/`, where every kind but good, ok or normal is NG.

    Masks lie in `ground_truth/<kind>` or inside the kind, see `masks.match_masks`; an NG sample may lack them. The
    layout itself says what is OK, so `normal` is left out or names the good folder. Raises `OkngError` for any other
    `normal`, for a `train/good` without images, and for masks of which not one has its image.
    """
    train, test_folder = images_by_class(folder / "train"), _test_folder(folder)
    if not train:
        raise no_images(folder / "train")
    (good,) = train
    if normal not in (None, good):
        raise OkngError(f"{folder} has train/{good} as its OK images (MVTec AD); leave normal={normal!r} out")
    images, left_out = ok_images(folder / "train" / good)
    kinds = images_by_class(test_folder)
    masks, orphans = _masks(folder, test_folder, kinds)
    test = [
        Sample(image, OK, kind) if says_good(kind) else Sample(image, NG, kind, one_or_several(masks.get(image, ())))
        for kind, found in kinds.items()
        for image in found
    ]
    layout = _layout(folder, good, kinds)
    said = [f"The native split: train/{good} for training, {test_folder.name}/ for testing, where all but good is NG."]
    said += [ABOUT[layout]] if layout in ABOUT else []
    said += [f"In train/{good}: {left_out}"] if left_out and layout != "mvtec-3d" else []
    said += [f"{orphans} mask{'s match' if orphans > 1 else ' matches'} no image."] if orphans else []
    others = [path for path in subfolders(folder) if says_test(path.name) and path != test_folder]
    counts = {path.name: len(part_images(path)[0]) for path in others}
    unused = [f"{n} image{'s' * (n > 1)} in {name}/" for name, n in counts.items() if n]
    said += [f"Left out: {', '.join(unused)}."] if unused else []
    samples = tuple(Sample(image, OK, good) for image in images)
    return Dataset(folder.resolve().name, layout, " ".join(said), samples, tuple(test))


def _test_folder(folder: Path) -> Path:
    return next(folder / test for test in TESTS if (folder / test).is_dir())


def _layout(folder: Path, good: str, kinds: dict[str, list[Path]]) -> str:
    names = {kind.lower() for kind in kinds}
    if _test_folder(folder).name == "test_public":
        return "mvtec-ad-2"
    if (folder / "train" / good / "rgb").is_dir():
        return "mvtec-3d"
    if (folder / "defects_config.json").is_file() or names & {"logical_anomalies", "structural_anomalies"}:
        return "mvtec-loco"
    return "bmad" if "ungood" in names else "mvtec"


def _masks(folder: Path, test_folder: Path, kinds: dict[str, list[Path]]) -> tuple[dict[Path, tuple[Path, ...]], int]:
    """The masks of each NG image, and how many masks have none."""
    truths = [path for place in (folder, test_folder) for path in subfolders(place) if says_masks(path.name)]
    bad = [kind for kind in kinds if not says_good(kind)]
    found: dict[Path, tuple[Path, ...]] = {}
    everything: list[Path] = []
    for truth in truths:
        everything += [mask for mask in find_images(truth) if not says_good(mask.relative_to(truth).parts[0])]
    for kind in bad:
        inside = test_folder / kind
        _, beside, masks = part_images(inside)
        named = [(_inner(mask, inside), mask) for mask in (*beside, *masks)]
        everything += [mask for _, mask in named]
        for truth in truths:
            own = [path for path in subfolders(truth) if _same(path.name, kind)]
            for place in own or ([truth] if len(bad) == 1 else []):
                named += [(_inner(mask, place), mask) for mask in find_images(place)]
        found |= match_masks([(_inner(image, inside), image) for image in kinds[kind]], named)
    used = {mask for masks in found.values() for mask in masks}
    orphans = [mask for mask in everything if mask not in used]
    if orphans and not found:
        n = f"{len(orphans)} files" if len(orphans) > 1 else "1 file"
        raise OkngError(f"{n} in {orphans[0].parent} match no image; call them NAME_mask.png after their images")
    return found, len(orphans)


def _inner(path: Path, folder: Path) -> str:
    """The path inside `folder`, without parts that only say what kind of image it is: img/, rgb/, label/, gt/."""
    *parts, name = path.relative_to(folder).parts
    return "/".join([*(part for part in parts if not _says_channel(part)), name])


def _says_channel(name: str) -> bool:
    return says_masks(name) or (bool(words(name)) and words(name) <= FILLER | {"rgb"})


def _same(one: str, other: str) -> bool:
    return unicodedata.normalize("NFC", one).casefold() == unicodedata.normalize("NFC", other).casefold()
