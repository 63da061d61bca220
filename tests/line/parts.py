"""A model without torch, images that it judges, and what else several tests of the line use."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper
from PIL import Image

from okng.inspection.engines import OnnxRuntimeEngine
from okng.inspection.inspector import Inspector
from okng.inspection.reading.images import Preprocess
from okng.inspection.verdict.calibration import Calibration
from okng.inspection.verdict.result import Inspection
from okng.store import ModelUsed, Store

SIDE = 32
MODEL = ModelUsed("parts", "0" * 16, 70.0)


def darkness() -> bytes:
    """A graph from uint8 (B, H, W, C) to the darkest place's score (B,) and a map (B, h, w) of 4 × 4 px cells."""
    nodes = [
        helper.make_node("Cast", ["pixels"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["f"], ["t"], perm=[0, 3, 1, 2]),
        helper.make_node("ReduceMean", ["t"], ["m"], axes=[1], keepdims=1),
        helper.make_node("AveragePool", ["m"], ["a"], kernel_shape=[4, 4], strides=[4, 4]),
        helper.make_node("Sub", ["white", "a"], ["d"]),
        helper.make_node("ReduceMax", ["d"], ["score"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Squeeze", ["d", "one"], ["map"]),
    ]
    pixels = helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["B", "H", "W", "C"])
    outputs = [
        helper.make_tensor_value_info("score", TensorProto.FLOAT, ["B"]),
        helper.make_tensor_value_info("map", TensorProto.FLOAT, ["B", "h", "w"]),
    ]
    constants = [
        helper.make_tensor("white", TensorProto.FLOAT, [], [255.0]),
        helper.make_tensor("one", TensorProto.INT64, [1], [1]),
    ]
    graph = helper.make_graph(nodes, "darkness", [pixels], outputs, constants)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(made)
    return bytes(made.SerializeToString())


def inspector() -> Inspector:
    """Calls what is darker than about 70 of 255 somewhere NG."""
    held_out = np.linspace(20, 70, 99)
    calibration = Calibration.fit(held_out, held_out, "split", 0.05)
    return Inspector(OnnxRuntimeEngine(darkness(), 1), Preprocess("RGB", SIDE, 4), calibration, {"detector": {}})


def picture(number: int, ng: bool = False) -> np.ndarray:
    """uint8 (H, W, 3), bright and different for each number; with a dark square if `ng`."""
    rng = np.random.default_rng(number)
    pixels = rng.integers(215, 230, (SIDE, SIDE, 3), dtype=np.uint8)
    if ng:
        pixels[8:20, 12:24] = 30
    return pixels


def png(number: int, ng: bool = False) -> bytes:
    """The same as a file's bytes."""
    content = io.BytesIO()
    Image.fromarray(picture(number, ng)).save(content, "PNG")
    return content.getvalue()


def record(store: Store, number: int, sinks: tuple[str, ...] = (), path: str | None = None, ng: bool = False) -> int:
    """Judge a picture and record it, as watch and serve do."""
    (found,) = inspector().inspect([picture(number, ng)])
    return record_of(store, found, path or f"/in/{number}.png", sinks)


def record_of(store: Store, found: Inspection, path: str, sinks: tuple[str, ...], **more: Any) -> int:
    """Record what was found of one image."""
    from dataclasses import replace

    named = replace(found, path=path)
    return store.record(named, model=MODEL, source="test", digest=f"{hash(path) & 0xFFFF:016x}", sinks=sinks, **more)


def wait_for(what: Callable[[], Any], seconds: float = 20.0) -> Any:
    """What `what` gives once that is true; fails after `seconds`."""
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, f"waited {seconds} s in vain"
        time.sleep(0.02)
    return found


def write(path: Path, content: bytes) -> Path:
    """Write a file at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path
