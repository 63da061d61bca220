"""Which layout a folder has."""

from __future__ import annotations

from pathlib import Path

from okng.datasets.base import Dataset
from okng.datasets.cifar import has_cifar_files, read_cifar
from okng.datasets.class_folders import read_classes, read_split_classes
from okng.datasets.coco import VERSIONS, has_coco_files, read_coco
from okng.datasets.coil import has_coil_files, read_coil
from okng.datasets.dagm import dagm_classes, has_dagm_layout, open_dagm
from okng.datasets.elpv import CELLS, open_elpv
from okng.datasets.folder import open_folder
from okng.datasets.idx import has_idx_files, read_idx
from okng.datasets.mvtec import has_mvtec_layout, is_good, open_mvtec
from okng.datasets.nanotwice import has_nanotwice_layout, open_nanotwice
from okng.datasets.protocols import BY_CLASS, PROTOCOLS, Classes, check_protocol, contaminate, divide
from okng.datasets.shanghaitech import has_shanghaitech_layout, open_shanghaitech
from okng.errors import OkngError, nearest_names
from okng.inspection.files import subfolders

NOT_OK = {
    "abnormal", "anomalies", "anomalous", "anomaly", "bad", "defect", "defective", "defects", "label", "labels", "mask",
    "masks", "ng", "testing", "val", "validation",
}  # fmt: skip


def open_dataset(
    source: str | Path,
    normal: str | None = None,
    seed: int = 0,
    protocol: str | None = None,
    abnormal: str | None = None,
    contamination: float = 0.0,
) -> Dataset:
    """The data set in the folder `source`, or the built-in one: "elpv", "elpv/mono" or "elpv/poly".

    What lies in the folder decides, in this order: IDX files (MNIST); Python batches (CIFAR); COCO's annotations and
    images, of which `source`/masked gives the crops without background; DAGM 2007; NanoTWICE; ShanghaiTech Campus;
    `train/` and `test/` as in MVTec AD; `train/` and `test/` with a folder per class; COIL's flat folder; with
    `normal` or a protocol given, a folder per class; else a plain folder of OK images.

    `normal` names the OK class where a set has several, or several of them ("3,5"). `protocol` is "one-vs-rest",
    which is the default for classes, "80/20", "leave-one-class-out", whose one NG class `abnormal` names, or "mvtec";
    `seed` draws what is drawn. `contamination` is a share of NG images to hide among the training images, taken out
    of the test images. How the set was divided is said in `Dataset.protocol`. Raises `OkngError` for what cannot be
    read or is ambiguous.
    """
    if protocol not in (None, "native", *PROTOCOLS):
        raise OkngError(f"there is no protocol {protocol!r}; {nearest_names(str(protocol), PROTOCOLS)}")
    by_class = normal is not None or abnormal is not None or protocol in BY_CLASS
    found = _read(source, normal, seed, by_class)
    if isinstance(found, Classes):
        found = divide(found, normal, protocol, abnormal, seed)
    else:
        found = check_protocol(found, protocol, abnormal)
    return contaminate(found, contamination, seed)


def _read(source: str | Path, normal: str | None, seed: int, by_class: bool) -> Dataset | Classes:
    folder = Path(source).expanduser()
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
    for has_layout, open_it in (
        (has_dagm_layout, open_dagm),
        (has_nanotwice_layout, open_nanotwice),
        (has_shanghaitech_layout, open_shanghaitech),
    ):
        if has_layout(folder):
            if normal is not None:
                raise OkngError(f"{folder} itself says which images are OK; leave normal={normal!r} out")
            return open_it(folder)
    if _has_split(folder):
        return open_mvtec(folder, normal) if has_mvtec_layout(folder) else read_split_classes(folder)
    _refuse_nested(folder)
    if by_class and has_coil_files(folder):
        return read_coil(folder)
    if by_class:
        return read_classes(folder)
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
    inner = [path.name for path in subfolders(folder) if _has_split(path)] or dagm_classes(folder)
    if inner:
        raise OkngError(f"{folder} holds whole data sets; give one of them: {', '.join(inner)}")


def _refuse_mixed(folder: Path) -> None:
    """Folder names that say "not only OK images": taking all of them would teach defects as OK."""
    names = [path.name for path in subfolders(folder)]
    split = [name for name in names if name.lower() in ("test", "ground_truth")]
    if split:
        raise OkngError(f"{folder} has {split[0]}/ but not both train/ and test/; give the OK images' folder")
    odd = [name for name in names if name.lower() in NOT_OK]
    if odd:
        raise OkngError(f"{folder} has {odd[0]}/, which would be learnt as OK; give the OK images' folder alone")
    good = [name for name in names if is_good(name)]
    if good and len(names) > len(good):
        raise OkngError(
            f"{folder} has other folders beside {good[0]}/; give {folder / good[0]} to learn from it alone, "
            f"or normal={good[0]!r} to test on the others"
        )
