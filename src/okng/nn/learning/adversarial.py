"""What two networks that train against each other need."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from okng.errors import diverged


@contextmanager
def frozen(*modules: nn.Module) -> Iterator[None]:
    """Within, what is computed passes gradients through `modules` but gives their parameters none."""
    learning = [p for module in modules for p in module.parameters() if p.requires_grad]
    for parameter in learning:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)


@contextmanager
def judging_only(*modules: nn.Module) -> Iterator[None]:
    """Within, `modules` are frozen and in eval mode."""
    before = [(part, part.training) for module in modules for part in module.modules()]
    for module in modules:
        module.eval()
    try:
        with frozen(*modules):
            yield
    finally:
        for part, training in before:
            part.training = training


def bounded(losses: dict[str, Tensor], limit: float) -> dict[str, Tensor]:
    """The `losses`, unless one is beyond `limit`: adversarial training that has run away stays finite for long."""
    for name, loss in losses.items():
        if abs(float(loss.detach())) > limit:
            raise diverged("the adversarial training diverged", f"its loss {name!r} is {float(loss.detach()):.3g}")
    return losses
