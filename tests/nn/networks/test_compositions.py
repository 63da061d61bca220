"""Corrupted compositions are compositions still, in which one piece is of another kind, or one is too many."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from okng.nn.networks import compositions
from okng.nn.networks.compositions import corrupted, pasted, renamed


def scene() -> np.ndarray:
    """A composition of two pieces on a ground."""
    kinds = np.zeros((32, 32), np.uint8)
    kinds[4:12, 4:12], kinds[18:28, 18:28] = 1, 2
    return kinds


def test_a_piece_becomes_of_a_kind_that_is_beside_it() -> None:
    kinds, seen = scene(), set()
    for seed in range(20):
        torch.manual_seed(seed)
        changed = (spoilt := renamed(kinds, kinds, 4)) != kinds
        assert ndimage.label(changed)[1] == 1
        (before,), (after,) = np.unique(kinds[changed]), np.unique(spoilt[changed])
        assert changed.sum() == (kinds == before).sum()
        seen.add((int(before), int(after)))
    assert seen == {(0, 1), (0, 2), (1, 0), (2, 0)}


def test_a_piece_of_another_composition_is_laid_on_turned() -> None:
    ground, other = np.zeros((32, 32), np.uint8), scene()
    sizes = set()
    for seed in range(20):
        torch.manual_seed(seed)
        spoilt = pasted(ground, other, 4)
        kind = int(spoilt.max())
        sizes.add(kind)
        assert kind == 0 or abs(int((spoilt == kind).sum()) - int((other == kind).sum())) < 20
        assert not set(np.unique(spoilt)) - {0, kind}
    assert sizes == {0, 1, 2}


def test_half_of_the_compositions_are_corrupted_and_stay_compositions(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds, changed = scene(), 0
    torch.manual_seed(0)
    for _ in range(200):
        spoilt = corrupted(kinds, kinds.T.copy(), 4)
        assert spoilt.dtype == np.uint8 and spoilt.shape == kinds.shape and spoilt.max() < 4
        changed += bool((spoilt != kinds).any())
    assert 60 < changed <= 125  # some blots are empty
    monkeypatch.setattr(compositions, "SMALLEST", 1.0)
    assert np.array_equal(renamed(kinds, kinds, 4), kinds) and np.array_equal(pasted(kinds, kinds, 4), kinds)
