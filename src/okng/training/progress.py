"""Progress of long work on standard error: phase, epoch, loss and time left."""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import ParamSpec, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

Given = ParamSpec("Given")
Result = TypeVar("Result")
EVERY = 10.0  # seconds between lines where there is no terminal to draw on
JUDGED_AFTER, LONG = 5.0, 600.0  # seconds of a stretch after which its length is judged, and what is long


class Times(ProgressColumn):
    """How long it has taken, and how long it will."""

    max_refresh = 0.5  # seconds, as rich's own have it

    def __init__(self) -> None:
        super().__init__()
        self.spent, self.left = TimeElapsedColumn(), TimeRemainingColumn()

    def render(self, task: Task) -> Text:
        """Such as "0:00:12, 0:01:19 left"."""
        return Text.assemble(self.spent.render(task), ", ", self.left.render(task), " left")


class Narrator:
    """Tells a person how far the work is: a bar on a terminal, otherwise a line every ten seconds.

    Of a stretch that will take more than ten minutes it says so five seconds after its first step, `hint` behind it.

    >>> with Narrator() as tell:  # doctest: +SKIP
    ...     tell.begin("memory", total=200)
    ...     tell.advance(8)
    """

    def __init__(self, quiet: bool = False):
        self.quiet, self.hint = quiet, ""
        console = Console(stderr=True)
        self._bar = None
        if not quiet and console.is_terminal:
            columns = (
                TextColumn("{task.description:<28}"),
                BarColumn(),
                TextColumn("{task.percentage:>3.0f} %"),
            )
            self._bar = Progress(*columns, Times(), TextColumn("{task.fields[note]}"), console=console)
        self._task: TaskID | None = None
        self._name, self._note, self._behind, self._done, self._total = "", "", 0.0, 0.0, 1.0
        self._start = self._last = time.monotonic()
        self._first, self._judged = True, False

    def __enter__(self) -> Narrator:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()

    def begin(self, name: str, total: float, done: float = 0) -> None:
        """Start a stretch of work of `total` steps, `done` of which are behind us."""
        self._name, self._note, self._behind, self._done, self._total = name, "", done, done, total
        self._start = self._last = time.monotonic()
        self._first, self._judged = True, total <= 1  # shares of a conclusion are not even in time
        if self._bar is not None:
            if self._task is not None:
                self._bar.remove_task(self._task)  # many bars would leave no room for this one
            self._task = self._bar.add_task(name, total=total, completed=int(done), note="")

    def advance(self, steps: float = 1, note: str | None = None) -> None:
        """`steps` more are done; `note` stands behind the bar, such as the epoch and the loss."""
        self._done += steps
        self._note = self._note if note is None else note
        if self._first:  # it brought what is loaded and compiled once, and tells nothing of the time of the others
            self._start = self._last = time.monotonic()
            self._first, self._behind = False, self._done
        spent, timed = time.monotonic() - self._start, self._done - self._behind
        if not self._judged and spent > JUDGED_AFTER and timed:
            self._judged = True
            whole = spent / timed * (self._total - self._behind)
            if whole > LONG:
                self.say(f"{self._name} takes about {duration(whole)} on this machine{self.hint}")
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, advance=steps, note=self._note)
        elif not self.quiet and time.monotonic() - self._last > EVERY and timed:
            self._last = time.monotonic()
            left = (self._last - self._start) / timed * (self._total - self._done)
            share = self._done / self._total
            print(
                f"{self._name}: {share:.0%}, {duration(left)} left" + (f", {self._note}" if self._note else ""),
                file=sys.stderr,
                flush=True,
            )

    def say(self, line: str) -> None:
        """A line of its own, above the bar."""
        if self.quiet:
            return
        if self._bar is not None:
            self._bar.console.print(line, highlight=False, markup=False)
        else:
            print(line, file=sys.stderr, flush=True)


def narrated(work: Callable[Given, Result]) -> Callable[Given, Result]:
    """`work`, which takes `progress` and `tell`: with progress=True it is told by a `Narrator` of its own."""

    @functools.wraps(work)
    def told(*args: Given.args, **kwargs: Given.kwargs) -> Result:
        if not kwargs.get("progress") or kwargs.get("tell") is not None:
            return work(*args, **kwargs)
        with Narrator() as kwargs["tell"]:
            return work(*args, **kwargs)

    return told


def duration(seconds: float) -> str:
    """In the unit that a person would take: "44 s", "7 min", "3.5 h", "2.1 days"."""
    for unit, size in (("days", 86_400), ("h", 3600)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.0f} s"
