"""Learning in the background: the one door to training, so that everything else runs without PyTorch.

The work is done by a process of its own (`learning.py`): it takes neither the server's memory nor its life, and ends
with it. What was not finished is found as "stopped" afterwards. A new version is compared with the active one on all
reviewed images that are kept before it may be taken.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from okng.checks import check_rate
from okng.errors import OkngError, in_one_line, missing_extra
from okng.serve.models import Loaded, Shelf, ending
from okng.store import Store, StoreError
from okng.store.jobs import Job
from okng.store.records import Filter, Record

TOLD_EVERY = 0.5  # seconds between two notes of progress in the store
SILENT = 60.0  # seconds without one after which a job is taken for stopped whose process can't be asked for
REASON_LIMIT = 2000
TRIES = 60  # to note the end of a job in a store that can't be written


class Occupied(OkngError):
    """Something is being learnt already."""


class Unasked(OkngError):
    """A version can't be taken before it was compared."""


@dataclass
class _Running:
    job: int
    process: subprocess.Popen[str]
    stopped: bool = False


class Workshop:
    """Learns for the models of `shelf`, one job at a time; `say` takes lines for the log."""

    def __init__(self, store: Store, shelf: Shelf, say: Callable[[str], None]):
        self.store, self.shelf, self.say = store, shelf, say
        self.server = f"{socket.gethostname()}/{os.getpid()}"
        self._lock = threading.Lock()
        self._running: _Running | None = None
        self._thread: threading.Thread | None = None
        for job in store.jobs.all(state="running"):
            if _gone(job):
                store.jobs.tell(job.id, {**job.told, "why": "the server was stopped"}, "stopped")

    def update(self, name: str, records: list[int], who: str) -> int:
        """The active version learns the images of `records`; the number of the job."""
        loaded = self._learner(name)
        if ending(loaded.version.file) == ".onnx":
            raise OkngError(
                f"{name} is an exported model, which can't learn; serve the .okng file it was exported from"
            )
        if not records:
            raise OkngError("choose at least one false alarm to learn")
        known = self.store.records.several(records)
        for number in records:
            record = known.get(number)
            if record is None:
                raise OkngError(f"there is no record {number}")
            if record.model != name:
                raise OkngError(f"record {number} is of another model, {record.model}; choose images of this one")
            if record.review != "OK":
                raise OkngError(f"record {number} is not reviewed as OK, so it is not learnt; review it first")
            if not record.has_image:
                raise OkngError(f"the image of record {number} is not kept, so it can't be learnt")
        task = {"model": str(self.shelf.file(loaded.version)), "records": records}
        why = f"{len(records)} false alarm{'s'[: len(records) != 1]} learnt"
        return self._begin("update", name, {"records": records}, task, why, who)

    def fit(self, name: str, folder: Path | None, who: str, rate: float | None = None) -> int:
        """A new model like the active one, of the images in `folder`, or of all kept ones that were reviewed as OK.

        It has the same detector, tiles, zones and rules, a guarantee if that has one, and its false-alarm rate or
        another `rate`, which has to be said where the threshold was set by hand.
        """
        if rate is not None:
            check_rate(rate)
        inspector = self._learner(name).inspector
        preprocess, calibration = inspector.preprocess, inspector.calibration
        if rate is None and calibration.basis == "manual":
            raise OkngError(
                f"the threshold of {name} was set by hand; say which false-alarm rate to fit by, such as 0.05"
            )
        described = inspector.manifest.get("detector", {})
        task: dict[str, Any] = {
            "detector": described.get("name"),
            "arguments": described.get("arguments", {}),
            "size": preprocess.size,
            "tile": preprocess.tile,
            "overlap": None if preprocess.tile is None else preprocess.overlap,
            "rules": inspector.rules.to_json(),
            "promise": "strict" if calibration.method == "split" else "auto",
            "false_alarm_rate": calibration.false_alarm_rate if rate is None else rate,
        }
        if folder is not None:
            task["folder"] = str(folder)
            why = f"fitted anew on {folder}"
        else:
            records = [record.id for record in self._reviewed(name) if record.review == "OK"]
            if not records:
                raise OkngError("no image that was reviewed as OK is kept; give a folder of OK images")
            task["records"] = records
            why = f"fitted anew on {len(records)} images reviewed as OK"
        asked = {"folder": None if folder is None else str(folder), "false_alarm_rate": task["false_alarm_rate"]}
        return self._begin("fit", name, asked, task, why, who)

    def compare(self, name: str, version: int, who: str) -> int:
        """Compare a version with the active one."""
        self.store.models.get(name, version)
        return self._begin("compare", name, {"version": version}, {"version": version}, "", who)

    def take(self, name: str, version: int, who: str, why: str) -> None:
        """Make a version active that was active before, or that was compared with the one that is."""
        self.store.models.get(name, version)
        active = self.shelf.get(name).version.version
        before = {choice.version for choice in self.store.models.choices(name)}
        if version not in before and self.comparison(name, version, active) is None:
            raise Unasked(f"version {version} was not compared with version {active} yet; compare it first")
        self.shelf.take(name, version, who, why or ("gone back to" if version in before else "taken"))

    def comparison(self, name: str, version: int, active: int) -> dict[str, Any] | None:
        """The last comparison of a version with the one that was active then, if there is one."""
        for job in self.store.jobs.all(name, "done", limit=1000):
            found = job.told.get("comparison")
            if found and (found["new"], found["old"]) == (version, active):
                return dict(found)
        return None

    def stop(self, job: int, who: str) -> None:
        """End a job of this server."""
        with self._lock:
            running = self._running
            if running is None or running.job != job:
                raise OkngError(f"job {job} is not running here")
            running.stopped = True
            running.process.kill()
        self.store.audit.add(who, "job stopped", job=job)

    def close(self) -> None:
        """End what is running, as the server ends."""
        with self._lock:
            if self._running is not None:
                self._running.stopped = True
                self._running.process.kill()
        if self._thread is not None:
            self._thread.join(10)

    def _learner(self, name: str) -> Loaded:
        """The active version of a model that can learn here; `OkngError` where it can't."""
        if importlib.util.find_spec("torch") is None:
            raise missing_extra("torch", "train,serve")
        loaded = self.shelf.get(name)
        if loaded.inspector.products:  # one of them can't learn without the others
            raise OkngError(
                f"{name} is one of several products of a model, which does not learn here; "
                "train all of them again and serve the new file: okng train NAME=FOLDER NAME=FOLDER"
            )
        return loaded

    def _reviewed(self, name: str) -> list[Record]:
        """All reviewed records of a model whose image is kept."""
        kept = self.store.records.each(Filter(model=name, review="any", with_image=True))
        return [record for record in kept if record.review in ("OK", "NG")]

    def _begin(self, kind: str, name: str, asked: dict[str, Any], task: dict[str, Any], why: str, who: str) -> int:
        with self._lock:
            if self._running is not None:
                raise Occupied(f"job {self._running.job} is running; wait for it, or stop it")
            output = self.shelf.new_file(".okng")
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
            process = subprocess.Popen(
                [sys.executable, "-m", "okng.serve.learning"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=environment,
            )
            try:
                job = self.store.jobs.add(kind, name, asked, who, self.server)
            except BaseException:
                process.kill()
                raise
            self._running = _Running(job, process)
            self._thread = threading.Thread(
                target=self._follow, args=(self._running, kind, name, task, output, why, who),
                name="okng-learn", daemon=True,
            )  # fmt: skip
            self._thread.start()
        return job

    def _follow(
        self, running: _Running, kind: str, name: str, task: dict[str, Any], output: Path, why: str, who: str
    ) -> None:
        """Hand the task over, note what is told, and take in what came of it."""
        state, told = "failed", {}
        try:
            with tempfile.TemporaryDirectory(prefix="okng-learn-") as folder:
                active = self.shelf.get(name).version
                told = self._talk(running, self._task(task, kind, name, active.version, Path(folder), output))
            if "failed" in told:
                told = {"why": str(told["failed"])[:REASON_LIMIT]}
            elif "done" in told:
                told = dict(told["done"])
                if kind != "compare":
                    version = self.shelf.add(name, output, who, why)
                    told["version"] = version.version
                    told["comparison"]["new"] = version.version
                state = "done"
            else:
                told = {"why": "the process ended unexpectedly; see the server's log"}
        except Exception as error:
            told = {"why": in_one_line(error)}
        finally:
            output.unlink(missing_ok=True)
            if running.stopped:
                state, told = "stopped", {"why": "it was stopped"}
            self.say(f"job {running.job} ({kind} of {name}): {state}{': ' + told['why'] if 'why' in told else ''}")
            self._end(running.job, told, state)
            with self._lock:
                self._running = None

    def _end(self, job: int, told: dict[str, Any], state: str) -> None:
        """Note how a job ended; the store may be locked for a while."""
        for _ in range(TRIES):
            try:
                self.store.jobs.tell(job, told, state)
                return
            except StoreError as error:
                self.say(str(error))
                time.sleep(1)

    def _task(
        self, task: dict[str, Any], kind: str, name: str, active: int, folder: Path, output: Path
    ) -> dict[str, Any]:
        """What the process is told, with the images that the store keeps as files in `folder`."""
        learnt = [self._written(number, folder) for number in task.get("records", ())]
        compared = [
            {"record": record.id, "said": record.review, "file": self._written(record.id, folder)}
            for record in self._reviewed(name)
        ]
        new = str(output)
        if kind == "compare":
            new = str(self.shelf.file(self.store.models.get(name, task["version"])))
        old = str(self.shelf.file(self.store.models.get(name, active)))
        how = {key: value for key, value in self.shelf.how.items() if key in ("engine", "threads")}
        files = {"images": learnt, "compared": compared, "old": old, "new": new}
        numbers = {"old_version": active, "new_version": task.get("version")}
        return {**task, **files, **numbers, "kind": kind, "name": name, "how": how}

    def _written(self, record: int, folder: Path) -> str:
        path = folder / f"{record:012d}.image"
        if not path.exists():
            content = self.store.records.image(record)
            if content is None:
                raise OkngError(f"the image of record {record} is not kept any more")
            path.write_bytes(content)
        return str(path)

    def _talk(self, running: _Running, task: dict[str, Any]) -> dict[str, Any]:
        """What the process says last; what it says before is noted as progress."""
        process = running.process
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None
        last: dict[str, Any] = {}
        behind: list[str] = []
        reader = threading.Thread(target=lambda: behind.extend(process.stderr or ()), daemon=True)
        reader.start()
        noted = 0.0
        try:
            process.stdin.write(json.dumps(task) + "\n")
            process.stdin.flush()
            for line in process.stdout:
                last = json.loads(line)
                if "phase" not in last:
                    break
                if time.monotonic() - noted > TOLD_EVERY:
                    noted = time.monotonic()
                    with contextlib.suppress(StoreError):  # the next time, then
                        self.store.jobs.tell(running.job, {**last, "noted": time.time()})
        except BrokenPipeError:
            pass
        finally:
            process.kill()
            process.wait()
            reader.join(1)
            if not last.keys() & {"done", "failed"} and not running.stopped:
                self.say("".join(behind[-20:]).strip())
            for pipe in (process.stdin, process.stdout, *((process.stderr,) if not reader.is_alive() else ())):
                with contextlib.suppress(OSError):
                    pipe.close()
        return last


def _gone(job: Job) -> bool:
    """Whether nobody works on a running job any more.

    Of this machine's processes the system says so at once, but on Windows, where asking would end the process: there,
    as of other machines, the silence does.
    """
    host, _, process = job.server.rpartition("/")
    if host == socket.gethostname() and (int(process) == os.getpid() or sys.platform != "win32"):
        return int(process) == os.getpid() or not _alive(int(process))
    return time.time() - float(job.told.get("noted", job.at)) > SILENT


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
