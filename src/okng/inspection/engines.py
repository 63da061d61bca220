"""The line's engines: an exported detector run by ONNX Runtime or OpenVINO, without torch."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import threading
from pathlib import Path
from queue import LifoQueue
from typing import Any

import numpy as np

from okng.errors import OkngError, in_one_line, missing_extra
from okng.inspection.inspector import Engine, Inspector
from okng.inspection.model_file import check_ending, write_model
from okng.inspection.onnx_file import read_onnx, write_onnx

ENGINES = ("openvino", "onnxruntime")  # the faster first
PRECISIONS = ("f32", "bf16")
SHAPES = 4  # input shapes that get a compiled model of their own


class OnnxEngine:
    """What both engines share: the graph of a .onnx file, run one image at a time.

    One at a time because on a CPU a batch is no faster, needs more memory, and would let a score depend on its
    neighbours in the last digits. Any number of threads may call one engine; what each is told is its own. An engine
    can be copied and pickled: the copy is made anew from the same graph.
    """

    def __init__(self, graph: bytes):
        self.graph = graph

    def __reduce__(self) -> tuple[Any, ...]:
        """How it is copied and pickled."""
        raise NotImplementedError

    def __call__(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Raw scores (B,) and maps (B, h, w), if any, of uint8 `pixels` (B, H, W, C)."""
        results = [self.run(image[None]) for image in pixels]
        scores = np.concatenate([result[0] for result in results])
        return scores, np.concatenate([result[1] for result in results]) if len(results[0]) > 1 else None

    def run(self, pixels: np.ndarray) -> list[np.ndarray]:
        """The graph's outputs, [(B,)] or [(B,), (B, h, w)], for uint8 `pixels` (B, H, W, C)."""
        raise NotImplementedError

    def write(self, path: Path, manifest: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        """Write the .onnx file with another manifest around the same graph."""
        check_ending(path, exported=True)
        write_onnx(path, self.graph, manifest, arrays)


class StoredDetector:
    """What a .okng file holds of its detector, kept as it is: only PyTorch runs it, but its threshold is a number."""

    def __init__(self, tensors: dict[str, np.ndarray]):
        self.tensors = tensors

    def __call__(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Not here."""
        raise NotImplementedError

    def write(self, path: Path, manifest: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        """Write the .okng file with another manifest beside the same tensors."""
        check_ending(path)
        write_model(path, manifest, {**self.tensors, **arrays})


class OnnxRuntimeEngine(OnnxEngine):
    """ONNX Runtime on the CPU, in float32; each call works on `threads` threads, by default one for each core."""

    def __init__(self, graph: bytes, threads: int | None = None):
        super().__init__(graph)
        self.threads = threads
        try:
            import onnxruntime
        except ModuleNotFoundError as error:
            raise missing_extra("onnxruntime", "onnx") from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 0
        options.log_severity_level = 3  # errors
        try:
            self.session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its errors have no common class of their own
            raise _unusable("onnxruntime", error) from error

    def __reduce__(self) -> tuple[Any, ...]:
        """A session can't be copied; the graph can."""
        return type(self), (self.graph, self.threads)

    def run(self, pixels: np.ndarray) -> list[np.ndarray]:
        """The graph's outputs, [(B,)] or [(B,), (B, h, w)], for uint8 `pixels` (B, H, W, C)."""
        outputs: list[np.ndarray] = self.session.run(None, {self.session.get_inputs()[0].name: pixels})
        return outputs


class OpenVinoEngine(OnnxEngine):
    """OpenVINO on the CPU; each call works on `threads` threads, by default one for each core.

    In float32 unless `precision` is "bf16", for scores that are the same on every machine: left to itself OpenVINO
    takes bf16 wherever the CPU has it. The first few input shapes get a model compiled for that shape, which is the
    fastest; images of further shapes share one for any shape, as compiling takes longer than inspecting.

    A compiled model does one call at a time, and its results lie in memory that its next call reuses. So each call
    takes a lane of its own, with compiled models of its own, and copies the results out of it. There are as many lanes
    as calls of `threads` threads fit on the cores, further calls wait; a lane compiles when it is first needed.
    """

    def __init__(self, graph: bytes, precision: str = "f32", threads: int | None = None):
        super().__init__(graph)
        self.precision, self.threads = precision, threads
        openvino = import_openvino()
        self.core = openvino.Core()
        if precision == "bf16" and "BF16" not in self.core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise OkngError("this CPU has no bf16 arithmetic; export the model again with --precision f32")
        # Pinned, the threads of two lanes, or of two processes, sit on the same core while others idle.
        self.settings: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": precision,
            "ENABLE_CPU_PINNING": False,
        }
        if threads is not None:
            self.settings["INFERENCE_NUM_THREADS"] = threads
        self.shapes: list[tuple[int, ...]] = []  # those with compiled models of their own
        self.choosing = threading.Lock()
        self.lanes: LifoQueue[dict[tuple[int, ...], Any]] = LifoQueue()  # the last one used is compiled already
        for _ in range((os.cpu_count() or 1) // threads if threads is not None else 1):
            self.lanes.put({})
        try:
            self.model = self.core.read_model(graph)
        except RuntimeError as error:
            raise _unusable("openvino", error) from error

    def __reduce__(self) -> tuple[Any, ...]:
        """A compiled model can't be copied; the graph can."""
        return type(self), (self.graph, self.precision, self.threads)

    def run(self, pixels: np.ndarray) -> list[np.ndarray]:
        """The graph's outputs, [(B,)] or [(B,), (B, h, w)], for uint8 `pixels` (B, H, W, C)."""
        key = self.key(pixels.shape)
        lane = self.lanes.get()
        try:
            if key not in lane:
                lane[key] = self.compiled(key)
            return [np.array(output) for output in lane[key](pixels).values()]
        finally:
            self.lanes.put(lane)

    def key(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """`shape` if it has models of its own, else (); the same in every lane, so that a score stays the same."""
        with self.choosing:
            if shape not in self.shapes and len(self.shapes) < SHAPES:
                self.shapes.append(shape)
            return shape if shape in self.shapes else ()

    def compiled(self, key: tuple[int, ...]) -> Any:
        """A model for images of the shape `key`, or for any."""
        with self.choosing:
            model = self.model.clone()
        if key:
            model.reshape(list(key))
        return self.core.compile_model(model, "CPU", self.settings)


def import_openvino() -> Any:
    """The package openvino, without its telemetry.

    Imported as it is, it tells a server on the Internet of each import, from a process that it forks. A line is often
    offline, and the fork keeps what it inherits open: pipes, and the port of a server.
    """
    telemetry = "openvino_telemetry"
    silenced = telemetry not in sys.modules
    if silenced:
        sys.modules[telemetry] = None  # type: ignore[assignment]  # its import fails, and a stub takes its place
    try:
        return importlib.import_module("openvino")
    except ModuleNotFoundError as error:
        raise missing_extra("openvino", "openvino") from error
    finally:
        if silenced:
            del sys.modules[telemetry]


def load_onnx(path: Path, engine: str = "auto", precision: str | None = None, threads: int | None = None) -> Inspector:
    """The inspector in a .onnx file that `okng export` wrote, without torch.

    `engine` is "openvino", "onnxruntime" or "auto", the first of them that is installed. `precision` is the one the
    file was calibrated at, and no other: the threshold belongs to scores of that precision. `threads`: how many work on
    one image; several callers then share the cores.
    """
    manifest, arrays, graph = read_onnx(path)
    calibrated = str(manifest.get("precision", "f32"))
    if precision not in (None, calibrated):
        raise OkngError(
            f"{path} was calibrated at {calibrated}, and its threshold holds for that alone; for {precision} run: "
            f"okng export --precision {precision} --calibrate NEW_OK_IMAGES"
        )
    return Inspector.from_file(make_engine(graph, engine, calibrated, threads), manifest, arrays)


def make_engine(graph: bytes, engine: str = "auto", precision: str = "f32", threads: int | None = None) -> Engine:
    """The engine called `engine`, for `graph`; each call works on `threads` threads (None: one for each core)."""
    check_threads(threads)
    if precision not in PRECISIONS:
        raise OkngError(f"precision is {' or '.join(PRECISIONS)}, not {precision!r}")
    if engine == "auto":
        offered = ENGINES if precision == "f32" else ENGINES[:1]
        engine = next((name for name in offered if importlib.util.find_spec(name) is not None), offered[-1])
    if engine == "openvino":
        return OpenVinoEngine(graph, precision, threads)
    if engine == "onnxruntime" and precision == "f32":
        return OnnxRuntimeEngine(graph, threads)
    if engine == "onnxruntime":
        raise OkngError(f"onnxruntime has no {precision} on the CPU; take --engine openvino")
    raise OkngError(f"an .onnx file is run by {' or '.join(ENGINES)}, not {engine!r}; torch runs .okng files")


def check_threads(threads: int | None) -> None:
    """OkngError unless `threads` is None or no more than this machine has cores."""
    if threads is not None and not (isinstance(threads, int | np.integer) and 1 <= threads <= (os.cpu_count() or 1)):
        raise OkngError(f"threads is 1 to {os.cpu_count()}, the cores of this machine, not {threads!r}")


def _unusable(engine: str, error: Exception) -> OkngError:
    return OkngError(f"{engine} can't run this file ({in_one_line(error)}); update {engine}, or export again")
