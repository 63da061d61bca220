"""Fits on a cluster: each is a task on one core, or on one GPU, and is begun when there is room for it.

A fit keeps its own state in files, so one whose worker died goes on where that left it, on another machine too.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from functools import wraps
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypeVar

from okng.cluster.joined import RETRIES, begin_in, joined, room_of, workers_of
from okng.errors import OkngError, in_one_line
from okng.training.progress import Narrator, duration

LOOK = 10.0  # seconds after which it is looked which machines there are
PATIENCE = 600.0  # seconds without any machine after which nothing more is waited for

Name = TypeVar("Name")
Task = TypeVar("Task")
Done = TypeVar("Done")


def spread(
    work: Callable[[Task], Done],
    tasks: Iterable[tuple[Name, Task]],
    address: str,
    device: str = "auto",
    tell: Narrator | None = None,
) -> Iterator[tuple[Name, Done | None, str]]:
    """What `work` makes of each of the named `tasks` on the Ray cluster at `address`, by their names, as they end.

    Instead of a result there is a reason where the workers of a task died `RETRIES` + 1 times, or it raised anything;
    the others go on. The next task is taken when a worker is free for it. `device`: with "cuda", or "auto" on a cluster
    that has any, each takes a GPU. Machines may come and go: while there is none, that is told, and after `PATIENCE`
    seconds it is an `OkngError`.
    """
    tell = tell or Narrator(quiet=True)
    waiting = iter(tasks)
    first = list(islice(waiting, 1))
    if not first:
        return  # no cluster is begun for nothing
    waiting = chain(first, waiting)
    with joined(address) as ray:
        gpu = device == "cuda" or (device == "auto" and ray.cluster_resources().get("GPU", 0) >= 1)
        count = workers_of(ray, 1, gpu)
        folder = Path.cwd()

        @wraps(work)
        def there(task: Task) -> Done:
            begin_in(folder)
            return work(task)

        begin = ray.remote(there).options(
            num_cpus=1, num_gpus=int(gpu), max_retries=0, scheduling_strategy="SPREAD"
        ).remote  # fmt: skip
        busy: dict[Any, tuple[Name, Task, int]] = {}
        alone_since: float | None = None  # when the last machine had gone
        while True:
            for name, task in islice(waiting, max(0, count - len(busy))):
                busy[begin(task)] = (name, task, 0)
            if not busy:
                return
            ended, _ = ray.wait(list(busy), timeout=LOOK)
            count = room_of(ray, 1, gpu)
            if count:
                alone_since = None
            elif alone_since is None:
                alone_since = time.monotonic()
                tell.say("no machine of the cluster is left: what was begun waits for one")
            if not ended:
                if alone_since is not None and time.monotonic() - alone_since > PATIENCE:
                    gone = duration(PATIENCE)
                    raise OkngError(f"the cluster has had no machine for {gone}; start one: the same command goes on")
                continue
            (done,) = ended
            name, task, died = busy.pop(done)
            result, reason = None, ""
            try:
                result = ray.get(done)
            except ray.exceptions.RayTaskError as error:
                kind = "" if isinstance(error.cause, OkngError) else f"{type(error.cause).__name__}: "
                reason = kind + in_one_line(error.cause)
            except ray.exceptions.RayError as error:  # the worker died, or its machine
                if died < RETRIES:
                    busy[begin(task)] = (name, task, died + 1)
                    continue
                reason = f"its worker died {RETRIES + 1} times, perhaps for lack of memory: {in_one_line(error)}"
            yield name, result, reason
