"""Which layout a folder has."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from okng.checks import check_named, plain, seed_of
from okng.datasets.base import Dataset
from okng.datasets.cifar import has_cifar_files, read_cifar
from okng.datasets.class_folders import read_classes, read_split_classes
from okng.datasets.coco import VERSIONS, has_coco_files, read_coco
from okng.datasets.coil import has_coil_files, read_coil
from okng.datasets.dagm import has_dagm_layout, open_dagm
from okng.datasets.elpv import CELLS, open_elpv
from okng.datasets.folder import open_folder
from okng.datasets.idx import has_idx_files, read_idx
from okng.datasets.labelled_by_mask import (
    has_ksdd2_layout,
    has_ksdd_layout,
    has_magnetic_tile_layout,
    open_ksdd,
    open_ksdd2,
    open_magnetic_tile,
)
from okng.datasets.mvtec import has_mvtec_layout, open_mvtec
from okng.datasets.nanotwice import has_nanotwice_layout, open_nanotwice
from okng.datasets.protocols import BY_CLASS, PROTOCOLS, Classes, check_protocol, contaminate, divide
from okng.datasets.real_iad import has_real_iad_layout, open_real_iad
from okng.datasets.shanghaitech import has_shanghaitech_layout, open_shanghaitech
from okng.datasets.visa import has_visa_layout, open_visa
from okng.errors import OkngError, nearest_names
from okng.inspection.reading.files import subfolders
from okng.inspection.storage.urls import storage_url


class Layout(NamedTuple):
    """A layout that says itself which images are OK: its name in `okng list datasets`, its mark, its reader."""

    name: str
    is_in: Callable[[Path], bool]
    read: Callable[[Path, int], Dataset]  # the folder and the seed, for sets without a split of their own


LAYOUTS = (
    Layout("DAGM 2007", has_dagm_layout, lambda folder, _: open_dagm(folder)),
    Layout("NanoTWICE", has_nanotwice_layout, lambda folder, _: open_nanotwice(folder)),
    Layout("ShanghaiTech Campus", has_shanghaitech_layout, lambda folder, _: open_shanghaitech(folder)),
    Layout("VisA", has_visa_layout, open_visa),
    Layout("KolektorSDD", has_ksdd_layout, open_ksdd),
    Layout("KolektorSDD2", has_ksdd2_layout, lambda folder, _: open_ksdd2(folder)),
    Layout("magnetic tiles", has_magnetic_tile_layout, open_magnetic_tile),
    Layout("Real-IAD", has_real_iad_layout, lambda folder, _: open_real_iad(folder)),
)


def open_dataset(
    source: str | Path,
    normal: str | int | None = None,
    seed: int = 0,
    protocol: str | None = None,
    abnormal: str | int | None = None,
    contamination: float = 0.0,
) -> Dataset:
    """The data set in the folder `source`, or the built-in one: "elpv", "elpv/mono" or "elpv/poly".

    An archive (.zip, .tar, .tar.gz), and a URL of storage such as s3://bucket/parts, are brought to this machine whole.

    What lies in the folder decides, in this order: IDX files (MNIST); Python batches (CIFAR); COCO's annotations and
    images, of which `source`/masked gives the crops without background; DAGM 2007; NanoTWICE; ShanghaiTech Campus;
    VisA; KolektorSDD and KolektorSDD2; magnetic tiles; Real-IAD; `train/` and `test/` as in MVTec AD and its kin;
    `train/` and `test/` with a folder per class; COIL's flat folder; with `normal` or a protocol given, a folder per
    class; else a plain folder of OK images, of which `ok_images` says what is learnt.

    `normal` names the OK class where a set has several, or several of them ("3,5"). `protocol` is "one-vs-rest",
    which is the default for classes, "80/20", "leave-one-class-out", whose one NG class `abnormal` names, or "mvtec". A
    class that is called by a number may be given as one. `seed` draws what is drawn. `contamination` is a share of NG
    images to hide among the training images, taken out of the test images. How the set was divided is said in
    `Dataset.protocol`. Raises `OkngError` for what cannot be read or is ambiguous.
    """
    check_named(source)
    seed, normal, abnormal = seed_of(seed), _classes(normal), _classes(abnormal)
    if protocol not in (None, "native", *PROTOCOLS):
        raise OkngError(f"there is no protocol {protocol!r}; {nearest_names(str(protocol), PROTOCOLS)}")
    by_class = normal is not None or abnormal is not None or protocol in BY_CLASS
    found = _read(source, normal, seed, by_class)
    if isinstance(found, Classes):
        found = divide(found, normal, protocol, abnormal, seed)
    else:
        found = check_protocol(found, protocol, abnormal)
    return contaminate(found, contamination, seed)


def opened(
    data: Dataset | str | Path,
    normal: str | int | None = None,
    seed: int = 0,
    protocol: str | None = None,
    abnormal: str | int | None = None,
    contamination: float = 0.0,
) -> Dataset:
    """`data` as it is, or as `open_dataset` opens it; `OkngError` where an open one is to be divided otherwise."""
    if not isinstance(data, Dataset):
        return open_dataset(data, normal, seed, protocol, abnormal, contamination)
    asked = {"normal": normal, "protocol": protocol, "abnormal": abnormal, "contamination": contamination or None}
    if given := [name for name, value in asked.items() if value is not None]:
        raise OkngError(f"{data.name} is divided already; leave out {given[0]}, or give it to open_dataset")
    return data


def _classes(given: object) -> str | None:
    """The names of classes as a text: 3 is "3", (3, 5) is "3,5"."""
    if given is None:
        return None
    names = plain("a class", given)
    return ",".join(map(str, names)) if isinstance(names, tuple) else str(names)


def _read(source: str | Path, normal: str | None, seed: int, by_class: bool) -> Dataset | Classes:
    folder = Path(source).expanduser()
    if (url := storage_url(source)) is not None:
        from okng.inspection.storage.stored import brought

        folder = brought(url)
    if not folder.exists():
        if folder.name in VERSIONS and has_coco_files(folder.parent):
            return read_coco(folder.parent, folder.name, seed)
        return _open_builtin(str(source), normal, seed)
    if not folder.is_dir():
        raise OkngError(f"{folder} is a file; give the folder it lies in")
    for has_files, read in ((has_idx_files, read_idx), (has_cifar_files, read_cifar)):
        if has_files(folder):
            return read(folder)
    if has_coco_files(folder):
        return read_coco(folder, "original", seed)
    for layout in LAYOUTS:
        if layout.is_in(folder):
            if normal is not None:
                raise OkngError(f"{folder} itself says which images are OK; leave normal={normal!r} out")
            return layout.read(folder, seed)
    if has_mvtec_layout(folder):
        return open_mvtec(folder, normal)
    if _has_split(folder):
        return read_split_classes(folder)
    _refuse_nested(folder)
    if by_class and has_coil_files(folder):
        return read_coil(folder)
    return read_classes(folder) if by_class else open_folder(folder)


def _open_builtin(name: str, normal: str | None, seed: int) -> Dataset:
    if name not in CELLS:
        raise OkngError(f"{name} does not exist; give a folder of images or one of {', '.join(CELLS)}")
    if normal is not None:
        raise OkngError(f"{name} itself says which cells are OK; leave normal={normal!r} out")
    return open_elpv(name, seed)


def _has_split(folder: Path) -> bool:
    return (folder / "train").is_dir() and (folder / "test").is_dir()


def _refuse_nested(folder: Path) -> None:
    """A folder of whole data sets would else be one big plain folder, test images and masks included."""
    inner: list[Path] = []
    places = [folder]
    for _ in range(2):  # Real-IAD's parts lie in the folder of a size
        places = [path for place in places for path in subfolders(place)]
        inner = inner or [path for path in places if _is_whole(path)]
    if inner:
        names = ", ".join(path.relative_to(folder).as_posix() for path in inner)
        raise OkngError(f"{folder} holds whole data sets; give one of them: {names}")


def _is_whole(folder: Path) -> bool:
    return _has_split(folder) or has_mvtec_layout(folder) or any(layout.is_in(folder) for layout in LAYOUTS)
