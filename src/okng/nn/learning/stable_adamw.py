"""StableAdamW: AdamW whose steps shrink where a gradient is larger than its second moment knows."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class StableAdamW(Optimizer):
    """AdamW, the rate of each tensor divided by the root mean square of its g² / v where that is above 1.

    Wortsman et al., "Stable and Low-Precision Training for Large-Scale Vision-Language Models", NeurIPS 2023, algorithm
    2: Adafactor's update clipping in AdamW. With `amsgrad` v never falls. Its states are tensors of each parameter.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-10,
        weight_decay: float = 1e-4,
        amsgrad: bool = False,
    ):
        super().__init__(params, {
            "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "amsgrad": amsgrad,
        })  # fmt: skip

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step, by the gradients that are there."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self.move(parameter, parameter.grad, group)
        return loss

    def move(self, parameter: Tensor, slope: Tensor, group: dict[str, Any]) -> None:
        """Take the step of one tensor with this gradient."""
        state, (beta1, beta2), eps = self.state[parameter], group["betas"], group["eps"]
        if not state:
            state |= {"step": torch.zeros(()), "first": torch.zeros_like(slope), "second": torch.zeros_like(slope)}
            if group["amsgrad"]:
                state["largest"] = torch.zeros_like(slope)
        state["step"] += 1
        step = float(state["step"])
        state["first"].lerp_(slope, 1 - beta1)
        state["second"].mul_(beta2).addcmul_(slope, slope, value=1 - beta2)
        if group["amsgrad"]:
            torch.maximum(state["largest"], state["second"], out=state["largest"])
        second = state["largest" if group["amsgrad"] else "second"] / (1 - beta2**step)
        rms = slope.square().div_(second.clamp(min=eps**2)).mean().sqrt_()
        rate = group["lr"] / rms.clamp_(min=1)  # a tensor: a GPU need not be waited for
        parameter.mul_(1 - rate * group["weight_decay"])
        parameter.sub_(rate * (state["first"] / (1 - beta1**step)) / second.sqrt_().add_(eps))
