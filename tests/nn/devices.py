"""Devices that are not here, as far as what they lack can be shown on a CPU."""

from __future__ import annotations

from typing import Any

from torch import Tensor


class WithoutFloat64(Tensor):
    """A tensor as on a device that has no float64, such as MPS: it becomes one on the CPU alone."""

    def double(self, *args: Any, **kwargs: Any) -> Tensor:
        """As MPS says it."""
        raise TypeError("Cannot convert a MPS Tensor to float64 dtype")

    def cpu(self, *args: Any, **kwargs: Any) -> Tensor:
        """A plain tensor."""
        return self.as_subclass(Tensor)
