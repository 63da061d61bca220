"""From a method's name to its card, its class, and an unfitted detector. Nothing is imported until it is created.

Two ways bring a detector from outside: a package names its class as an entry point of the group "okng.detectors", or
a program hands the class itself to `okng.fit`, `create` or `okng.load`. A name out of a model file is only ever looked
up among these and okng's own: no module is imported because a file names it.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
from typing import TYPE_CHECKING, Any

from okng.detectors.arguments import checked_arguments, explained
from okng.detectors.cards import Card, cards
from okng.errors import OkngError, missing_package, nearest_names

if TYPE_CHECKING:
    from okng.detectors.base import Detector

DEFAULT = "patch_memory"
ENTRY_POINTS = "okng.detectors"
_handed: dict[str, type[Detector]] = {}  # classes that this process was given, by module:Class


def name_of(detector: str | type[Detector]) -> str:
    """The one name of `detector`, a class or a name in anyone's spelling: PatchCore, OE-SDN, "f-AnoGAN".

    A class that okng does not have is known from now on, in this process, as module:Class. The error names the nearest.
    """
    if isinstance(detector, type):
        return _name_of_class(detector)
    if not isinstance(detector, str):
        kind = type(detector).__name__
        raise OkngError(f"a detector is a name of `okng list` or a class, not a {kind}; give its arguments by name")
    if detector in cards() or detector in _handed:
        return detector
    others = installed()
    if detector in others:
        return detector
    for name in (*cards(), *others, *_handed):
        if _bare(name) == _bare(detector):
            return name
    if ":" in detector:
        raise OkngError(
            f"no installed package names {detector} as a detector, by an entry point of the group {ENTRY_POINTS}; "
            "in Python okng.fit and okng.load take the class itself"
        )
    raise OkngError(f"there is no detector {detector!r}; {nearest_names(detector.lower(), [*cards(), *others])}")


def installed() -> dict[str, importlib.metadata.EntryPoint]:
    """The detectors that installed packages bring, by name; a name that okng has itself stays okng's."""
    points = importlib.metadata.entry_points(group=ENTRY_POINTS)
    return {point.name: point for point in points if point.name not in cards()}


def find(name: str) -> Card:
    """The card of detector `name`; the error names the nearest ones."""
    name = name_of(name)
    if name in cards():
        return cards()[name]
    if name in _handed:
        said = inspect.getdoc(_handed[name]) or ""
        return _card_from_outside(name, name, said.partition("\n")[0])
    point = installed()[name]
    bringer = f"{point.dist.name} {point.dist.version}" if point.dist is not None else point.module
    return _card_from_outside(name, point.value, f"Brought by the package {bringer}.")


def detector_class(detector: str | type[Detector]) -> type[Detector]:
    """Import the class of `detector`, a name or the class itself."""
    name = name_of(detector)
    if name in _handed:
        return _handed[name]
    point = None if name in cards() else installed()[name]
    try:
        if point is None:
            module, _, attribute = cards()[name].target.partition(":")
            found = getattr(importlib.import_module(f"okng.detectors.{module}"), attribute)
        else:
            found = point.load()
    except ModuleNotFoundError as error:
        raise missing_package(error) or OkngError(f"{name} can't be imported: {error}; install it") from error
    except Exception as error:  # a package from outside may fail in any way
        if point is None:
            raise
        raise OkngError(f"{name} can't be imported from {point.value} ({error}); reinstall or repair it") from error
    return _checked(found)


def parameters(detector: str | type[Detector]) -> dict[str, inspect.Parameter]:
    """The constructor's keyword arguments of `detector`, which are its whole configuration."""
    return dict(inspect.signature(detector_class(detector), eval_str=True).parameters)


def explanations(detector: str | type[Detector]) -> dict[str, str]:
    """What the class's docstring says of each parameter, blank where it says nothing."""
    return explained(inspect.getdoc(detector_class(detector)) or "", parameters(detector))


def create(detector: str | type[Detector], /, **arguments: Any) -> Detector:
    """Build an unfitted detector, by name or class; `arguments` are its constructor's, checked by name and type.

    One number serves where several are taken, a list as a tuple, and a NumPy scalar as the number it is.

    >>> create("patchcore", coreset=0.05)  # doctest: +SKIP
    """
    name = name_of(detector)
    known = parameters(name)
    taken = checked_arguments(name, known, arguments)
    try:
        built = detector_class(name)(**taken)
    except OkngError as error:
        raise OkngError(f"{name}: {error}") from error
    built.name = name
    built.arguments = {key: taken.get(key, p.default) for key, p in known.items()}
    return built.eval()


def _name_of_class(kind: type[Detector]) -> str:
    target = f"{_checked(kind).__module__}:{kind.__qualname__}"
    for name, card in cards().items():
        if target == f"okng.detectors.{card.target}":
            return name
    for name, point in installed().items():
        if target == point.value:
            return name
    _handed[target] = kind
    return target


def _checked(kind: Any) -> type[Detector]:
    from okng.detectors.base import Detector

    if not (isinstance(kind, type) and issubclass(kind, Detector)):
        what = getattr(kind, "__name__", repr(kind))
        raise OkngError(f"{what} is no detector; make it a subclass of okng.detectors.base.Detector")
    return kind


def _card_from_outside(name: str, target: str, idea: str) -> Card:
    unknown: dict[str, Any] = {"paper": "", "year": None, "good_for": "", "finds": None, "localizes": None}
    title = name.rpartition(":")[2]
    return Card(target, title, "from outside", idea=idea, labels="", left_out="", **unknown)


def _bare(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "").replace(" ", "")
