"""Fits on a cluster: each is a task on one core, or on one GPU, and is begun when there is room for it.

A fit keeps its own state in files, so one whose worker died goes on where that left it, on another machine too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from typing import Any, TypeVar

from okng.cluster.joined import RETRIES, joined, workers_of
from okng.errors import OkngError, in_one_line

Name = TypeVar("Name")
Task = TypeVar("Task")
Done = TypeVar("Done")


def spread(
    work: Callable[[Task], Done], tasks: Iterable[tuple[Name, Task]], address: str, device: str = "auto"
) -> Iterator[tuple[Name, Done | None, str]]:
    """What `work` makes of each of the named `tasks` on the Ray cluster at `address`, by their names, as they end.

    Instead of a result there is a reason where the workers of a task died `RETRIES` + 1 times, or it raised what nobody
    foresaw; an `OkngError` ends all. The next task is taken when a worker is free for it. `device`: with "cuda", or
    "auto" on a cluster that has any, each takes a GPU.
    """
    waiting = iter(tasks)
    first = list(islice(waiting, 1))
    if not first:
        return  # no cluster is begun for nothing
    waiting = chain(first, waiting)
    with joined(address) as ray:
        gpu = device == "cuda" or (device == "auto" and ray.cluster_resources().get("GPU", 0) >= 1)
        count = workers_of(ray, 1, gpu)
        begin = ray.remote(work).options(
            num_cpus=1, num_gpus=int(gpu), max_retries=0, scheduling_strategy="SPREAD"
        ).remote  # fmt: skip
        busy: dict[Any, tuple[Name, Task, int]] = {}
        while True:
            for name, task in islice(waiting, count - len(busy)):
                busy[begin(task)] = (name, task, 0)
            if not busy:
                return
            (done,), _ = ray.wait(list(busy))
            name, task, died = busy.pop(done)
            result, reason = None, ""
            try:
                result = ray.get(done)
            except ray.exceptions.RayTaskError as error:
                if isinstance(error.cause, OkngError):
                    raise error.cause from None
                reason = f"{type(error.cause).__name__}: {in_one_line(error.cause)}"
            except ray.exceptions.RayError as error:  # the worker died, or its machine
                if died < RETRIES:
                    busy[begin(task)] = (name, task, died + 1)
                    continue
                reason = f"its worker died {RETRIES + 1} times, perhaps for lack of memory: {in_one_line(error)}"
            yield name, result, reason
