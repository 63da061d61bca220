"""What the comparisons of training share: their trainers run here, okng's phases gone through, and names."""

from __future__ import annotations

import ast
import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from same_weights import lively
from torch import Tensor, nn

from okng.detectors.base import Batch, Collect, Detector, Train


def steady(module: nn.Module) -> None:
    """Statistics and weights of the normalisations as after a training; the rest as it begins, for it is deep."""
    lively(*(layer for layer in module.modules() if isinstance(layer, nn.BatchNorm2d)))


def behind(names: dict[str, str], network: str = "", **others: str) -> dict[str, str]:
    """`names` of a network behind "network.", in theirs behind `network`; and of `others` by their okng names."""
    inner = {f"network.{mine}": network + one for mine, one in names.items()}
    return inner | {f"{mine}.": f"{one}." for mine, one in others.items()}


def shared(detector: Any, *names: str) -> nn.ModuleDict:
    """What of a detector theirs has, too."""
    return nn.ModuleDict({name: getattr(detector, name) for name in ("network", *names)})


@contextmanager
def here() -> Iterator[list[Tensor]]:
    """Theirs on this machine: without words, on the CPU, in the numbers given; and the losses it took gradients of."""
    losses: list[Tensor] = []
    backward = Tensor.backward

    def noted(loss: Tensor, *rest: Any, **more: Any) -> None:
        losses.append(loss.detach())
        backward(loss, *rest, **more)

    pandas = sys.modules.get("pandas")
    if isinstance(pandas, mock.Mock):
        del sys.modules["pandas"]  # scikit-learn would ask it
    with (
        redirect_stdout(io.StringIO()),
        mock.patch.object(Tensor, "backward", noted),
        mock.patch.object(Tensor, "cuda", lambda self, *_, **__: self),
        mock.patch.object(nn.Module, "cuda", lambda self, *_, **__: self),
        mock.patch.object(Tensor, "float", lambda self: self.to(torch.get_default_dtype())),
    ):
        yield losses
    if isinstance(pandas, mock.Mock):
        sys.modules["pandas"] = pandas


def gone_through(detector: Detector, batch: Batch) -> dict[str, Train]:
    """The phases that train, by their names and untrained; `detector` collects what the others do of `batch`."""
    detector.eval()
    training = {}
    for phase in detector.phases():
        if isinstance(phase, Collect):
            with torch.no_grad():
                phase.visit(batch)
                list(phase.finish() or ())
        else:
            training[phase.name] = phase
    return training


def stepped(phase: Train, batch: Batch, count: int, at_once: bool = False) -> None:
    """okng's training on one batch; `at_once`: all losses are of the weights before any network's step."""
    for _ in range(count):
        early = [update.loss(batch) if at_once else None for update in phase.updates]
        for update, losses in zip(phase.updates, early, strict=True):
            update.optimizer.zero_grad()
            told = losses or update.loss(batch)
            sum(told.values()).backward()  # type: ignore[union-attr]
            update.optimizer.step()


def written(script: Path, names: set[str], known: dict[str, Any], changes: dict[str, str] | None = None) -> Any:
    """The functions and classes `names` of a script that can't be imported, which see what is `known`.

    `changes`: what stands in its text, such as the side of an image, and what is read instead.
    """
    text = script.read_text(encoding="utf-8")
    for old, new in (changes or {}).items():
        text = text.replace(old, new)
    chosen = [
        node
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name in names
    ]
    exec(compile(ast.Module(chosen, []), str(script), "exec"), known)
    return SimpleNamespace(**{name: known[name] for name in names})
