"""The process of one step of a run: `python -m okng.comparing.child`, told through standard input what to do.

It ends at once when standard input ends, which is when the process that began it is gone.
"""

from __future__ import annotations

import json
import os
import pickle
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from okng.comparing.runs import Run
    from okng.training.progress import Narrator

TIMED, WARM = 32, 3  # images that are judged one by one for the time, and before that
EVERY = 1.0  # seconds between two notes of how long a fit has taken


def main() -> None:
    """Read the task, do it, and end with code 0, or with that of a failure and the reason in a file."""
    task = sys.stdin.buffer
    path, reason = json.loads(task.readline())
    sys.path[:] = path
    step, run, quiet, threads = pickle.load(task)
    threading.Thread(target=_end_with_the_parent, args=(task,), daemon=True).start()
    code = 0
    try:
        import torch

        from okng.detectors.catalogue import name_of
        from okng.training.progress import Narrator

        if run.method.kind is not None:
            name_of(run.method.kind)  # makes it known here

        if threads is not None:
            torch.set_num_threads(threads)
        with Narrator(quiet) as tell:
            {"fit": fit, "judge": judge}[step](run, tell)
    except KeyboardInterrupt:
        code = 130
    except BaseException as error:
        code = _code(error)
        _explain(error, Path(reason))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # the thread that waits for the parent holds standard input


def fit(run: Run, tell: Narrator) -> None:
    """Fit and save the model, and note what that took, and on what."""
    import torch

    import okng
    from okng.benchmark.reproduce import machine
    from okng.inspection.model_file import write_atomically
    from okng.training.fit import discard
    from okng.training.loop.checkpoint import StaleCheckpoint

    if run.file(".fit.json").exists() and run.file(".okng").exists():
        return
    method, checkpoint = run.method, run.file(".partial")
    how: dict[str, Any] = {
        "false_alarm_rate": run.false_alarm_rate, "seed": run.seed, "device": run.device, "checkpoint": checkpoint,
        "tell": tell, **method.arguments,
    }  # fmt: skip
    if run.dataset.ng:
        how["ng"] = [sample.image for sample in run.dataset.ng]
    if run.auxiliary:
        how["auxiliary"] = list(run.auxiliary)
    images = [sample.image for sample in run.dataset.train]
    detector = method.kind or method.detector
    clock = Clock(run.file(".clock.json"))
    try:
        inspector = okng.fit(images, detector, resume=True, **how)
    except StaleCheckpoint:
        inspector = okng.fit(images, detector, **how)
    inspector.save(run.file(".okng"))
    ran_on = f"{machine(run.device)}, threads: {torch.get_num_threads()}"
    taken = {**clock.stop(), "fit_device": run.device, "ran_on": ran_on, "provenance": inspector.manifest["provenance"]}
    taken["input"] = inspector.preprocess.to_json()
    taken["arguments"] = inspector.manifest["detector"]["arguments"]
    write_atomically(run.file(".fit.json"), json.dumps(taken, default=str).encode())
    discard(checkpoint)


def judge(run: Run, tell: Narrator) -> None:
    """Measure the saved model: time and memory first, while nothing else fills the process, then the figures."""
    import okng
    from okng.benchmark.evaluation import evaluate_inspector, tested
    from okng.comparing.judging import Collected, planted
    from okng.comparing.runs import write_result

    inspector = okng.load(run.file(".okng"), detector=run.method.kind)
    samples, _ = tested(inspector, run.dataset)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of single images, what a set is like
        milliseconds = _milliseconds(inspector.inspect, [sample.image for sample in samples])
        memory = peak_memory()
        seen = Collected(inspector, samples, run.shown)
        figures = evaluate_inspector(inspector, run.dataset, seen, tell)
        found = planted(inspector, samples, tell) if run.planted else {}
    kept = {
        "identity": run.identity,
        "figures": figures,
        "milliseconds": milliseconds,
        "file_bytes": run.file(".okng").stat().st_size,
        "inspect_memory": memory,
        **json.loads(run.file(".fit.json").read_text(encoding="utf-8")),
        "images": seen.keys,
        "pictures": seen.pictures,
        "planted": found,
        "threshold": inspector.calibration.threshold,
        "versions": _versions(),
    }
    write_result(run, kept, seen.arrays())


class Clock:
    """How long a fit took and the most memory it had, over all processes that worked on it; noted every second."""

    def __init__(self, path: Path):
        self.path, self.started, self.ended = path, time.monotonic(), threading.Event()
        try:
            self.before = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            self.before = {"seconds": 0.0, "fit_memory": 0, "stops": -1}
        self.thread = threading.Thread(target=self._note, daemon=True)
        self.thread.start()

    def stop(self) -> dict[str, Any]:
        """The seconds, the most bytes, and how often the fit was stopped before."""
        self.ended.set()
        self.thread.join()
        return self._now()

    def _now(self) -> dict[str, Any]:
        memory = max(peak_memory() or 0, self.before["fit_memory"] or 0)
        seconds = self.before["seconds"] + time.monotonic() - self.started
        return {"seconds": round(seconds, 2), "fit_memory": memory or None, "stops": self.before["stops"] + 1}

    def _note(self) -> None:
        from okng.inspection.model_file import write_atomically

        while True:
            write_atomically(self.path, json.dumps(self._now()).encode())
            if self.ended.wait(EVERY):
                return


def peak_memory() -> int | None:
    """The most bytes that this process has held at once; None where the system does not say.

    On Linux not what `getrusage` says: that begins with what the parent held when it began this process.
    """
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _milliseconds(inspect: Callable[..., Any], sources: list[Any]) -> float | None:
    """The median time from an image to its verdict, image after image, over at most `TIMED` of them."""
    import numpy as np

    from okng.inspection.reading.images import UnreadableImage

    chosen = [sources[i] for i in np.linspace(0, len(sources) - 1, min(len(sources), TIMED)).astype(int)]
    taken = []
    for number, source in enumerate([*chosen[:WARM], *chosen]):
        start = time.perf_counter()
        try:
            list(inspect([source], 1))
        except UnreadableImage:
            continue
        if number >= WARM:
            taken.append(1000 * (time.perf_counter() - start))
    return round(float(np.median(taken)), 2) if taken else None


def _versions() -> str:
    from okng.benchmark.reproduce import versions

    return versions()


def _code(error: BaseException) -> int:
    """Of a failure: `MAY_PASS` for want of memory, of room on a disk or of a file, else 1."""
    from okng.comparing.runs import MAY_PASS
    from okng.errors import causes, lacks_memory

    passing = any(isinstance(cause, OSError) or lacks_memory(cause) for cause in causes(error))
    return MAY_PASS if passing else 1


def _explain(error: BaseException, reason: Path) -> None:
    """The failure in one line, for the row; what is no mistake of a person's with its traceback on standard error."""
    from okng.errors import OkngError
    from okng.inspection.model_file import write_atomically

    said = " ".join(str(error).split())
    if not isinstance(error, OkngError):
        import traceback

        traceback.print_exception(error)
        said = f"{type(error).__name__}: {said}" if said else type(error).__name__
    write_atomically(reason, said.encode(errors="replace"))


def _end_with_the_parent(pipe: Any) -> None:
    pipe.read()
    os._exit(1)


if __name__ == "__main__":
    main()
