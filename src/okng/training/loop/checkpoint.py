"""What a fit leaves on its way, so that one that was killed goes on and ends as if it had not been."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim import Optimizer

from okng.detectors.base import Collect, Detector, Train
from okng.errors import OkngError
from okng.inspection.model_file import read_model, write_model
from okng.nn.features.backbones import Backbone
from okng.training.loop.frozen import is_frozen, versions
from okng.training.progress import Narrator


class StaleCheckpoint(OkngError):
    """A checkpoint that another fit left."""


@dataclass
class Standing:
    """How a training phase stands after an epoch.

    The mean loss of the `first` epoch and how far its batches' losses lie `apart`, the `lowest` validation, and the
    detector's tensors at the `best` epoch.
    """

    first: float | None = None
    apart: float = 0.0
    lowest: float | None = None
    best: dict[str, Tensor] = field(default_factory=dict)


class Checkpoint:
    """The detector's tensors, the optimisers' tensors, and where in the phases we are, in a file `path`, if any.

    Frozen backbones are left out as long as they are what the detector was built with. `told`: all else that must be
    the same for a fit to go on, as JSON. `compiling`: which frozen backbones are, as `FrozenBackbones` has it; it is
    told what a fit had decided that goes on. `history`: a row for each epoch of the training phases so far.
    """

    def __init__(
        self,
        path: Path | None,
        detector: Detector,
        fabric: Fabric,
        told: Sequence[Any],
        compiling: dict[str, bool],
        tell: Narrator,
    ):
        self.path, self.detector, self.fabric, self.tell = path, detector, fabric, tell
        self.compiling = compiling
        self.history: list[dict[str, Any]] = []
        self.stored: dict[str, Any] = {}  # what is gone on with
        self.tensors: dict[str, Tensor] = {}
        self.frozen: dict[str, str] = {}  # a digest of each frozen backbone as it was built
        self.known: dict[str, list[Any]] = {}  # and its `versions` when it was last found to be that
        self.identity = ""
        if path is not None:
            frozen = {n: m for n, m in detector.named_modules() if isinstance(m, Backbone) and is_frozen(m)}
            self.frozen = {name: _digest(backbone) for name, backbone in frozen.items()}
            self.known = {name: versions(backbone) for name, backbone in frozen.items()}
            self.identity = hashlib.sha256(json.dumps([*told, self.frozen], sort_keys=True).encode()).hexdigest()

    def save(
        self, phase: int, epoch: int, optimizers: Sequence[Optimizer] = (), standing: Standing | None = None
    ) -> None:
        """Write where we are, if a checkpoint was asked for; after an epoch of a training phase, how that stands."""
        if self.path is None or self.fabric.global_rank:
            return
        standing = standing or Standing()
        tensors = {f"detector.{name}": tensor for name, tensor in self.learnt().items()}
        tensors |= {f"best.{name}": tensor for name, tensor in standing.best.items()}
        plain: list[Any] = []
        for i, optimizer in enumerate(optimizers):
            state = optimizer.state_dict()
            plain.append({"groups": state["param_groups"], "state": {}})
            for key, values in state["state"].items():
                for name, value in values.items():
                    if isinstance(value, Tensor):
                        tensors[f"optimizer.{i}.{key}.{name}"] = value
                    else:
                        plain[i]["state"].setdefault(str(key), {})[name] = value
        manifest = {
            "identity": self.identity, "phase": phase, "epoch": epoch, "optimizers": plain,
            "first": standing.first, "apart": standing.apart, "lowest": standing.lowest, "history": self.history,
            "compiling": self.compiling,
            "scaler": self.fabric.strategy.precision.state_dict(),  # of the losses, at 16-mixed
        }  # fmt: skip
        write_model(self.path, manifest, {name: t.detach().cpu().numpy() for name, t in tensors.items()})

    def learnt(self) -> dict[str, Tensor]:
        """The detector's tensors without those of frozen backbones that are as they were built."""
        left_out = tuple(f"{name}." for name, built in self.frozen.items() if self.is_as_built(name, built))
        return {name: tensor for name, tensor in self.detector.state_dict().items() if not name.startswith(left_out)}

    def is_as_built(self, name: str, built: str) -> bool:
        """Whether the backbone `name` has the digest `built`: taken anew only once something has written to it."""
        backbone = self.detector.get_submodule(name)
        now = versions(backbone)
        if self.known.get(name) != now and _digest(backbone) == built:
            self.known[name] = now
        return self.known.get(name) == now

    def restore(self) -> tuple[int, int]:
        """Read the checkpoint; the phase and the epoch to continue with."""
        assert self.path is not None
        self.stored, arrays = read_model(self.path)
        if self.stored.get("identity") != self.identity:
            raise StaleCheckpoint(
                f"{self.path} was begun with other settings or other images; "
                "give the same ones, or leave out --resume to begin anew"
            )
        self.tensors = {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}
        self.take_detector()
        self.history = self.stored["history"]
        self.compiling |= self.stored.get("compiling", {})
        phase, epoch = int(self.stored["phase"]), int(self.stored["epoch"])
        self.tell.say(f"going on from {self.path}: phase {phase + 1}, epoch {epoch + 1}")
        return phase, epoch

    def take_state(self, phase: Collect | Train) -> None:
        """Set the detector and, in the middle of a training phase, its optimisers to the stored state."""
        self.take_detector()
        if not isinstance(phase, Train) or not self.stored["optimizers"]:
            return
        self.fabric.strategy.precision.load_state_dict(self.stored["scaler"])
        for i, (update, plain) in enumerate(zip(phase.updates, self.stored["optimizers"], strict=True)):
            state: dict[int, dict[str, Any]] = {int(key): dict(values) for key, values in plain["state"].items()}
            for name, tensor in self._of(f"optimizer.{i}.").items():
                key, field = name.split(".", 1)
                state.setdefault(int(key), {})[field] = tensor
            update.optimizer.load_state_dict({"state": state, "param_groups": plain["groups"]})

    def take_detector(self) -> None:
        """Set the detector to the stored state."""
        self.put(self._of("detector."))

    def standing(self) -> Standing:
        """How the training phase stood that is gone on with."""
        stored = self.stored
        return Standing(stored["first"], stored.get("apart", 0.0), stored["lowest"], self._of("best."))

    def put(self, tensors: dict[str, Tensor]) -> None:
        """Set the detector to what `learnt` gave."""
        self.detector.load_tensors(self.detector.state_dict() | tensors)

    def _of(self, prefix: str) -> dict[str, Tensor]:
        return {name[len(prefix) :]: tensor for name, tensor in self.tensors.items() if name.startswith(prefix)}


def _digest(module: nn.Module) -> str:
    """What tells the values of a module's tensors from any others."""
    digest = hashlib.sha256()
    for tensor in module.state_dict().values():
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
