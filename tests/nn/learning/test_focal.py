"""The focal loss against its formula, and where likelihoods are 0 or 1 to rounding."""

from __future__ import annotations

import math

import pytest
import torch

from okng.nn.learning.focal import focal_loss


def test_it_is_the_formula_of_either_kind() -> None:
    logits, odd = torch.tensor([0.7, 0.7, -2.0]), torch.tensor([True, False, True])
    p = [1 / (1 + math.exp(-z)) for z in (0.7, -0.7, -2.0)]
    wanted = [(1 - q) ** 4 * -math.log(q) for q in p]
    assert focal_loss(logits, odd, 4).tolist() == pytest.approx(wanted, rel=1e-5)
    assert torch.equal(focal_loss(logits, odd.float(), 4), focal_loss(logits, odd, 4))


def test_without_focus_it_is_the_cross_entropy_and_extremes_have_finite_gradients() -> None:
    logits = torch.tensor([-200.0, 0.3, 200.0], requires_grad=True)
    odd = torch.tensor([1, 1, 0])
    assert focal_loss(logits, odd, 0).tolist() == pytest.approx([200, math.log1p(math.exp(-0.3)), 200])
    for told in (odd, 1 - odd):
        focal_loss(logits, told, 2).sum().backward()
    assert logits.grad is not None and logits.grad.isfinite().all()
