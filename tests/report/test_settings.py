"""How the tables of settings call things."""

from __future__ import annotations

import inspect
import re
from types import SimpleNamespace
from typing import Any

import numpy as np

from okng.detectors.cards import cards
from okng.detectors.catalogue import detector_class, parameters
from okng.inspection.inspector import Inspector
from okng.inspection.reading.images import Preprocess
from okng.inspection.verdict.calibration import Calibration
from okng.report.settings import settings


def named(manifest: dict[str, Any]) -> list[str]:
    calibration = Calibration(np.zeros(1), None, "none", 0.5, np.inf, None, "")
    engine: Any = SimpleNamespace()
    tables = settings(Inspector(engine, Preprocess("RGB", 64), calibration, manifest), {})
    return [name for title in ("Detector", "Fit") for name, _ in tables.get(title, [])]


def test_what_the_literature_writes_in_capitals_has_them_in_the_names_of_arguments() -> None:
    """Any word of an argument that its detector's docstring has in capitals alone: SSPCAB, SVDD."""
    found = set()
    for name in cards():
        text, known = inspect.getdoc(detector_class(name)) or "", parameters(name)
        titles = " ".join(named({"detector": {"name": name, "arguments": dict.fromkeys(known, 1)}})).split()
        capitals = {w.upper() for key in known for w in key.split("_") if re.search(rf"\b{w.upper()}\b", text)}
        assert capitals <= {*titles}, name
        found |= capitals
    assert found >= {"SSPCAB", "SVDD"}


def test_counts_of_a_fit_are_called_as_people_write_them() -> None:
    provenance = {"images": 1, "ng_images": 2, "auxiliary_images": 3, "learnt_from": 4, "torch": "2"}
    assert named({"okng": "1", "provenance": provenance}) == [
        "Images", "NG images", "Auxiliary images", "Learnt from", "PyTorch", "okng version",
    ]  # fmt: skip
