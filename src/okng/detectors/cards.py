"""What is to be said of each method, but for its code: the entries of the `cards.toml` in its family's folder.

They stand beside the classes rather than on them, so that reading them needs no torch.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from okng.errors import OkngError, nearest_names

FINDS = ("defects", "classes", "both")


@dataclass(frozen=True)
class Card:
    """What a person wants to know before choosing, and what a method is run with.

    `target`: module:Class; in cards.toml within the family's folder, here below `okng.detectors`. `title`, `paper`
    (whose, what, where) and `year`: as the literature has them. `idea`, `good_for`: a sentence and a clause that
    `okng list` prints. `finds`: "defects", which are a part of an image that looks OK elsewhere; "classes", images of
    another kind than the OK ones; or "both". `localizes`: whether it says where. `labels`: what it learns from, if not
    OK images only; it names `--auxiliary` where such images can be used. `updates`: whether a fitted one learns more OK
    images without the old ones. `bounded`: whether what it collects, where it takes no gradient steps, is no larger for
    more images. `left_out`: what a paper's training has and the budget "paper" has not, beyond the docstring's
    "Deliberately otherwise".

    `arguments` of the constructor, for each of these, {} for the defaults; `size` is that of `okng.fit`. "contract":
    so small that the tests fit it in seconds, with 2 epochs and batches of 4 where it says nothing else. "cpu-small":
    minutes per fit on one core for images of 28 to 32 px, such as MNIST, Fashion-MNIST, CIFAR-10, COCO crops;
    "cpu-large": for photographs, a few hundred per fit, such as MVTec AD, magnetic tile, video frames; either is left
    out where nobody has chosen it yet. Both are chosen by the papers, by what an epoch costs and by OK images; what was
    known of test figures then is in docs/choices.md. "paper": what the paper states, beside the defaults, which are
    the paper's or its authors' code's where the docstring says nothing else.

    For the tests of the contract, where it applies: `unexplained`, why Grad-CAM can't explain it; `harmless_rates`,
    rates that no fit diverges at, however absurd.

    Of a detector from outside the target is the whole module:Class, and what only its class knows is left blank.
    """

    target: str
    title: str
    family: str
    paper: str
    year: int | None
    idea: str
    good_for: str
    finds: str | None
    localizes: bool | None
    left_out: str
    labels: str = "OK images only"
    updates: bool = False
    bounded: bool = False
    unexplained: str = ""
    harmless_rates: tuple[str, ...] = ()
    arguments: dict[str, dict[str, Any]] = field(default_factory=dict)


_KEYS: dict[str, type] = {
    "target": str, "title": str, "paper": str, "year": int, "idea": str, "good_for": str, "finds": str,
    "localizes": bool, "left_out": str, "arguments": dict,
}  # fmt: skip
_MAY_LACK: dict[str, type] = {
    "labels": str, "updates": bool, "bounded": bool, "unexplained": str, "harmless_rates": tuple,
}  # fmt: skip
_RUNS, _RUNS_MAY_LACK = ("contract", "paper"), ("cpu-small", "cpu-large")


@cache
def cards() -> dict[str, Card]:
    """The card of every method that okng has, by its public name, in order."""
    found: dict[str, Card] = {}
    for path in sorted(Path(__file__).parent.glob("*/cards.toml")):
        for name, card in read_cards(path).items():
            if name in found:
                raise OkngError(f"{path}: {name}: the family {found[name].family} has a method of this name")
            found[name] = card
    return dict(sorted(found.items()))


def read_cards(path: Path) -> dict[str, Card]:
    """The cards of a family; the error for an entry that can't be used names file, method and key."""
    try:
        entries = _with_tuples(tomllib.loads(path.read_text(encoding="utf-8")))
    except tomllib.TOMLDecodeError as error:
        raise OkngError(f"{path}: {error}") from error
    for name, entry in entries.items():
        if not isinstance(entry, dict):
            raise OkngError(f"{path}: {name} belongs to no method; an entry begins with the method's [name]")
    return {name: _card(f"{path}: {name}", entry, path.parent.name) for name, entry in entries.items()}


def _card(where: str, entry: dict[str, Any], folder: str) -> Card:
    """The card of one entry, once its keys are those that there are and its values are of their types."""
    _check_keys(where, entry, _KEYS, _MAY_LACK)
    for key, value in entry.items():
        wanted = {**_KEYS, **_MAY_LACK}[key]
        if type(value) is not wanted:
            spelt = {str: 'a "text"', int: "a whole number", bool: "true or false", tuple: "a [list]", dict: "a table"}
            raise OkngError(f"{where}: {key} takes {spelt[wanted]}, not {value!r}")
    if entry["finds"] not in FINDS:
        raise OkngError(f"{where}: finds takes one of {', '.join(FINDS)}, not {entry['finds']!r}")
    _check_keys(f"{where}: arguments", entry["arguments"], _RUNS, _RUNS_MAY_LACK)
    for run, arguments in entry["arguments"].items():
        if not isinstance(arguments, dict):
            raise OkngError(f"{where}: arguments: {run} takes {{ name = value, ... }}, not {arguments!r}")
    return Card(**{**entry, "target": f"{folder}.{entry['target']}", "family": folder.replace("_", " ")})


def _check_keys(where: str, entry: dict[str, Any], needed: Any, may_lack: Any) -> None:
    for key in entry:
        if key not in (*needed, *may_lack):
            raise OkngError(f"{where}: {key} is no key; {nearest_names(key, (*needed, *may_lack))}")
    for key in needed:
        if key not in entry:
            raise OkngError(f"{where}: {key} is missing")


def _with_tuples(value: Any) -> Any:
    """TOML's arrays as tuples, as constructors take them."""
    if isinstance(value, dict):
        return {key: _with_tuples(inner) for key, inner in value.items()}
    return tuple(map(_with_tuples, value)) if isinstance(value, list) else value
