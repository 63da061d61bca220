"""What several verbs share: printing, parsing, and the tables people read."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from okng.benchmark.rows import json_ready
from okng.errors import OkngError
from okng.inspection.storage.urls import url_of

if TYPE_CHECKING:
    from okng.datasets import Dataset
    from okng.inspection.inspector import Inspector

NORMAL = "The class that is OK, in a data set of classes, or several: 3,5."
PROTOCOL = "one-vs-rest, 80/20, leave-one-class-out, mvtec or native. Default: by what the data set is."
ABNORMAL = "The class that is NG, for leave-one-class-out."
DETECTOR = "A name of `okng list`, in any spelling. Default: patch_memory."
AUXILIARY = "A folder of images of anything else, such as textures, for detectors that can use them."
DEVICE = "auto, cpu, cuda or mps, for PyTorch."
PRODUCT = "Of a model of several products: the one that all the images are of; it has to be said."
LANGUAGE = "Of the page: en, English, or ko, Korean."
RAY = "Work on a Ray cluster: local for one on this machine, auto for the one it belongs to, or ray://HOST:PORT."
TIME_LIMIT = "Begin no fit after this: 60m, 2h; a number is minutes."
CONTAMINATION = "Share of NG images to hide among the training images."


silent = False  # in all but the first process of a fit


def say(line: str = "") -> None:
    """A line for the person, on standard error: standard output belongs to results."""
    if silent:
        return
    with contextlib.suppress(BrokenPipeError):  # nobody reads it any more; the work goes on
        print(line, file=sys.stderr, flush=True)


class Lines:
    """Standard output, line by line. Its reader may leave, as `head` does, or its disk be full.

    That ends the run when standard output is all that was asked for (`alone`); else the rest is dropped, and `lost`
    says why; `left` if it was the reader's own will.
    """

    def __init__(self, alone: bool):
        self.alone, self.lost, self.left = alone, "", False

    def put(self, text: str, end: str = "\n") -> None:
        """Print `text`, at once: who reads line by line need not wait."""
        if self.lost:
            return
        try:
            print(text, end=end, flush=True)
        except OSError as error:
            if self.alone:
                raise
            self.lost, self.left = error.strerror or str(error), isinstance(error, BrokenPipeError)
            with contextlib.suppress(OSError):  # what is left in the buffer would fail again at the end
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    def write(self, data: bytes) -> None:
        """Print whole lines, as `CsvFile` makes them."""
        self.put(data.decode(), end="")

    def flush(self) -> None:
        """`put` has done that."""


def print_json(value: Any) -> None:
    """One JSON object on standard output."""
    print(json.dumps(json_ready(value)))


def parse_size(text: str | None) -> int | tuple[int, int] | None:
    """256, or 256x512 for height x width."""
    if text is None:
        return None
    parts = text.lower().replace("×", "x").split("x")
    if len(parts) > 2 or not all(part.strip().isdecimal() for part in parts):
        raise OkngError(f"--size is one number such as 256, or HxW such as 256x512, not {text!r}")
    sides = [int(part) for part in parts]
    return sides[0] if len(sides) == 1 else (sides[0], sides[1])


def parse_time(text: str | None) -> float | None:
    """Seconds of a text such as 50ms or 0.05s; a bare number could be either, and is refused."""
    if text is None:
        return None
    typed = text.strip().lower()
    for unit, seconds in (("ms", 1e-3), ("s", 1.0)):
        if typed.endswith(unit):
            with contextlib.suppress(ValueError):
                return float(typed.removesuffix(unit)) * seconds
    raise OkngError(f"--time-per-image is a time such as 50ms or 0.05s, not {text!r}")


def parse_parameters(pairs: Sequence[str]) -> dict[str, Any]:
    """-p coreset=0.05 -p strides=8,16 as keyword arguments; numbers, true/false, lists and texts."""
    parsed = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key:
            raise OkngError(f"-p takes NAME=VALUE such as coreset=0.05, not {pair!r}")
        parsed[key.strip().replace("-", "_")] = _value(text.strip())
    return parsed


def _value(text: str) -> Any:
    if "," in text:
        return [_value(part.strip()) for part in text.split(",") if part.strip()]
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return text


def show_dataset(dataset: Dataset) -> None:
    """What was found, as a table, before anything is done with it."""
    from okng.datasets import describe

    head = f"{'split':<7}{'kind':<18}{'OK':>7}{'NG':>7}{'masks':>7}  sizes"
    say(f"{dataset.name}: {dataset.protocol}")
    say(head)
    for row in describe(dataset):
        unreadable = f"  ({row['unreadable']} unreadable)" if row["unreadable"] else ""
        counts = f"{row['ok']:>7}{row['ng']:>7}{row['masks']:>7}"
        say(f"{row['split']:<7}{str(row['kind'])[:17]:<18}{counts}  {row['sizes']}{unreadable}")
    say()


def open_model(
    path: Path,
    rate: float | None = None,
    score: float | None = None,
    load: Callable[..., Inspector] | None = None,
    product: str | None = None,
    **how: Any,
) -> Inspector:
    """The inspector in a model file, at the rate or the threshold asked for now; `how` is handed to `okng.load`.

    `load` takes the place of `okng.load`. `product`: which of several is meant.
    """
    import okng

    if rate is not None and score is not None:
        raise OkngError("give a false-alarm rate or a threshold, not both")
    inspector = (load or okng.load)(path, **how)
    inspector = inspector if product is None else inspector.of(product)
    if rate is not None:
        return inspector.at(rate)
    return inspector if score is None else inspector.with_threshold(score)


def on_cluster(
    inspector: Inspector, address: str, threads: int | None, device: str, written: Path | None = None
) -> Inspector:
    """The same inspector on the Ray cluster at `address`; each worker has `threads` cores, or a GPU."""
    from okng.cluster.inspector import ClusterInspector

    if written is not None:
        check_writable(written / "part.parquet", "--parquet")
    return ClusterInspector(inspector, address, threads or 1, device not in ("cpu", "auto"), written)


def unrun(path: Path) -> Inspector:
    """The model at `path` with nothing to run it by: its threshold and rules need neither PyTorch nor an engine."""
    from okng.inspection.engines import OnnxEngine, StoredDetector
    from okng.inspection.inspector import Inspector
    from okng.inspection.model_file import read_model
    from okng.inspection.onnx_file import read_onnx

    path = path.expanduser()
    if path.suffix == ".onnx":
        manifest, arrays, graph = read_onnx(path)
        return Inspector.from_file(OnnxEngine(graph), manifest, arrays)
    manifest, tensors = read_model(path)
    return Inspector.from_file(StoredDetector(tensors), manifest, tensors)


def threshold_lines(inspector: Inspector, digits: int = 6) -> list[str]:
    """Each threshold with its promise, as lines for a person."""
    if inspector.product is None and inspector.products:
        return [
            f"{name}: {line}" for name in inspector.products for line in threshold_lines(inspector.of(name), digits)
        ]
    return [f"threshold {inspector.calibration.threshold:.{digits}g}: {inspector.promise()}"]


def calibrations_json(inspector: Inspector) -> dict[str, Any]:
    """The calibration as JSON values; of several products each by its name, under "products"."""
    if inspector.product is None and inspector.products:
        return {"products": {name: inspector.calibrations[name].to_json() for name in inspector.products}}
    of = {} if inspector.product is None else {"product": inspector.product}
    return {**of, **inspector.calibration.to_json()}


def check_writable(path: Path, option: str = "-o", example: str = "parts.okng") -> None:
    """Find out before long work, not after it, that `path`, which `option` named, can't be written."""
    if (url := url_of(path)) is not None:
        from okng.inspection.storage import stored

        stored.check_writable(url)
        return
    if path.is_dir():
        raise OkngError(f"{path} is a folder; give {option} a file such as {path / example}")
    try:
        nearest = next(folder for folder in path.parents if folder.exists())
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        raise OkngError(f"{path} can't be written: {error.strerror or error}; choose another {option}") from error
    if path.exists() and not path.is_file():
        raise OkngError(f"{path} is a device or a pipe; give {option} the name of a file")
