"""What every flow must show: it leads back exactly, and its volume is that of its Jacobian."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn

from okng.nn.flows.coupling import Flow

Module = TypeVar("Module", bound=nn.Module)


def disturbed(module: Module, by: float = 0.3, seed: int = 0) -> Module:
    """`module` with noise on its parameters, as if trained: at its start a flow may be the identity."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += by * torch.randn(parameter.shape, generator=generator)
    return module


def assert_flow(flow: Flow, shape: tuple[int, ...], condition: tuple[int, ...] | None = None) -> None:
    """On three random x of `shape` (C, ...) and conditions: inverse within 1e-4 in float32 and 1e-9 in float64, and
    the log-determinant that of the Jacobian by autograd.
    """
    generator = torch.Generator().manual_seed(1)
    for dtype, tolerance in ((torch.float32, 1e-4), (torch.float64, 1e-9)):
        one = copy.deepcopy(flow).to(dtype)
        x = torch.randn(3, *shape, generator=generator, dtype=dtype)
        known = None if condition is None else torch.randn(3, *condition, generator=generator, dtype=dtype)
        with torch.no_grad():
            z, log_determinant = one(x, known)
            back = one.inverse(z, known)
        assert z.shape == x.shape and log_determinant.shape == (3,)
        torch.testing.assert_close(back, x, rtol=0, atol=tolerance)
    for row in range(3):
        beside = None if known is None else known[row : row + 1]

        def alone(flat: Tensor, beside: Tensor | None = beside) -> Tensor:
            return one(flat.view(1, *shape), beside)[0].flatten()

        jacobian = torch.autograd.functional.jacobian(alone, x[row].flatten())
        torch.testing.assert_close(log_determinant[row], torch.linalg.slogdet(jacobian)[1], rtol=1e-6, atol=1e-6)
