"""Folders OK and NG, with a copy of each image or a link to it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from okng.errors import OkngError
from okng.inspection.model_file import short_name, write_atomically
from okng.inspection.outputs import VERDICTS
from okng.inspection.reading.decoding import digest
from okng.inspection.reading.formats import Encoded, named_page
from okng.line.sinks import Message, Sink, Undeliverable


class Folders:
    """FOLDER/VERDICT/NAME-DIGITS.SUFFIX, the digits drawn from the image's path and, of a copy, its content.

    So an image that is judged again, by another model or at another threshold, lies under its last verdict alone. No
    copy takes the place of another image's, as where a camera begins again with its first name. A link is one for each
    path, and a newer file's takes its place: who writes over a file changes what its link shows, too. What "link" has
    from the store is a copy.
    "copy" takes the file, or where it is gone or was changed the image in the store; "link" is a second name for the
    file itself (a hard link), or a copy where the file system has none. Of a page of a file the whole file is taken.
    """

    batch, patience = 1, 0.0

    def __init__(self, kind: str, where: str):
        if not where:
            raise OkngError(f"{kind} takes a folder: {kind}:sorted")
        self.folder = Path(where).expanduser().absolute()
        self.name = f"{kind}:{self.folder}"
        self.linked = kind == "link"
        if self.folder.exists() and not self.folder.is_dir():
            raise OkngError(f"{self.folder} is a file; give {kind}:FOLDER a folder")

    def check(self, source: str, there: bool, kept: bool) -> None:
        """`OkngError` where this sink would miss images of `source`, whose files stay `there`, or `kept` in the store.

        And where it would put its copies into the folder that is watched.
        """
        if self.folder.resolve().is_relative_to(source):
            raise OkngError(f"{self.folder} lies in the folder that is watched; choose another one for the copies")
        if not (there or kept):
            raise OkngError(
                f"{self.name} has to take images from the store, as no files stay in place; add: --keep-images all"
            )

    def open(self) -> None:
        """Make the folders."""
        for verdict in VERDICTS:
            (self.folder / verdict).mkdir(parents=True, exist_ok=True)

    def send(self, messages: Sequence[Message]) -> None:
        """Put each where it belongs."""
        for message in messages:
            self._put(message)

    def close(self) -> None:
        """There is nothing to close."""

    def _put(self, message: Message) -> None:
        if message.path is None:
            raise Undeliverable(
                f"record {message.body['id']} has no name by which its image could be put into a folder"
            )
        path, page = named_page(message.path) or (Path(message.path), None)
        wanted = message.body["digest"]
        known = _same(path, page, wanted)
        suffix = ".png" if "[frame " in message.path and not known else path.suffix
        by_path, by_content = (
            f"{short_name(Path(message.path).stem, 200)}-{hashlib.sha256(told.encode()).hexdigest()[:8]}{suffix}"
            for told in (message.path, f"{wanted} {message.path}")
        )
        target = self.folder / message.verdict / (by_path if self.linked else by_content)
        if not (known and _placed(path, target, self.linked)):
            content = message.image()
            if content is None:
                raise Undeliverable(
                    f"{message.path} is gone or was changed, and the store keeps no image of it (--keep-images)"
                )
            target = target.with_name(by_content)
            write_atomically(target, content)
        for folder in (self.folder / verdict for verdict in VERDICTS):
            if folder / by_content != target:
                (folder / by_content).unlink(missing_ok=True)
            # a link to this image, when its file was still there, or a copy by an older version
            if folder / by_path != target and (target.name == by_path or _same(folder / by_path, page, wanted)):
                (folder / by_path).unlink(missing_ok=True)


def check_folders(sinks: Sequence[Sink], source: str, there: bool, kept: bool) -> None:
    """`Folders.check` for those of `sinks` that are folders."""
    for sink in sinks:
        if isinstance(sink, Folders):
            sink.check(source, there, kept)


def _same(path: Path, page: int | None, wanted: str) -> bool:
    """Whether the file is still the one that was judged."""
    with contextlib.suppress(OSError, OkngError):
        return path.is_file() and digest(Encoded(path.read_bytes(), page)) == wanted
    return False


def _placed(path: Path, target: Path, linked: bool) -> bool:
    """Link or copy a file under another name at once, in place of what has that name; False if it was just moved."""
    temporary = target.with_name(f".{target.name}.part")
    temporary.unlink(missing_ok=True)
    try:
        if linked:
            with contextlib.suppress(OSError):
                os.link(path, temporary)
        if not temporary.exists():
            shutil.copyfile(path, temporary)
        temporary.replace(target)
        if linked:  # renaming a link onto another one of the same file does nothing
            temporary.unlink(missing_ok=True)
    except OSError:
        temporary.unlink(missing_ok=True)
        if path.exists() or not target.parent.is_dir():
            raise
        return False
    return True
