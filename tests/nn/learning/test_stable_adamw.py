"""AdamW where gradients are as they were; a gradient that is suddenly larger takes a smaller step."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from okng.nn.learning.stable_adamw import StableAdamW


def steps(optimizer: type[torch.optim.Optimizer], slopes: list[float], **more: object) -> list[Tensor]:
    """A weight of three numbers after each step with these slopes, times 1, 2 and 3."""
    weight, found = torch.nn.Parameter(torch.tensor([1.0, -2.0, 3.0])), []
    descent = optimizer([weight], lr=0.1, weight_decay=0.2, eps=1e-10, **more)  # type: ignore[call-arg]
    for slope in slopes:
        weight.grad = slope * torch.tensor([1.0, 2.0, 3.0])
        descent.step()
        found.append(weight.detach().clone())
    return found


@pytest.mark.parametrize("amsgrad", [False, True])
def test_of_gradients_that_do_not_grow_it_is_adamw(amsgrad: bool) -> None:
    slopes = [1.0, -0.9, 0.8, 0.5, -0.1]
    for ours, torchs in zip(
        steps(StableAdamW, slopes, amsgrad=amsgrad), steps(torch.optim.AdamW, slopes, amsgrad=amsgrad), strict=True
    ):
        torch.testing.assert_close(ours, torchs)


def test_a_gradient_that_jumps_moves_less_by_how_far_it_jumps() -> None:
    slopes = [0.1, 0.1, 10.0]
    ours, torchs = steps(StableAdamW, slopes), steps(torch.optim.AdamW, slopes)
    torch.testing.assert_close(ours[1], torchs[1])
    second = (0.001 * (0.999**2 + 0.999) * 0.1**2 + 0.001 * 10**2) / (1 - 0.999**3)
    rms = (10**2 / second) ** 0.5
    assert rms > 1.7
    torch.testing.assert_close(ours[2] - ours[1], (torchs[2] - torchs[1]) / rms, rtol=1e-3, atol=1e-6)


def test_its_states_are_loaded_and_its_closure_is_asked() -> None:
    weights = [torch.nn.Parameter(torch.ones(2)) for _ in range(2)]
    first, second = (StableAdamW([weight], lr=0.1, amsgrad=True) for weight in weights)

    def descend(weight: torch.nn.Parameter, optimizer: StableAdamW) -> float:
        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = weight.square().sum()
            loss.backward()
            return loss

        return float(optimizer.step(closure).detach())

    assert descend(weights[0], first) == 2.0
    weights[1].data.copy_(weights[0].data)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    assert descend(weights[0], first) == descend(weights[1], second) and torch.equal(weights[0], weights[1])
