from __future__ import annotations

import pytest
import torch

from okng.nn.learning.processes import Processes, processes, sharing


def test_one_process_is_alone_but_within_what_shares() -> None:
    alone = processes()
    values = torch.rand(3)
    assert (alone.number, alone.count) == (0, 1) and torch.equal(alone.add(values), values)
    those = Processes(1, 4, lambda values: values.mul_(4))
    with pytest.raises(ZeroDivisionError), sharing(those):
        assert processes() is those
        raise ZeroDivisionError
    assert processes() is alone
