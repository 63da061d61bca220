"""From a model to its .onnx file, at the precision asked for."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import okng
from okng.datasets import Dataset
from okng.datasets.detect import opened
from okng.errors import OkngError
from okng.exporting.onnx import Parity, export_onnx
from okng.exporting.precision import Drift, recalibrate
from okng.inspection.inspector import Inspector


@dataclass(frozen=True)
class Exported:
    """The file written at `path`, how close it is to PyTorch, and what bf16 changed (None at f32)."""

    path: Path
    parity: Parity
    drift: Drift | None


def export(
    model: Inspector | str | Path,
    path: str | Path,
    *,
    precision: str = "f32",
    calibrate: Dataset | str | Path | None = None,
) -> Exported:
    """Write `model`, an inspector or its .okng file, as one .onnx file for the line, checked against PyTorch.

    `precision` "bf16" moves the scores, so it needs OK images that the model has not learnt from: `calibrate`, a folder
    of them or a labelled data set whose test part has some. `okng.load(path)` opens the file. Raises `OkngError`, and
    writes nothing, for a model that can't be exported and for one that differs from PyTorch by more than 1e-4.
    """
    path = Path(path).expanduser()
    if precision not in ("f32", "bf16"):
        raise OkngError(f"an export's precision is f32 or bf16, not {precision!r}")
    if (precision == "bf16") != (calibrate is not None):
        raise OkngError(
            "bf16 moves the scores, so its threshold needs OK images the model has not learnt from; "
            "give both: --precision bf16 --calibrate NEW_OK_IMAGES"
        )
    if path.suffix != ".onnx":
        raise OkngError(f"{path} is to be an ONNX file; give it a name that ends in .onnx")
    inspector = model if isinstance(model, Inspector) else okng.load(model)
    if calibrate is None:
        return Exported(path, export_onnx(inspector, path), None)
    images = opened(calibrate)
    with tempfile.TemporaryDirectory() as folder:
        at_f32 = Path(folder) / "f32.onnx"
        parity = export_onnx(inspector, at_f32)
        inspector, drift = recalibrate(at_f32, precision, images)
    inspector.save(path)
    return Exported(path, parity, drift)
