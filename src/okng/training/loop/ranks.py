"""Several processes that train one detector: each learns from its rows of the same batches, all take the same steps.

A loss is taken for the mean of what it is of each image: then the mean of the processes' gradients, weighted by their
rows, is the gradient of the whole batch. One that compares images of a batch compares those of a process.
"""

from __future__ import annotations

import atexit
import hashlib
import json
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import TorchElasticEnvironment  # type: ignore[attr-defined]
from lightning_fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from okng.errors import OkngError, in_one_line, no_device
from okng.nn.features.backbones import Backbone
from okng.nn.learning.processes import Processes, sharing
from okng.training.loop.frozen import is_frozen, versions

HOW = (
    "start it by `torchrun --nproc-per-node DEVICES --nnodes NODES`, or one machine's by `okng train --devices DEVICES`"
)
DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = {"f32": "32-true", "bf16": "bf16-mixed", "f16": "16-mixed"}  # as Fabric calls them, which will do too


class Gone(OkngError):
    """The other processes of a fit are no more."""


def check_ranks(devices: int, nodes: int) -> int:
    """The number of this process among `devices` × `nodes`; `OkngError` unless torchrun has started so many."""
    if devices < 1 or nodes < 1:
        raise OkngError(f"devices and nodes are whole numbers from 1 on, not {devices} and {nodes}")
    if devices * nodes == 1:
        return 0
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if started != devices * nodes:
        raise OkngError(f"{devices} devices on {nodes} nodes need {devices * nodes} processes, not {started}: {HOW}")
    return int(os.environ["RANK"])


def check_device(device: str, precision: str) -> None:
    """`OkngError` for a device that this machine lacks, and for a precision that there is not."""
    if device not in DEVICES:
        several = "; CUDA_VISIBLE_DEVICES says which of several GPUs" * str(device).startswith("cuda")
        raise OkngError(f"device is {', '.join(DEVICES[:-1])} or {DEVICES[-1]}, not {device!r}{several}")
    if precision not in (*PRECISIONS, *PRECISIONS.values()):
        raise OkngError(f"precision is {', '.join(list(PRECISIONS)[:-1])} or {list(PRECISIONS)[-1]}, not {precision!r}")
    here = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not here.get(device, True):
        raise no_device(device, RuntimeError("PyTorch sees none here"))


def fabric_of(device: str, precision: Any, devices: int, nodes: int) -> Fabric:
    """Lightning Fabric on this process' device; `join` has it meet the others."""
    check_device(device, precision)
    several: dict[str, Any] = {"devices": 1}
    if devices * nodes > 1:
        logging.getLogger("lightning_utilities.core.rank_zero").setLevel(logging.WARNING)  # that it begins is ours
        logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
        several = {
            "devices": devices, "num_nodes": nodes, "strategy": "ddp", "plugins": [TorchElasticEnvironment()],
        }  # fmt: skip
    try:
        return Fabric(accelerator=device, precision=precision, **several)
    except (RuntimeError, ValueError, ImportError, MisconfigurationException) as error:
        raise no_device(device, error) from error


def join(fabric: Fabric, devices: int, nodes: int) -> None:
    """Meet the other processes, if there are any; `OkngError` where they don't find each other."""
    if devices * nodes == 1:
        return
    try:
        fabric.launch()
    except (RuntimeError, ValueError, OSError) as error:
        raise OkngError(f"the processes of this fit do not find each other ({in_one_line(error)}): {HOW}") from error
    atexit.register(_leave)


def _leave() -> None:
    """End the threads that talk to the others: at the program's end they may still run, and abort it (signal 6)."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


class Ranks:
    """The processes of a fit: this one's number `rank` among `count`. With one all is as if they weren't there."""

    def __init__(self, fabric: Fabric):
        self.rank, self.count = fabric.global_rank, fabric.world_size
        self._device = fabric.device
        self._weight, self._together = 1.0, False
        self._agreed: dict[int, list[Any]] = {}  # of frozen backbones, their `versions` when all had the same

    def share(self, batch: list[int]) -> list[int]:
        """The rows of a batch that this process learns from; with fewer rows than processes all of them."""
        if len(batch) < self.count:
            return batch
        return [batch[i] for i in range(len(batch)) if i * self.count // len(batch) == self.rank]

    def take(self, batch: list[int]) -> None:
        """Begin the step on `batch`, of which `share` is learnt here."""
        self._together = 1 < self.count <= len(batch)
        self._weight = len(self.share(batch)) / len(batch) if len(batch) >= self.count else 1 / self.count

    def mean(self, values: Tensor) -> Tensor:
        """The mean over all images of the step of `values`, which are means over those here."""
        return values if self.count == 1 else self._sum(values.float() * self._weight)

    def part(self, loss: Tensor) -> Tensor:
        """What this process adds to the whole batch's loss; batch normalisation takes gradients from one to another."""
        return loss if self.count == 1 else loss * self._weight

    def add_gradients(self, optimizer: Optimizer) -> None:
        """Sum its parameters' gradients over the processes; one that no process has stays none."""
        if self.count == 1:
            return
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        flags = torch.tensor([float(p.grad is not None) for p in parameters], device=self._device)
        flat = [torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in parameters]
        summed = self._sum(torch.cat([flags, *flat]))
        at = len(parameters)
        for parameter, there in zip(parameters, summed[:at].tolist(), strict=True):
            if there:
                parameter.grad = summed[at : at + parameter.numel()].view_as(parameter).to(parameter.dtype)
            at += parameter.numel()

    def agree(self, module: nn.Module) -> None:
        """Give all processes the tensors of the first one; a frozen backbone's only once something has written to them.

        Whether something has, in any of the processes, all have to know: so they ask each other.
        """
        if self.count == 1:
            return
        parts = list(module.named_modules())
        frozen = [(name, part) for name, part in parts if isinstance(part, Backbone) and is_frozen(part)]
        written = [int(self._agreed.get(id(part)) != versions(part)) for _, part in frozen]
        with torch.no_grad(), _told():
            if frozen:
                told = torch.tensor(written, device=self._device)
                distributed.all_reduce(told, distributed.ReduceOp.MAX)
                written = told.tolist()
            as_agreed = tuple(
                f"{name}." * bool(name) for (name, _), now in zip(frozen, written, strict=True) if not now
            )
            for name, tensor in sorted(module.state_dict().items()):
                if tensor.numel() and not name.startswith(as_agreed):
                    content = tensor.contiguous()
                    distributed.broadcast(content.flatten().view(torch.uint8), 0)
                    tensor.copy_(content)
        self._agreed |= {id(part): versions(part) for _, part in frozen}

    def check_same(self, told: Any) -> None:
        """`OkngError` unless all processes were `told` the same: images, their order, arguments."""
        if self.count == 1:
            return
        digest = hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).digest()
        mine = torch.tensor([int.from_bytes(digest[:7], "big")], device=self._device)
        least, most = mine.clone(), mine.clone()
        with _told():
            distributed.all_reduce(least, distributed.ReduceOp.MIN)
            distributed.all_reduce(most, distributed.ReduceOp.MAX)
        if not torch.equal(least, most):
            raise OkngError(
                "the processes of this fit were given other images, or in another order, or other arguments; "
                "see that all machines read the same folder"
            )

    def wait(self) -> None:
        """Until all are here."""
        if self.count > 1:
            with _told():
                distributed.barrier()

    def seed(self) -> None:
        """From here on draw what no other process draws; the first draws what one alone would."""
        if self.rank:
            torch.manual_seed((torch.initial_seed() + 2_654_435_761 * self.rank) % (1 << 63))

    @contextmanager
    def gathering(self) -> Iterator[None]:
        """Within, `processes` are those that have parts of the batch: this one alone where each has all of it."""
        with sharing(Processes(self.rank, self.count, self._sum) if self._together else Processes()):
            yield

    @contextmanager
    def normalising(self, modules: Sequence[nn.Module]) -> Iterator[None]:
        """Batch normalisation in `modules` is by all images of a step, wherever they are."""
        found = {layer for module in modules for layer in module.modules() if isinstance(layer, _BatchNorm)}
        layers = found if self.count > 1 else set()
        for layer in layers:
            layer.forward = partial(self._normalised, layer, layer.forward)  # type: ignore[method-assign]
        try:
            yield
        finally:
            for layer in layers:
                del layer.forward

    def _normalised(self, layer: _BatchNorm, alone: Any, values: Tensor) -> Tensor:
        """Of (B, C, …) what `layer` makes of the whole batch."""
        result: Tensor
        if not (layer.training and self._together):
            result = alone(values)
            return result
        over = [0, *range(2, values.ndim)]
        with torch.autocast(values.device.type, enabled=False):
            x = values.float()
            count = torch.tensor([x.numel() / x.shape[1]], device=x.device)
            sums = _All.apply(torch.cat([x.sum(over), count]))  # (C + 1,)
            count = sums[-1].detach()
            mean = (sums[:-1] / count).view(1, -1, *[1] * (x.ndim - 2))  # (1, C, 1…)
            variance = _All.apply((x - mean).square().sum(over)) / count  # (C,)
            made = (x - mean) * torch.rsqrt(variance.view_as(mean) + layer.eps)
            if layer.affine:
                made = made * layer.weight.view_as(mean) + layer.bias.view_as(mean)
        if layer.track_running_stats and layer.running_mean is not None and layer.running_var is not None:
            with torch.no_grad():
                seen = layer.num_batches_tracked
                if seen is not None:
                    seen += 1
                new = layer.momentum if layer.momentum is not None else 1 / float(seen or 1)
                layer.running_mean.lerp_(mean.detach().flatten(), new)
                layer.running_var.lerp_(variance.detach() * count / (count - 1), new)
        result = made.to(values.dtype)
        return result

    def _sum(self, values: Tensor) -> Tensor:
        with _told():
            distributed.all_reduce(values)
        return values


class _All(torch.autograd.Function):
    """The sum over the processes, and of the gradients too."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        """`values` of all, summed."""
        summed: Tensor = values.clone(memory_format=torch.contiguous_format)
        with _told():
            distributed.all_reduce(summed)
        return summed

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        """Each process' sum depends on these values."""
        summed: Tensor = _All.apply(gradient)
        return summed


@contextmanager
def _told() -> Iterator[None]:
    """An error between processes says that one of them has ended."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise Gone(
            f"another process of this fit has ended; the same command with --resume goes on ({error})"
        ) from error
