"""Which layout a folder has."""

from __future__ import annotations

from pathlib import Path

from okng.datasets.base import Dataset
from okng.datasets.class_folders import open_classes, open_split_classes
from okng.datasets.elpv import CELLS, open_elpv
from okng.datasets.folder import open_folder
from okng.datasets.idx import has_idx_files, open_idx
from okng.datasets.mvtec import has_mvtec_layout, is_good, open_mvtec
from okng.errors import OkngError
from okng.inspection.files import subfolders


def open_dataset(source: str | Path, normal: str | None = None, seed: int = 0) -> Dataset:
    """The data set in the folder `source`, or the built-in one: "elpv", "elpv/mono" or "elpv/poly".

    What lies in the folder decides, in this order: IDX files (MNIST); `train/` and `test/` as in MVTec AD;
    `train/` and `test/` with a folder per class; with `normal` given, a folder per class, split 80/20 by
    `seed`; else a plain folder of OK images. `normal` names the OK class where a set has several. How the set
    was divided is said in `Dataset.protocol`. Raises `OkngError` for what cannot be read or is ambiguous.
    """
    folder = Path(source).expanduser()
    if not folder.exists():
        return _open_builtin(str(source), normal, seed)
    if not folder.is_dir():
        raise OkngError(f"{folder} is a file; give the folder it lies in")
    if has_idx_files(folder):
        return open_idx(folder, normal)
    if _has_split(folder):
        return open_mvtec(folder, normal) if has_mvtec_layout(folder) else open_split_classes(folder, normal)
    _refuse_nested(folder)
    if normal is not None:
        return open_classes(folder, normal, seed)
    _refuse_mixed(folder)
    return open_folder(folder)


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
    inner = [path.name for path in subfolders(folder) if _has_split(path)]
    if inner:
        raise OkngError(f"{folder} holds whole data sets; give one of them: {', '.join(inner)}")


def _refuse_mixed(folder: Path) -> None:
    """Folder names that say "not only OK images": taking all of them would teach defects as OK."""
    names = [path.name for path in subfolders(folder)]
    split = [name for name in names if name.lower() in ("test", "ground_truth")]
    if split:
        raise OkngError(f"{folder} has {split[0]}/ but not both train/ and test/; give the OK images' folder")
    good = [name for name in names if is_good(name)]
    if good and len(names) > len(good):
        raise OkngError(
            f"{folder} has other folders beside {good[0]}/; give {folder / good[0]} to learn from it alone, "
            f"or normal={good[0]!r} to test on the others"
        )
