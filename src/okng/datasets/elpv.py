"""ELPV: 2,624 electroluminescence images of solar cells, from the PyPI package `elpv-dataset`.

Each cell carries the probability of a defect as experts judged it: 0, 1/3, 2/3 or 1 (Deitsch et al., Solar
Energy 185, 2019). The images' licence is CC BY-NC-SA 4.0.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from okng.datasets.base import NG, OK, Dataset, Sample
from okng.datasets.protocols import split_by_seed
from okng.errors import OkngError, missing_extra

CELLS = {"elpv": ("mono", "poly"), "elpv/mono": ("mono",), "elpv/poly": ("poly",)}


def open_elpv(name: str, seed: int) -> Dataset:
    """The cells of "elpv", "elpv/mono" or "elpv/poly"; a sample's kind is its cell type, "mono" or "poly".

    Cells of defect probability 0 are OK, of 1 NG; the doubtful ones are left out. `seed` draws 80 % of the OK
    cells for training; the rest and all NG cells are for testing. Raises `OkngError` without the package.
    """
    cells = [cell for cell in _read_cells(_data_folder()) if cell[2] in CELLS[name]]
    ok = [Sample(image, OK, kind) for image, probability, kind in cells if probability == 0]
    ng = [Sample(image, NG, kind) for image, probability, kind in cells if probability == 1]
    train, rest = split_by_seed(ok, seed)
    protocol = (
        f"80/20 by seed {seed}: 80 % of the OK cells (defect probability 0) are for training; the other 20 % "
        f"and all NG cells (probability 1) are for testing; {len(cells) - len(ok) - len(ng)} doubtful cells "
        "(1/3 or 2/3) are left out."
    )
    return Dataset(name, "elpv", protocol, train, rest + tuple(ng))


def _data_folder() -> Path:
    spec = find_spec("elpv_dataset")  # found, not imported: only its files are needed
    if spec is None or not spec.submodule_search_locations:
        raise missing_extra("elpv-dataset", "demo")
    return Path(spec.submodule_search_locations[0], "data")


def _read_cells(data: Path) -> list[tuple[Path, float, str]]:
    """Image, defect probability and cell type, from lines like `images/cell0001.png  1.0    mono`."""
    try:
        rows = [line.split() for line in (data / "labels.csv").read_text(encoding="utf-8").splitlines()]
        return [(data / path, float(probability), kind) for path, probability, kind in rows]
    except (OSError, ValueError) as error:
        reinstall = "pip install --force-reinstall --no-deps elpv-dataset"
        raise OkngError(f"the labels of elpv-dataset are missing or damaged; run: {reinstall}") from error
