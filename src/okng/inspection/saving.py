"""How a model file takes the place of another without anyone's work being lost."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from okng.errors import OkngError
from okng.inspection.inspector import Inspector
from okng.inspection.model_file import check_ending, write_atomically
from okng.inspection.storage.locks import turn


def state_of(path: Path) -> str | None:
    """What tells a file's content from any other; None where there is no file."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return None


def save_over(inspector: Inspector, path: Path, read: str) -> None:
    """Write a changed model onto the file it came of, unless that is another by now: `read` is its state then.

    Two changes of one file at the same time, such as an update and a new threshold, would lose one of the two.
    """
    with _alone(path):
        if state_of(path) != read:
            raise OkngError(
                f"{path} was changed by another command while this one worked, and is left as it is; run this one again"
            )
        inspector.save(path)


def state_before(model: Path) -> str | None:
    """What `save_changed` wants to know of a model file before it is read; None for one in storage, or none at all."""
    with contextlib.suppress(OSError):  # who reads it says what is wrong
        return state_of(model)
    return None


def check_target(model: Path, output: Path | None) -> None:
    """`OkngError`, before any work, where `save_changed` could not write so: see `check_ending`."""
    check_ending(output or model, exported=model.suffix == ".onnx")


def save_changed(inspector: Inspector, model: Path, output: Path | None, before: str | None) -> Path:
    """Write what was made of the file `model` to `output`, or over `model` if that is still as it was `before`."""
    target = model if output is None else output
    if before is not None and target.resolve() == model.resolve():
        save_over(inspector, target, before)
    else:
        inspector.save(target)
    return target


def save_beside(inspector: Inspector, path: Path, force: bool = False) -> Path | None:
    """Write a new model, keep what is there under the name that is returned; with `force` it is not kept."""
    with _alone(path):
        kept = None if force else _keep(path)
        inspector.save(path)
        return kept


def _keep(path: Path) -> Path | None:
    """A copy of the file as `path`.bak, .bak2, ... whichever is free or holds the same already."""
    state = state_of(path)
    if state is None:
        return None
    number = 1
    while state_of(kept := path.with_name(f"{path.name}.bak{number if number > 1 else ''}")) not in (None, state):
        number += 1
    if not kept.exists():
        write_atomically(kept, path.read_bytes())
    return kept


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """No other process is within for the same `path`; they take turns, which are as long as one file is written."""
    path = Path(os.path.realpath(path))  # where a link leads, that is written
    with contextlib.ExitStack() as held:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            held.enter_context(turn(path.with_name(f".{path.name}.lock"), lambda: None))
        except OSError as error:
            raise OkngError(f"{path} can't be written: {error.strerror or error}") from error
        yield
