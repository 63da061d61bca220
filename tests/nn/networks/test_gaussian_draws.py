"""Draws and divergence against torch's distributions."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from okng.nn.networks.gaussian import divergence, sample, surprise


@pytest.mark.parametrize("shape", [(3, 5), (3, 5, 2, 4)])
def test_the_divergence_from_the_prior(shape: tuple[int, ...]) -> None:
    mean, log_variance = torch.randn(shape), torch.randn(shape)
    expected = kl_divergence(Normal(mean, (log_variance / 2).exp()), Normal(0.0, 1.0)).flatten(1).sum(1)
    torch.testing.assert_close(divergence(mean, log_variance), expected)


def test_draws_have_the_mean_and_the_variance_and_give_both_a_gradient() -> None:
    torch.manual_seed(0)
    mean = torch.full((100_000,), 3.0, requires_grad=True)
    log_variance = torch.full((100_000,), 4.0).log().requires_grad_()
    drawn = sample(mean, log_variance)
    assert abs(float(drawn.detach().mean()) - 3) < 0.03 and abs(float(drawn.detach().std()) - 2) < 0.03
    drawn.square().sum().backward()
    assert mean.grad is not None and mean.grad.any() and log_variance.grad is not None and log_variance.grad.any()


def test_the_surprise_is_the_density_s() -> None:
    values, mean, log_variance = (torch.randn(3, 2, 4, 5) for _ in range(3))
    wanted = -Normal(mean, (log_variance / 2).exp()).log_prob(values)
    torch.testing.assert_close(surprise(values, mean, log_variance), wanted)
