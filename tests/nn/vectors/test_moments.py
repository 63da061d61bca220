"""Mean and deviation are those of all rows at once, whatever the parts."""

from __future__ import annotations

import torch

from okng.nn.vectors.moments import Moments


def test_parts_give_what_all_rows_give() -> None:
    rows = 1000 + torch.randn(50, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([0.1, 1.0, 9.0])
    moments = Moments()
    for part in rows.split([1, 30, 19]):
        moments.add(part)
    mean, deviation = moments.result()
    assert mean.dtype == deviation.dtype == torch.float32
    torch.testing.assert_close(mean, rows.double().mean(0).float())
    torch.testing.assert_close(deviation, rows.double().std(0, correction=0).float(), rtol=1e-4, atol=0)
