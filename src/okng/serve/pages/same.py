"""Which versions of a model give the same scores: those that differ from the active one in threshold or rules alone."""

from __future__ import annotations

from okng.errors import OkngError
from okng.serve.models import Shelf

LAST = 8  # versions that are looked at: each is loaded once
_marks: dict[tuple[str, str], str] = {}  # by the model and the digest of a version's file, which never changes


def same_scores(shelf: Shelf, name: str) -> tuple[str, ...]:
    """The digests of those of the last versions whose scores compare with the active one's, itself among them."""
    active = shelf.get(name)
    found = {active.version.digest}
    for version in shelf.store.models.versions(name)[-LAST:]:
        key = (name, version.digest)
        try:
            if key not in _marks:
                _marks[key] = shelf.load(name, version.version).mark
        except OkngError:
            continue  # its file is gone; so is the way back to it
        if _marks[key] == active.mark:
            found.add(version.digest)
    return tuple(sorted(found))
