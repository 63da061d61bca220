"""One fit at a time: fits draw from torch's one generator, and a seed decides only where nothing else draws."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch

from okng.training.progress import Narrator

Given = ParamSpec("Given")
Made = TypeVar("Made")

_TURN = threading.RLock()  # a fit runs phases, and both take turns


def one_at_a_time(work: Callable[Given, Made]) -> Callable[Given, Made]:
    """`work`, in turns with all else that is decorated so, in this process; torch's generator is left as it was.

    Whoever has to wait is told so by its argument `tell`.
    """

    @wraps(work)
    def in_turn(*given: Given.args, **named: Given.kwargs) -> Made:
        if not _TURN.acquire(blocking=False):
            tell = named.get("tell")
            if isinstance(tell, Narrator):
                tell.say("another fit is running in this process; this one begins when that one is done")
            _TURN.acquire()
        try:
            devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
            with torch.random.fork_rng(devices):
                return work(*given, **named)
        finally:
            _TURN.release()

    return in_turn
