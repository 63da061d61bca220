"""A digest of the code that a detector's figures came of, so that a figure of other code can be told."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import okng
from okng import checks
from okng.detectors.cards import cards

PACKAGE = Path(okng.__file__).parent
# What any method stands on. Nor is the frame counted (training/, inspection/): a change of it that moves figures moves
# those of all detectors, and is a matter of the tests that compare bits.
LEFT_OUT = ("okng.errors", "okng.checks", "okng.detectors.checks", "okng.detectors.base")  # the third until they moved


def code_digest(detector: str, package: Path = PACKAGE) -> str:
    """Twelve hexadecimal digits of what the module of `detector` defines, and all okng modules that it builds on.

    What computes no figure does not count: comments, docstrings, layout, the order of definitions and the module they
    stand in, what refuses arguments. Nothing is imported, so it needs no torch. Empty for what is no detector of the
    catalogue, or not in this `package`.
    """
    if detector not in cards():
        return ""
    waiting = ["okng.detectors." + cards()[detector].target.partition(":")[0]]
    seen: set[str] = set()
    definitions: list[str] = []
    while waiting:
        module = waiting.pop()
        path = package.joinpath(*module.split(".")[1:]).with_suffix(".py")
        if module not in seen and not module.startswith(LEFT_OUT) and path.is_file():
            seen.add(module)
            imported, defined = _read(path.read_text(encoding="utf-8"))
            waiting += imported
            definitions += defined
    return hashlib.sha256("\n".join(sorted(filter(None, definitions))).encode()).hexdigest()[:12] if seen else ""


@cache
def present_code(detector: str) -> str:
    """The digest of `detector` as it is installed."""
    return code_digest(detector)


def is_older(row: dict[str, str]) -> bool:
    """Whether a row of figures is not known to be of the present code of its detector."""
    return row.get("code", "") != present_code(row.get("detector", ""))


@cache
def _read(text: str) -> tuple[list[str], list[str]]:
    """The okng modules that a module's text may import, and its definitions; most detectors share some modules."""
    tree = ast.parse(text)
    return list(_imported(tree)), [" ".join(_words(statement)) for statement in tree.body]


def _imported(tree: ast.Module) -> Iterator[str]:
    """The okng modules it may import: of `from okng.nn.images import blur` either name may be one."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name.startswith("okng."))
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("okng."):
            yield node.module
            yield from (f"{node.module}.{name.name}" for name in node.names)


def _words(node: Any) -> Iterator[str]:
    """What the tree computes. What is empty is left out, for Pythons differ in which empty fields there are."""
    if isinstance(node, list):
        for item in node:
            yield from _words(item)
        yield "."
    elif not isinstance(node, ast.AST):
        yield repr(node)
    elif not _computes_nothing(node):
        yield type(node).__name__
        for name, value in ast.iter_fields(node):
            if value is not None and value != [] and name not in ("ctx", "kind", "type_comment"):
                yield name
                yield from _words(value)


def _computes_nothing(node: ast.AST) -> bool:
    """Imports, texts that stand alone, errors, and the checks that end in them."""
    if isinstance(node, ast.Expr):
        call = node.value.func if isinstance(node.value, ast.Call) else None
        return isinstance(node.value, ast.Constant) or (isinstance(call, ast.Name) and hasattr(checks, call.id))
    if isinstance(node, ast.If):
        return not node.orelse and all(isinstance(statement, ast.Raise) for statement in node.body)
    return isinstance(node, ast.Import | ast.ImportFrom | ast.Raise)
