"""From a fitted detector to one ONNX file for the line."""

from okng.exporting.file import Exported, export
from okng.exporting.onnx import Parity, export_onnx
from okng.exporting.precision import Drift, recalibrate

__all__ = ["Drift", "Exported", "Parity", "export", "export_onnx", "recalibrate"]
