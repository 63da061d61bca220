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
__all__ = ["ImageOutlierDetector", "Inspection", "Inspector", "OkngError", "create", "fit", "load"]

if TYPE_CHECKING:
    from okng.detectors.catalogue import create
    from okng.errors import OkngError
    from okng.estimator import ImageOutlierDetector
    from okng.inspection.inspector import Inspector
    from okng.inspection.result import Inspection
    from okng.training.fit import fit

_LAZY = {
    "ImageOutlierDetector": "okng.estimator",
    "Inspection": "okng.inspection.result",
    "Inspector": "okng.inspection.inspector",
    "OkngError": "okng.errors",
    "create": "okng.detectors.catalogue",
    "fit": "okng.training.fit",
}


def load(path: str | Path, device: str = "cpu") -> Inspector:
    """Open a model file that `Inspector.save` or `okng train` wrote; `OkngError` if it is not whole or not ours."""
    from okng.errors import missing_extra
    from okng.inspection.model_file import read_model

    manifest, tensors = read_model(Path(path))
    try:
        from okng.detectors.engine import load_torch
    except ModuleNotFoundError as error:
        raise missing_extra(error.name or "torch", "train") from error
    return load_torch(Path(path), manifest, tensors, device)


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'okng' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_LAZY[name]), name)
