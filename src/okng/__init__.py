"""okng: learn what OK looks like, find what is NG.

>>> import okng
>>> inspector = okng.fit("parts/ok")                    # doctest: +SKIP
>>> for inspection in inspector.inspect("parts/new"):   # doctest: +SKIP
...     print(inspection.path, inspection.verdict, inspection.p_value)
>>> inspector.save("parts.okng")                        # doctest: +SKIP
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["ImageOutlierDetector", "Inspection", "Inspector", "OkngError", "create", "fit", "load", "update"]

if TYPE_CHECKING:
    from okng.detectors.catalogue import create
    from okng.errors import OkngError
    from okng.estimator import ImageOutlierDetector
    from okng.inspection.inspector import Inspector
    from okng.inspection.result import Inspection
    from okng.training.fit import fit
    from okng.training.update import update

_LAZY = {
    "ImageOutlierDetector": "okng.estimator",
    "Inspection": "okng.inspection.result",
    "Inspector": "okng.inspection.inspector",
    "OkngError": "okng.errors",
    "create": "okng.detectors.catalogue",
    "fit": "okng.training.fit",
    "update": "okng.training.update",
}


def load(
    path: str | Path,
    device: str = "cpu",
    engine: str = "auto",
    precision: str | None = None,
    threads: int | None = None,
) -> Inspector:
    """Open a model file; `OkngError` if it is not whole or not ours.

    A .okng file is run by torch on `device`; a .onnx file, which `okng export` wrote, by the `engine` "openvino" or
    "onnxruntime", without torch. `precision` is "f32" or, for a file exported so, "bf16". `threads`: how many of the
    CPU's cores work, by default all.
    """
    from okng.errors import OkngError, missing_extra
    from okng.inspection.model_file import read_model

    if Path(path).suffix == ".onnx":
        from okng.inspection.engines import load_onnx

        return load_onnx(Path(path), engine, precision, threads)
    if engine not in ("auto", "torch") or precision not in (None, "f32"):
        wanted = engine if precision is None else f"{engine} at {precision}"
        raise OkngError(f"torch runs {path} at f32; for {wanted} run first: okng export {path}")
    manifest, tensors = read_model(Path(path))
    try:
        from okng.detectors.engine import load_torch
    except ModuleNotFoundError as error:
        raise missing_extra(error.name or "torch", "train") from error
    return load_torch(Path(path), manifest, tensors, device, threads)


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'okng' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_LAZY[name]), name)
