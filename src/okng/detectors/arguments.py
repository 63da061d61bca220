"""What arguments a constructor takes: checked by name and type, spelt for people, explained by its docstring."""

from __future__ import annotations

import inspect
import math
import re
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any

from okng.checks import plain, typed
from okng.errors import OkngError, nearest_names


def checked_arguments(
    detector: str, known: Mapping[str, inspect.Parameter], arguments: Mapping[str, Any]
) -> dict[str, Any]:
    """`arguments` as the `known` parameters of `detector` take them; the error names the first that they don't.

    One number serves where several are taken, a list as a tuple, a NumPy scalar as the number it is, and "none" as
    None where no other text is taken.
    """
    taken = {}
    for key, value in arguments.items():
        if key not in known:
            raise OkngError(f"{detector} has no parameter {key!r}; {nearest_names(key, known)}")
        wanted = known[key].annotation
        taken[key] = _none(_several(plain(f"{detector}: {key}", value), wanted), wanted)
        if not _fits(taken[key], wanted):
            raise OkngError(f"{detector}: {key} takes {_spell(wanted)}, not {_shown(value)}")
    return taken


def explained(docstring: str, names: Iterable[str]) -> dict[str, str]:
    """What a class's `docstring` says of each of `names`, blank where it says nothing.

    It says it as "`name`, `other`: what they are", up to the next such names or the paragraph's end; else it is the
    first explanation of another, or the first sentence, that has the parameter's name.
    """
    known = list(names)
    paragraphs = [" ".join(text.split()) for text in docstring.split("\n\n")]
    found: dict[str, str] = {}
    for paragraph in paragraphs:
        heads = list(re.finditer(r"(?:`\w+`(?:, | and )?)+: ", paragraph))
        starts = [head.start() for head in heads] + [len(paragraph)]
        for head, end in zip(heads, starts[1:], strict=True):
            for name in re.findall(r"\w+", head[0]):
                found.setdefault(name, paragraph[head.end() : end].rstrip(" ;,"))
    sentences = [sentence for text in paragraphs for sentence in re.split(r"(?<=\.) (?=[A-Z`])", text)]
    for name in known:
        found.setdefault(name, next((text for text in (*found.values(), *sentences) if f"`{name}`" in text), ""))
    return {name: found[name] for name in known}


def _fits(value: Any, wanted: Any) -> bool:
    """Whether `value` is of the annotated type; a float is finite, a whole number serves as one, a list as a tuple."""
    origin, inner = typing.get_origin(wanted), typing.get_args(wanted)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, choice) for choice in inner)
    if origin is typing.Literal:
        return value in inner
    if origin is tuple:
        if not isinstance(value, list | tuple):
            return False
        if len(inner) == 2 and inner[1] is Ellipsis:
            return all(_fits(v, inner[0]) for v in value)
        return len(value) == len(inner) and all(_fits(v, w) for v, w in zip(value, inner, strict=True))
    if wanted is float:
        return _fits(value, int) or (isinstance(value, float) and math.isfinite(value))
    if wanted is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, wanted)


def _several(value: Any, wanted: Any) -> Any:
    """`value`, or where the annotation takes several and it is one of them, a tuple of it."""
    several = typing.get_origin(wanted) is tuple and Ellipsis in typing.get_args(wanted)
    return (value,) if several and not isinstance(value, tuple) and _fits(value, typing.get_args(wanted)[0]) else value


def _shown(value: Any) -> str:
    """A value that is refused: several as they are typed, anything else as Python has it."""
    return typed(value) if isinstance(value, list | tuple) else repr(value)


def _none(value: Any, wanted: Any) -> Any:
    """`value`, or None where the annotation takes that, but no text, and it is the word: all that -p can say of it."""
    choices = typing.get_args(wanted)
    return None if value == "none" and types.NoneType in choices and str not in choices else value


def _spell(wanted: Any) -> str:
    """An annotation in words a person can act on."""
    origin, inner = typing.get_origin(wanted), typing.get_args(wanted)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_spell(choice) for choice in inner)
    if origin is typing.Literal:
        return "one of " + ", ".join(str(choice) for choice in inner)
    if origin is tuple and Ellipsis in inner:
        return "a number or several, such as 8,16"
    if origin is tuple:
        return f"numbers such as {','.join(['1'] * len(inner))}"
    names = {
        int: "a whole number",
        float: "a number",
        str: "a text",
        bool: "true or false",
        types.NoneType: "none",
    }
    return names.get(wanted, str(wanted))
