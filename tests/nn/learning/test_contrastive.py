"""What is contrasted with what: every other row is a negative, the same image's other copies too."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from okng.nn.learning.contrastive import info_nce, nt_xent


def rows(count: int, seed: int) -> torch.Tensor:
    return torch.randn(count, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_nt_xent_is_the_sum_of_the_paper() -> None:
    first, second = rows(4, 0), rows(4, 1)
    both = torch.cat([first, second])
    expected = 0.0
    for i in range(8):
        partner = (i + 4) % 8
        terms = {j: math.exp(float(F.cosine_similarity(both[i], both[j], dim=0)) / 0.5) for j in range(8) if j != i}
        expected -= math.log(terms[partner] / sum(terms.values())) / 8
    torch.testing.assert_close(float(nt_xent(first, second, 0.5)), expected)
    torch.testing.assert_close(nt_xent(7 * first, second / 3, 0.5), nt_xent(first, second, 0.5))  # cosines


def test_other_copies_of_one_image_are_negatives() -> None:
    """Four shifts of a single image, all alike: each is one of seven others, at random; alone it has no negative."""
    same = rows(1, 0).expand(4, -1)
    torch.testing.assert_close(float(nt_xent(same, same, 0.5)), math.log(7))
    assert abs(float(nt_xent(same[:1], same[:1], 0.5))) < 1e-12
    apart = torch.eye(4, dtype=torch.float64)  # the shifts told from each other
    assert float(nt_xent(apart, apart, 0.5)) < float(nt_xent(same, same, 0.5))


def test_info_nce_compares_first_with_second_alone() -> None:
    first, second = rows(3, 0), rows(3, 1)
    cosines = F.cosine_similarity(first[:, None], second[None], dim=2) / 0.2
    expected = -cosines.log_softmax(1).diagonal().mean()
    torch.testing.assert_close(info_nce(first, second, 0.2), expected)
    torch.testing.assert_close(float(info_nce(first[:1].expand(3, -1), second[:1].expand(3, -1), 0.2)), math.log(3))
