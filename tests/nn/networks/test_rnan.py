from __future__ import annotations

import pytest
import torch
from torch import nn

from okng.nn.networks.rnan import RNAN, NonLocalBlock


def woken(block: NonLocalBlock) -> NonLocalBlock:
    nn.init.normal_(block.out.weight)
    return block


@pytest.mark.parametrize(("channels", "size"), [(1, (28, 28)), (3, (32, 32)), (1, (29, 35)), (3, (64, 40))])
def test_every_size_comes_back(channels: int, size: tuple[int, int]) -> None:
    network = RNAN(channels, filters=4, groups=2)
    assert network(torch.rand(2, channels, *size)).shape == (2, channels, *size)


def test_what_it_adds_passes_through_the_last_layer() -> None:
    network = RNAN(3, filters=4, groups=3)
    nn.init.zeros_(network.tail.weight)
    nn.init.zeros_(network.tail.bias)  # type: ignore[arg-type]
    images = torch.rand(2, 3, 16, 16)
    assert torch.equal(network(images), images)


def test_the_first_and_the_last_group_see_the_whole_image() -> None:
    network = RNAN(1, filters=4, groups=5)
    places = [name for name, module in network.named_modules() if isinstance(module, NonLocalBlock)]
    assert places == ["body.0.mask.wide.0", "body.5.mask.wide.0"]
    assert sum("mask.down.weight" in name for name, _ in network.named_parameters()) == 5


def test_paper_size() -> None:
    """64 filters and 10 groups on grey images, the size of its paper: 8,957 thousand parameters."""
    assert sum(p.numel() for p in RNAN(1).parameters()) == 8_957_249


def test_non_local_attention_is_its_formula() -> None:
    torch.manual_seed(0)
    block = woken(NonLocalBlock(6, grid=32))
    features = torch.randn(2, 6, 5, 7)
    query, key, value = (layer(features).flatten(2) for layer in (block.query, block.key, block.value))  # (B, 3, 35)
    weights = (query.mT @ key).softmax(2)  # (B, 35, 35)
    expected = features + block.out((value @ weights.mT).unflatten(2, (5, 7)))
    torch.testing.assert_close(block(features), expected)


def test_non_local_attention_starts_as_the_identity_and_then_reaches_far() -> None:
    torch.manual_seed(0)
    block = NonLocalBlock(4, grid=32)
    features = torch.randn(1, 4, 24, 24)
    assert torch.equal(block(features), features)
    changed = features.clone()
    changed[..., 0, 0] += 3
    assert not torch.equal(woken(block)(features)[..., -1, -1], block(changed)[..., -1, -1])


@pytest.mark.parametrize(("size", "keys"), [((32, 32), 32 * 32), ((33, 33), 17 * 17), ((96, 250), 12 * 32)])
def test_keys_are_pooled_beyond_the_grid(size: tuple[int, int], keys: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that memory does not grow with the square of the pixels."""
    seen = []
    attention = nn.functional.scaled_dot_product_attention

    def spy(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float) -> torch.Tensor:
        seen.append((query.shape[2], key.shape[2], value.shape[2]))
        return attention(query, key, value, scale=scale)

    monkeypatch.setattr(nn.functional, "scaled_dot_product_attention", spy)
    woken(NonLocalBlock(2, grid=32))(torch.rand(1, 2, *size))
    assert seen == [(size[0] * size[1], keys, keys)]
