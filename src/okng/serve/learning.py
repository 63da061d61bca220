"""The process of a job: `python -m okng.serve.learning`, told through standard input what to do.

It tells how far it is in lines of JSON, and ends at once when standard input ends, which is when the server is gone.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import warnings
from pathlib import Path
from typing import IO, Any

import okng
from okng.errors import OkngError
from okng.inspection.reading.decoding import digest
from okng.inspection.reading.formats import UnreadableImage
from okng.serve.models import opened

SHOWN = 500  # changes that are named one by one


def main() -> None:
    """Read the task, do it, and say what came of it."""
    talk = sys.stdout
    sys.stdout = sys.stderr  # what is printed by accident is no answer
    task = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_the_server, daemon=True).start()
    warnings.simplefilter("ignore")
    try:
        if task["kind"] in ("update", "fit"):
            learn(task, talk)
        done = {"comparison": compare(task, talk)}
        _say(talk, done=done)
    except OkngError as error:
        _say(talk, failed=str(error))
    except Exception as error:
        _say(talk, failed=f"{type(error).__name__}: {error}")
    talk.flush()
    os._exit(0)  # the thread that waits for the server holds standard input


def learn(task: dict[str, Any], talk: IO[str]) -> None:
    """Update or fit, and save the model where the server wants it."""
    from okng.training.progress import Narrator

    class Told(Narrator):
        """Tells the server instead of a person."""

        def __init__(self) -> None:
            super().__init__(quiet=True)

        def begin(self, name: str, total: float, done: float = 0) -> None:
            super().begin(name, total, done)
            _say(talk, phase=name, share=done / total if total else 0.0, note="")

        def advance(self, steps: float = 1, note: str | None = None) -> None:
            super().advance(steps, note)
            _say(talk, phase=self._name, share=min(1.0, self._done / (self._total or 1)), note=self._note)

    _say(talk, phase="starting", share=0.0, note="")
    images = [Path(file) for file in task["images"]]
    if task["kind"] == "update":
        inspector = okng.update(task["model"], images, tell=Told())
    else:
        given: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in task["arguments"].items()
        }
        for filled_in in ("image_size", "channels"):
            given.pop(filled_in, None)
        size = task["size"] if isinstance(task["size"], int) else tuple(task["size"])
        inspector = okng.fit(
            task.get("folder") or images,
            task["detector"],
            size=size,
            **{key: task[key] for key in ("tile", "overlap", "rules", "promise", "false_alarm_rate")},
            tell=Told(),
            **given,
        )
    inspector.save(task["new"])


def compare(task: dict[str, Any], talk: IO[str]) -> dict[str, Any]:
    """Both versions on all reviewed images that are kept.

    Counts are by what a person said, what the old version says and what the new one says. Images that the new one has
    learnt are counted apart: that it calls those OK tells nothing of others.
    """
    old, new = (opened(task["name"], Path(task[which]), task["how"]) for which in ("old", "new"))
    learnt = set(new.manifest.get("seen", ())) - set(new.manifest.get("unlearnt", ()))
    counts: dict[str, dict[str, int]] = {"OK": _zeros(), "NG": _zeros()}
    of_learnt = _zeros()
    changed: list[dict[str, Any]] = []
    unread = 0
    total = len(task["compared"])
    for i, one in enumerate(task["compared"]):
        if i % 10 == 0:
            _say(talk, phase="comparing", share=i / total, note=f"{i} of {total}")
        path = Path(one["file"])
        try:
            before, after = (next(iter(which.inspect(path, batch_size=1))) for which in (old, new))
        except UnreadableImage:
            unread += 1
            continue
        is_learnt = digest(path) in learnt
        which = f"{before.verdict}→{after.verdict}"
        (of_learnt if is_learnt else counts[one["said"]])[which] += 1
        if before.verdict != after.verdict and len(changed) < SHOWN:
            changed.append(
                {
                    "record": one["record"], "said": one["said"], "old": before.verdict, "new": after.verdict,
                    "old_score": before.score, "new_score": after.score, "learnt": is_learnt,
                }
            )  # fmt: skip
    return {
        "old": task["old_version"], "new": task["new_version"], "images": total - unread, "unreadable": unread,
        "counts": counts, "learnt": of_learnt, "changed": changed, "old_promise": old.promise(),
        "new_promise": new.promise(),
    }  # fmt: skip


def _zeros() -> dict[str, int]:
    return {f"{before}→{after}": 0 for before in ("OK", "NG") for after in ("OK", "NG")}


def _say(talk: IO[str], **what: Any) -> None:
    print(json.dumps(what), file=talk, flush=True)


def _end_with_the_server() -> None:
    sys.stdin.read()
    os._exit(1)


if __name__ == "__main__":
    main()
