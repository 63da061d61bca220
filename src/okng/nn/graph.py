"""A module as an ONNX graph."""

from __future__ import annotations

import io
import logging
import threading
import warnings
from collections.abc import Sequence

import torch
from torch import Tensor, nn

OPSET = 18
_EXPORTING = threading.Lock()  # the exporter and the filter of warnings are of the whole process


def onnx_graph(module: nn.Module, example: Tensor, names: Sequence[str], dynamic: dict[str, dict[int, str]]) -> bytes:
    """The graph of `module`, a serialised ModelProto, drawn by running it once on `example`.

    `names`: of the input and then of the outputs; `dynamic`: which of their axes stay open, each with a name.

    By tracing, PyTorch's older exporter: with open heights and widths the newer one (`dynamo=True`) reasons about the
    sizes behind every convolution in computer algebra, which took minutes for EfficientNet-Lite0 (torch 2.14) where
    this takes seconds. The price: what Python computes of a size becomes a constant, so compare at several sizes.
    """
    memory = io.BytesIO()
    logger = logging.getLogger("torch.onnx")
    with _EXPORTING, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's age, and Python values that are constants on purpose
        level = logger.level
        try:
            logger.setLevel(logging.ERROR)
            torch.onnx.export(
                module.eval(), (example,), memory, dynamo=False, opset_version=OPSET,  # type: ignore[arg-type]
                input_names=names[:1], output_names=names[1:], dynamic_axes=dynamic,
            )  # fmt: skip
        finally:
            logger.setLevel(level)
    return memory.getvalue()
