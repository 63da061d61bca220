"""The lab's engine: a fitted detector run by PyTorch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import init
from torch.overrides import TorchFunctionMode

from okng.detectors.base import Detector
from okng.detectors.catalogue import create, detector_class, name_of, parameters
from okng.errors import OkngError, no_device
from okng.inspection.engines import check_threads
from okng.inspection.inspector import Inspector
from okng.inspection.model_file import check_ending, write_model


class TorchEngine:
    """Scores uint8 pixels with `detector` on `device`: "cpu", "cuda", "mps", or "auto", the best there is.

    Any number of threads may call it, and it can be copied and pickled. On CUDA it computes in full float32, as
    `full_float32` says.
    """

    def __init__(self, detector: Detector, device: str = "cpu", threads: int | None = None):
        check_threads(threads)
        self.threads = threads
        device = best_device() if device == "auto" else device
        if threads is not None:
            torch.set_num_threads(threads)  # of the whole process
        try:
            self.detector = detector.eval().to(device)
        except (RuntimeError, AssertionError) as error:
            raise no_device(device, error) from error
        self.device = torch.device(device)

    def __call__(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Raw scores (B,) and maps (B, h, w), if any, of uint8 `pixels` (B, H, W, C)."""
        images = torch.from_numpy(pixels).to(self.device).permute(0, 3, 1, 2).float() / 255  # (B, C, H, W)
        with torch.no_grad(), full_float32(self.device):
            scores = self.detector(images)
        return scores.image.cpu().numpy(), None if scores.map is None else scores.map.cpu().numpy()

    def __reduce__(self) -> tuple[Any, ...]:
        """Made anew where it is unpickled, so that another process keeps to `threads` too."""
        return type(self), (self.detector, str(self.device), self.threads)

    def write(self, path: Path, manifest: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        """Write the .okng file. Frozen networks are in it too: a file needs nothing but okng."""
        check_ending(path)
        state = {f"detector.{k}": v.cpu().numpy() for k, v in self.detector.state_dict().items()}
        write_model(path, manifest, {**state, **arrays})


def best_device() -> str:
    """Either "cuda" or "mps" where there is a GPU, else "cpu"."""
    return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"


class _Switches:
    """torch's switches for short numbers on CUDA, one set for the whole process, and how many blocks keep them off."""

    def __init__(self) -> None:
        cuda, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
        self.off: list[tuple[Any, str, Any]] = [(cuda, "allow_tf32", False), (cudnn, "allow_tf32", False)]
        if hasattr(cudnn, "conv"):  # from torch 2.9 on; the old ones can't be read where a program has set these
            self.off = [(part, "fp32_precision", "ieee") for part in (cuda, cudnn.conv, cudnn.rnn)]
        self.before: list[Any] = []
        self.blocks, self.lock = 0, Lock()

    def enter(self) -> None:
        """Turn them off, for the first block."""
        with self.lock:
            self.blocks += 1
            if self.blocks == 1:
                self.before = [getattr(part, name) for part, name, _ in self.off]
                for part, name, value in self.off:
                    setattr(part, name, value)

    def leave(self) -> None:
        """Put back what was there, after the last block."""
        with self.lock:
            self.blocks -= 1
            if self.blocks == 0:
                for (part, name, _), value in zip(self.off, self.before, strict=True):
                    setattr(part, name, value)


_switches = _Switches()


@contextmanager
def full_float32(device: torch.device) -> Iterator[None]:
    """Within it, convolutions and matrix products on CUDA keep float32's 24 bits, whatever the program has chosen.

    torch gives convolutions 11 unless it is told, and products where it is. A model then says on a GPU what it says on
    a CPU. With 11 bits the maps of methods that follow a gradient (AnoGAN, DifferNet, MKD) came out up to a fifth
    apart. The switches are the process's: other threads have them too meanwhile, and the last of them to leave such a
    block puts back what was there.
    """
    if device.type != "cuda":
        yield
        return
    _switches.enter()
    try:
        yield
    finally:
        _switches.leave()


def load_torch(
    path: Path,
    manifest: dict[str, Any],
    tensors: dict[str, np.ndarray],
    device: str = "cpu",
    threads: int | None = None,
    kind: type[Detector] | None = None,
) -> Inspector:
    """The inspector stored in a model file, run by PyTorch; `path` is for messages, `kind` a class handed over."""
    described = manifest.get("detector", {})
    name, arguments = _name_in_file(path, described.get("name", ""), kind), dict(described.get("arguments", {}))
    detector = rebuild(name, arguments)
    prefix = "detector."
    state = {k[len(prefix) :]: torch.from_numpy(v) for k, v in tensors.items() if k.startswith(prefix)}
    try:
        detector.load_tensors(state)
    except (RuntimeError, AttributeError) as error:
        raise OkngError(f"{path} does not fit this okng's {name}; fit again, or use the okng that made it") from error
    manifest = {**manifest, "detector": {"name": name, "arguments": detector.arguments}}
    return Inspector.from_file(TorchEngine(detector, device, threads), manifest, tensors)


def _name_in_file(path: Path, stored: str, kind: type[Detector] | None) -> str:
    """The name of the detector to build: what the file says, if okng knows it, or that of the class handed over.

    A file may have been made by anyone, so a module that it names is never imported.
    """
    try:
        known = name_of(stored)
    except OkngError as error:
        if kind is None:
            raise OkngError(
                f"{path} was fitted by {stored!r}, which this okng does not have; install the package that brings it, "
                "or hand its class over: okng.load(path, detector=CLASS)"
            ) from error
        known = stored
    if kind is None:
        return known
    name = name_of(kind)
    if name != known and name.rpartition(":")[2] != known.rpartition(":")[2]:
        raise OkngError(f"{path} was fitted by {known}, not by {name}; leave out detector, or hand over that class")
    return name


def rebuild(name: str, arguments: dict[str, Any]) -> Detector:
    """An unfitted detector for a stored state; pretrained weights are not looked for, they are in the state."""
    arguments = detector_class(name).stored_arguments(arguments)
    unweighted = {"weights": "none"} if "weights" in parameters(name) else {}
    with _OwnDraws():
        detector = create(name, **{**arguments, **unweighted})
    detector.arguments |= {"weights": arguments["weights"]} if "weights" in arguments else {}
    return detector


class _OwnDraws(TorchFunctionMode):
    """Within it, in this thread, what fills tensors at random draws from a generator of its own.

    The numbers don't matter, a stored state replaces them. But torch's generator may at that time be a fit's, in
    another thread, whose seed would no longer decide.
    """

    DRAWS: ClassVar[set[Any]] = {
        torch.rand, torch.randn, torch.randint, torch.randperm, torch.normal,
        Tensor.uniform_, Tensor.normal_, Tensor.bernoulli_,
        init.uniform_, init.normal_, init.trunc_normal_, init.kaiming_uniform_, init.kaiming_normal_,
        init.xavier_uniform_, init.xavier_normal_,
    }  # fmt: skip

    def __init__(self) -> None:
        super().__init__()
        self.generator = torch.Generator()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """`func` as it is, drawing from the own generator unless it was given one."""
        named = dict(kwargs or {})
        if func in self.DRAWS and named.get("generator") is None:
            named["generator"] = self.generator
        return func(*args, **named)
