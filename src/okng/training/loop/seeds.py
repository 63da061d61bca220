"""The place in a fit decides what is drawn there, so that no generator's state has to be kept."""

from __future__ import annotations

import numpy as np
import torch

BETWEEN = 10_006  # in the place of an epoch: the seed of what is drawn between two phases


def seed_torch(seed: int, phase: int, epoch: int) -> None:
    """Seed torch by the place in the fit, so that an epoch draws the same numbers whenever it is run."""
    far = epoch // (BETWEEN + 1) * 2_654_435_761  # beyond the phase's own ten thousand; of a seed torch takes 32 bits
    torch.manual_seed(seed * 1_000_003 + phase * 10_007 + epoch + far)


def generator_at(*place: int) -> torch.Generator:
    """A generator of its own for a place such as (seed, phase, epoch, image): whoever draws there draws the same."""
    seed = int(np.random.SeedSequence(place).generate_state(1, np.uint64)[0])
    return torch.Generator().manual_seed(seed)
