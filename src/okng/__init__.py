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
__all__ = [
    "ImageOutlierDetector",
    "Inspection",
    "Inspector",
    "OkngError",
    "Report",
    "compare",
    "create",
    "evaluate",
    "export",
    "fit",
    "load",
    "rank",
    "sensitivity",
    "update",
]

if TYPE_CHECKING:
    from okng.benchmark.evaluation import evaluate
    from okng.comparing import compare
    from okng.detectors.base import Detector
    from okng.detectors.catalogue import create
    from okng.errors import OkngError
    from okng.estimator import ImageOutlierDetector
    from okng.exporting import export
    from okng.inspection.inspector import Inspector
    from okng.inspection.verdict.result import Inspection
    from okng.planted.measure import sensitivity
    from okng.report import Report
    from okng.training.fit import fit
    from okng.training.update import update
    from okng.unlabelled.rank import rank

_LAZY = {
    "ImageOutlierDetector": "okng.estimator",
    "Inspection": "okng.inspection.verdict.result",
    "Inspector": "okng.inspection.inspector",
    "OkngError": "okng.errors",
    "Report": "okng.report",
    "compare": "okng.comparing",
    "create": "okng.detectors.catalogue",
    "evaluate": "okng.benchmark.evaluation",
    "export": "okng.exporting",
    "fit": "okng.training.fit",
    "rank": "okng.unlabelled.rank",
    "sensitivity": "okng.planted.measure",
    "update": "okng.training.update",
}


def load(
    path: str | Path,
    device: str = "cpu",
    engine: str = "auto",
    precision: str | None = None,
    threads: int | None = None,
    detector: type[Detector] | None = None,
) -> Inspector:
    """Open a model file; `OkngError` if it is not whole or not ours.

    Where there is no memory for it now the error is `okng.errors.NoMemory`, which is an `OkngError` too.

    A .okng file is run by torch on `device`: "cpu", "cuda", "mps", or "auto", the best there is. A .onnx file, which
    `okng export` wrote, is run on the CPU by the `engine` "openvino" or "onnxruntime", without torch. `precision` is
    "f32" or, for a file exported so, "bf16". `threads`: how many of the CPU's cores work on one call, by default
    all; with torch a setting of the whole process. Any number of threads may call one inspector. `detector`: the class
    of a detector that okng does not have. Loading never imports a module because a file names it.
    """
    from okng.errors import OkngError, missing_extra, needing_memory
    from okng.inspection.model_file import read_model

    path = Path(path).expanduser()
    if path.suffix == ".onnx":
        if device not in ("auto", "cpu"):
            raise OkngError(f"{path} runs on the CPU; leave out the device {device!r}, or take the .okng file")
        from okng.inspection.engines import load_onnx

        with needing_memory(f"open {path}"):
            return load_onnx(path, engine, precision, threads)
    if engine not in ("auto", "torch") or precision not in (None, "f32"):
        wanted = engine if precision is None else f"{engine} at {precision}"
        raise OkngError(f"torch runs {path} at f32; for {wanted} run first: okng export {path}")
    with needing_memory(f"open {path}"):
        manifest, tensors = read_model(path)
        try:
            from okng.detectors.engine import load_torch
        except ModuleNotFoundError as error:
            raise missing_extra(error.name or "torch", "train") from error
        return load_torch(path, manifest, tensors, device, threads, detector)


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'okng' has no attribute {name!r}")
    import importlib

    from okng.errors import missing_package

    try:
        return getattr(importlib.import_module(_LAZY[name]), name)
    except ModuleNotFoundError as error:
        raise missing_package(error) or error from None


def __dir__() -> list[str]:
    return sorted([*__all__, "__doc__", "__name__", "__version__"])
