"""One fit of one method on one data set, measured in processes of its own and kept under what decides its figures.

A process of its own tells what a fit needs in memory and time, and a method that takes its process down takes no
other's figures along. It ends when the one that began it ends, however that came about.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import subprocess
import sys
import zlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

import okng
from okng.benchmark.code import present_code
from okng.datasets import Dataset
from okng.detectors.base import Detector
from okng.detectors.cards import cards
from okng.detectors.catalogue import detector_class
from okng.errors import OkngError
from okng.inspection.model_file import remove, write_atomically
from okng.inspection.reading.images import Source
from okng.training.progress import Narrator

PASSING = (".okng", ".partial", ".fit.json", ".clock.json")  # files that a run needs until it is judged
MAY_PASS = 75  # the code with which a process ends whose failure may pass
FORMAT = 1  # of what is kept of a run


@dataclass(frozen=True)
class Method:
    """A detector with its arguments, `size` among them; `name` is what tables call it, `kind` a class from outside."""

    name: str
    detector: str
    arguments: dict[str, Any] = field(default_factory=dict)
    kind: type[Detector] | None = None

    @property
    def code(self) -> str:
        """A digest of the code that computes it; of a detector from outside, of its whole file."""
        known = present_code(self.detector)
        path = getattr(sys.modules.get(detector_class(self.detector).__module__), "__file__", None)
        if known or path is None:
            return known
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:12]


@dataclass(frozen=True)
class Run:
    """A method on a data set with one seed.

    `data` is the images' digest, `shown` the keys of those to be drawn; `planted`: defects are planted into the test
    images, for want of real ones. `auxiliary`: images that the method learns from beside, and their digest.
    """

    method: Method
    dataset: Dataset
    data: str
    shown: tuple[str, ...]
    planted: bool
    seed: int
    false_alarm_rate: float
    device: str
    folder: Path
    auxiliary: tuple[Source, ...] = ()
    beside: str = ""

    @property
    def identity(self) -> dict[str, Any]:
        """All that decides its figures."""
        return {
            "format": FORMAT, "okng": okng.__version__, "detector": self.method.detector,
            "arguments": self.method.arguments, "code": self.method.code, "data": self.data, "seed": self.seed,
            "false_alarm_rate": self.false_alarm_rate, "shown": list(self.shown),
            "planted": self.planted, **({"auxiliary": self.beside} if self.auxiliary else {}),
        }  # fmt: skip

    @property
    def stem(self) -> Path:
        """Where its files lie, without their endings."""
        digest = hashlib.sha256(json.dumps(self.identity, sort_keys=True, default=str).encode()).hexdigest()[:12]
        name = self.method.detector.replace(":", ".")
        return self.folder / f"{name}-{self.seed}-{digest}"

    def file(self, ending: str) -> Path:
        """Its file with such an ending."""
        return self.stem.with_name(self.stem.name + ending)

    def result(self) -> Result | None:
        """What is kept of it, if it was measured to the end."""
        try:
            kept = json.loads(self.file(".json").read_text(encoding="utf-8"))
            with np.load(self.file(".npz"), allow_pickle=False) as arrays:
                return Result(self, kept, dict(arrays))
        except (OSError, ValueError, KeyError, EOFError, BadZipFile, zlib.error):  # not whole: it is measured again
            return None

    def begin_anew(self) -> None:
        """Remove what a fit has left that did not end."""
        for path in self.folder.glob(f"{self.stem.name}.*"):
            remove(path)

    def measure(self, tell: Narrator) -> Result:
        """Fit and judge it, or go on where that was stopped; a failure is a result too."""
        self.folder.mkdir(parents=True, exist_ok=True)
        quiet = tell.quiet
        for step in ("fit", "judge"):
            failure = _in_its_own_process(step, self, quiet)
            if failure:
                return Result(self, {"failure": failure}, {})
        for ending in PASSING:
            remove(self.file(ending))
        found = self.result()
        return found or Result(self, {"failure": f"{self.file('.json')} can't be read back"}, {})


@dataclass(frozen=True)
class Result:
    """What was measured in a run: `kept` is JSON, `arrays` one row per test image. A failed one has `failure` alone."""

    run: Run
    kept: dict[str, Any]
    arrays: dict[str, np.ndarray]

    @property
    def failure(self) -> str:
        """Why there are no figures, or nothing."""
        return str(self.kept.get("failure", ""))


def _in_its_own_process(step: str, run: Run, quiet: bool) -> str:
    """Do one step in a new process, which tells its progress on our standard error; why it failed, or nothing."""
    here = str(Path(okng.__file__).parents[1])  # the same okng as this one
    paths = os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH"))))
    environment = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ, "PYTHONPATH": paths}
    threads = None
    if "torch" in sys.modules:
        threads = sys.modules["torch"].get_num_threads()  # what the person's program set
    # The new process gets a pickle from this one through a pipe, as multiprocessing would do, but starts from okng's
    # own module: a person's script needs no `if __name__ == "__main__"`.
    words = [sys.executable, "-m", "okng.comparing.child"]
    task = pickle.dumps((step, run, quiet, threads))
    reason = run.file(".failed")
    reason.unlink(missing_ok=True)
    with subprocess.Popen(words, stdin=subprocess.PIPE, env=environment) as child:
        assert child.stdin is not None
        try:
            child.stdin.write(json.dumps([sys.path, str(reason)]).encode() + b"\n" + task)
            child.stdin.flush()
            code = child.wait()
        except BrokenPipeError:
            code = child.wait()
        except BaseException:
            child.stdin.close()  # which ends it
            child.wait()
            raise
    if code == 0:
        return ""
    if code == 130:
        raise KeyboardInterrupt
    if reason.exists():
        said = reason.read_text(encoding="utf-8")
        remove(reason)
        if step == "fit" and code != MAY_PASS:  # from where it was it would fail again
            run.begin_anew()
        return said
    if code < 0:
        why = "for lack of memory, or by someone" if code == -9 else "it crashed"
        return f"its process was ended by signal {-code} during the {step}: {why}"
    return f"its process ended with code {code} during the {step}"


def write_result(run: Run, kept: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    """Keep what was measured; the JSON file comes last and makes it whole."""
    import io

    content = io.BytesIO()
    np.savez_compressed(content, **arrays)  # type: ignore[arg-type]
    write_atomically(run.file(".npz"), content.getvalue())
    write_atomically(run.file(".json"), json.dumps(kept).encode())


def without_images(run: Run) -> Run:
    """The run as its results remember it: the images are of no use any more."""
    return replace(run, dataset=replace(run.dataset, train=(), test=(), ng=()), auxiliary=())


def check_detectors(names: list[str]) -> None:
    """`OkngError` for a class that a new process could not import."""
    for name in names:
        if name not in cards() and detector_class(name).__module__ == "__main__":
            raise OkngError(
                f"{name} is of the program itself; put it into a module, for each fit is a process of its own"
            )
