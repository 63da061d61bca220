"""Which versions of a model give the same scores: those that differ from the active one in threshold or rules alone."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from okng.errors import OkngError
from okng.inspection.inspector import Inspector
from okng.serve.models import Shelf

LAST = 8  # versions that are looked at: each is loaded once
_marks: dict[str, str] = {}  # by the digest of a version's file, which never changes


def same_scores(shelf: Shelf, name: str) -> tuple[str, ...]:
    """The digests of those of the last versions whose scores compare with the active one's, itself among them."""
    active = shelf.get(name)
    wanted = _mark(active.version.digest, active.inspector)
    found = {active.version.digest}
    for version in shelf.store.models.versions(name)[-LAST:]:
        try:
            mark = _marks.get(version.digest) or _mark(version.digest, shelf.load(name, version.version).inspector)
        except OkngError:
            continue  # its file is gone; so is the way back to it
        if mark == wanted:
            found.add(version.digest)
    return tuple(sorted(found))


def _mark(digest: str, inspector: Inspector) -> str:
    """What decides the scores: how the detector was fitted and updated, what it is calibrated on, where it looks."""
    if digest not in _marks:
        manifest: dict[str, Any] = inspector.manifest
        fitted = [manifest.get(key) for key in ("detector", "provenance")]
        seen = [inspector.preprocess.to_json(), inspector.rules.area]
        said = json.dumps([fitted, seen], sort_keys=True, default=str)
        marks = hashlib.sha256(said.encode())
        marks.update(inspector.calibration.scores.tobytes())
        _marks[digest] = marks.hexdigest()
    return _marks[digest]
