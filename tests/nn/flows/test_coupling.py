"""Flows lead back exactly, and the volumes they report are those of their Jacobians."""

from __future__ import annotations

import math

import pytest
import torch
from tests.nn.flows.exactness import assert_flow, disturbed
from torch import Tensor, nn

from okng.errors import OkngError
from okng.nn.flows.coupling import (
    AffineCoupling,
    Flow,
    GlobalAffine,
    Permutation,
    Rotation,
    Sequence,
    all_in_one,
    bounded,
    surprise,
)


def network(seen: int, given: int) -> nn.Module:
    return nn.Sequential(nn.Linear(seen, 8), nn.Tanh(), nn.Linear(8, given))


def convolutions(seen: int, given: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(seen, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, given, 3, padding=1))


def blocks() -> dict[str, tuple[Flow, tuple[int, ...], int]]:
    """Each with the shape of an x and the channels of a condition."""
    torch.manual_seed(0)
    return {
        "atan": (AffineCoupling(5, network(3, 4), 3.0, "atan"), (5,), 0),
        "tanh": (AffineCoupling(5, network(3, 4), 1.9, "tanh"), (5,), 0),
        "first": (AffineCoupling(5, network(2, 6), 3.0, "atan", first=True), (5,), 0),
        "conditional": (AffineCoupling(4, network(2 + 3, 4), 1.9, "tanh"), (4,), 3),
        "map": (AffineCoupling(3, convolutions(2, 2), 2.0, "tanh"), (3, 2, 3), 0),
        "permutation": (Permutation(5), (5, 2, 2), 0),
        "rotation": (Rotation(5), (5,), 0),
        "global": (GlobalAffine(4), (4, 2, 3), 0),
        "all in one": (
            Sequence(*[all_in_one(3, convolutions, 2.0, Permutation) for _ in range(3)]), (3, 2, 3), 0,
        ),
        "all in one, vectors": (
            Sequence(*[all_in_one(4, lambda s, g: network(s + 2, g), 1.9, Rotation) for _ in range(3)]), (4,), 2,
        ),
    }  # fmt: skip


@pytest.mark.parametrize("name", blocks())
def test_each_block_is_an_exact_flow(name: str) -> None:
    flow, shape, conditions = blocks()[name]
    assert_flow(disturbed(flow), shape, (conditions, *shape[1:]) if conditions else None)


def test_scales_stay_within_their_clamp() -> None:
    raw = torch.tensor([[-1e6, 1e6, 0.0, 3.0, 7.0, 0.0, 1.0, 2.0]])  # four log-scales, four shifts
    log_scale, shift = bounded(raw, 3.0, "atan")
    torch.testing.assert_close(log_scale, torch.tensor([[-3.0, 3.0, 0.0, 1.5]]), rtol=0, atol=1e-4)
    assert torch.equal(shift, raw[:, 4:])
    log_scale, shift = bounded(raw, 2.0, "tanh")
    torch.testing.assert_close(log_scale, torch.tensor([[-2.0, 2.0, 0.0, 2 * math.tanh(0.3)]]))
    torch.testing.assert_close(shift, raw[:, 4:] / 10)


def test_the_passive_half_stays() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 5)
    z, _ = AffineCoupling(5, network(3, 4), 3.0, "atan")(x)
    assert torch.equal(z[:, :3], x[:, :3]) and (z[:, 3:] != x[:, 3:]).all()
    z, _ = AffineCoupling(5, network(2, 6), 3.0, "atan", first=True)(x)
    assert torch.equal(z[:, 3:], x[:, 3:]) and (z[:, :3] != x[:, :3]).all()


def test_the_global_scale_starts_as_one() -> None:
    x = torch.randn(2, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    z, log_determinant = GlobalAffine(3)(x)
    torch.testing.assert_close(z, x, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(log_determinant, torch.zeros(2), rtol=0, atol=1e-5)


def test_mixings_are_drawn_once_and_kept() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 16)
    for kind in (Permutation, Rotation):
        one, other = kind(16), kind(16)
        assert not torch.equal(one(x)[0], other(x)[0])
        other.load_state_dict(one.state_dict())
        assert torch.equal(one(x)[0], other(x)[0])
        torch.testing.assert_close(one(x)[0].norm(dim=1), x.norm(dim=1))
    assert sorted(Permutation(16).order.tolist()) == list(range(16))
    assert (Rotation(16).matrix.abs() > 0.9).sum() == 0  # mixes: no axis goes to another


def test_surprise_is_the_density_of_the_library() -> None:
    z = torch.randn(3, 2, 4, generator=torch.Generator().manual_seed(0))
    volume = torch.tensor([0.0, 1.0, -2.0])
    expected = -torch.distributions.Normal(0, 1).log_prob(z).sum((1, 2)) - volume
    torch.testing.assert_close(surprise(z, volume), expected)


def test_a_flow_is_a_density() -> None:
    """What exp(-surprise) integrates to over the plane is 1."""
    torch.manual_seed(0)
    flow = disturbed(Sequence(*[all_in_one(2, network, 1.9, Rotation) for _ in range(2)])).double()
    axis = torch.linspace(-12, 12, 241, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)  # (241², 2)
    with torch.no_grad():
        density: Tensor = (-surprise(*flow(grid))).exp()
    assert float(density.sum()) * 0.1**2 == pytest.approx(1, abs=0.01)


def test_one_channel_is_no_flow() -> None:
    with pytest.raises(OkngError, match="two channels or more"):
        all_in_one(1, network, 1.9, Permutation)
