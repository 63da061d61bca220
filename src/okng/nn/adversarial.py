"""What two networks that train against each other need."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from okng.errors import OkngError


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Within, what is computed passes gradients through `module` but gives its parameters none."""
    module.requires_grad_(False)
    try:
        yield
    finally:
        module.requires_grad_(True)


def bounded(losses: dict[str, Tensor], limit: float) -> dict[str, Tensor]:
    """The `losses`, unless one is beyond `limit`: adversarial training that has run away stays finite for long."""
    for name, loss in losses.items():
        if abs(float(loss.detach())) > limit:
            raise OkngError(
                f"the adversarial training diverged (its loss {name!r} is {float(loss.detach()):.3g}); "
                "nothing was saved: try a smaller learning rate or another --seed"
            )
    return losses
