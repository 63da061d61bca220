"""The processes that take one gradient step together, for what a step gathers of a whole batch besides gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Processes:
    """The present one is `number`, from 0 on, among `count`; each has other images of the batch.

    `add` makes of a tensor, in place, its sum over the processes, and returns it. All have to call it alike.
    """

    number: int = 0
    count: int = 1
    add: Callable[[Tensor], Tensor] = lambda values: values


_present: ContextVar[Processes] = ContextVar("processes", default=Processes())  # noqa: B039 - it is frozen


def processes() -> Processes:
    """Those of the present step: one alone, unless a fit has several."""
    return _present.get()


@contextmanager
def sharing(those: Processes) -> Iterator[None]:
    """Within, `processes` are `those`."""
    before = _present.set(those)
    try:
        yield
    finally:
        _present.reset(before)
