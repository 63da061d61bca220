"""From a fitted detector to one ONNX file for the line."""

from okng.export.onnx import Parity, export_onnx
from okng.export.precision import Drift, recalibrate

__all__ = ["Drift", "Parity", "export_onnx", "recalibrate"]
