"""Sets in which every image has its mask beside it: KolektorSDD, KolektorSDD2 and the magnetic tiles.

- KolektorSDD (Tabernik et al., J. Intelligent Manufacturing 31, 2020): `kos01/Part0.jpg` and `Part0_label.bmp`, eight
  parts of each of 50 commutators. No split that fits learning from OK images alone.
- KolektorSDD2 (Božič et al., Computers in Industry 129, 2021): `train/10000.png` and `10000_GT.png`, `test/` alike.
- Magnetic tile defects (Huang et al., The Visual Computer 36, 2020): `MT_Free/Imgs/x.jpg` and `x.png`, and so for
  `MT_Blowhole`, `MT_Break`, `MT_Crack`, `MT_Fray`, `MT_Uneven`; no split.
"""

from __future__ import annotations

from pathlib import Path

from okng.datasets.base import NG, OK, Dataset, Sample
from okng.datasets.folder import no_images
from okng.datasets.masks import is_marked
from okng.datasets.protocols import split_by_seed
from okng.inspection.reading.files import find_images, subfolders


def has_ksdd_layout(folder: Path) -> bool:
    """Whether `folder` is KolektorSDD."""
    return any(folder.glob("kos[0-9]*/Part*_label.bmp"))


def open_ksdd(folder: Path, seed: int) -> Dataset:
    """Trains on the OK parts of 80 % of the commutators, drawn by `seed`; tests on the others' and on all NG parts.

    All parts of a commutator look alike, so that its OK parts are on one side.
    """
    items = [path for path in subfolders(folder) if any(path.glob("Part*_label.bmp"))]
    samples = {item: _samples(item, "_label") for item in items}
    drawn, _ = split_by_seed([Sample(item) for item in items], seed)
    learnt = {sample.image for sample in drawn}
    train = [sample for item in items if item in learnt for sample in samples[item] if sample.label == OK]
    test = [sample for item in items for sample in samples[item] if item not in learnt or sample.label == NG]
    protocol = (
        f"By seed {seed}: the OK images of 80 % of the commutators for training; those of the others and all NG "
        "images, where the mask marks something, for testing."
    )
    return Dataset(folder.resolve().name, "kolektorsdd", protocol, tuple(train), tuple(test))


def has_ksdd2_layout(folder: Path) -> bool:
    """Whether `folder` is KolektorSDD2."""
    return (folder / "test").is_dir() and any((folder / "train").glob("[0-9]*_GT.png"))


def open_ksdd2(folder: Path) -> Dataset:
    """Trains on the images of `train/` whose mask marks nothing, tests on all of `test/`."""
    train, test = _samples(folder / "train", "_GT"), _samples(folder / "test", "_GT")
    return Dataset(
        name=folder.resolve().name,
        layout="kolektorsdd2",
        protocol="The native split: train/ without its NG images for training, test/ for testing; an image is NG where "
        "its mask marks something.",
        train=tuple(sample for sample in train if sample.label == OK),
        test=tuple(test),
        ng=tuple(sample for sample in train if sample.label == NG),
    )


def has_magnetic_tile_layout(folder: Path) -> bool:
    """Whether `folder` is the magnetic tiles as downloaded."""
    return (folder / "MT_Free").is_dir() and len(list(folder.glob("MT_*"))) > 1


def open_magnetic_tile(folder: Path, seed: int) -> Dataset:
    """Trains on 80 % of `MT_Free`, drawn by `seed`; tests on the rest and on all other tiles, which are NG."""
    ok: list[Sample] = []
    ng: list[Sample] = []
    for place in subfolders(folder):
        kind = place.name.removeprefix("MT_").lower()
        if kind == "free":
            ok += [Sample(image, OK, "good") for image in find_images(place) if image.suffix.lower() == ".jpg"]
        elif place.name.startswith("MT_"):
            files = find_images(place)
            masks = {mask.with_suffix(""): mask for mask in files if mask.suffix.lower() == ".png"}
            images = [image for image in files if image.suffix.lower() == ".jpg"]
            ng += [Sample(image, NG, kind, masks.get(image.with_suffix(""))) for image in images]
    if not ok:
        raise no_images(folder / "MT_Free")
    train, rest = split_by_seed(ok, seed)
    protocol = f"80/20 by seed {seed}: 80 % of MT_Free for training; the rest (OK) and all others (NG) for testing."
    return Dataset(folder.resolve().name, "magnetic-tile", protocol, train, rest + tuple(ng))


def _samples(folder: Path, ending: str) -> list[Sample]:
    """The images of a folder, NG where the mask of the same name with `ending` marks something; None without one."""
    files = find_images(folder)
    masks = {file.stem.removesuffix(ending): file for file in files if file.stem.endswith(ending)}
    if len(masks) == len(files):
        raise no_images(folder)
    samples = []
    for image in files:
        if ending in image.stem:
            continue
        mask = masks.get(image.stem)
        if mask is None:
            samples.append(Sample(image, None, "without mask"))
        else:
            samples.append(Sample(image, NG, "defect", mask) if is_marked(mask) else Sample(image, OK, "good"))
    return samples
