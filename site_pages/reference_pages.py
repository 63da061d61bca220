"""Reference pages that are read off the code: the command line, the REST interface, data sets."""

from __future__ import annotations

import inspect
from typing import Any

import typer
from fastapi import FastAPI
from fastapi.routing import APIRoute
from method_pages import cell

from okng.cli import app
from okng.cli.list_ import DATASETS, SINKS, SOURCES
from okng.serve.routes import ROUTERS

CLI = """# Command line

Every verb of `okng`, read off the program itself. `okng VERB --help` says the same. A mistake is one line and exit code
1; Ctrl-C is 130; with `--fail-on-ng`, 3 says that an image is NG or could not be read. `--json` prints one object on
standard output; everything for people goes to standard error. `okng --install-completion` completes verbs and options.

## A project's defaults

A file `okng.toml` in the folder where you type gives options other defaults, in a table for each verb. What you type
goes before it. A wrong name is an error, and a line says what was read. `okng --config FILE VERB …` takes another file.

```toml
[train]
size = 384
false-alarm-rate = 0.02
parameter = ["coreset=0.05"]

[inspect]
report = "report"
language = "ko"
```
"""
REST = """# REST interface

What `okng serve` answers, read off the program itself; a running server has the whole at `/docs`, with a form for each
request, and at `/openapi.json` for programs. How it is used, with `curl` lines that run: [Serving a line](../serve.md).

Each route needs a role: `inspect`, `review` or `admin`; each has what the ones before it may. A program sends
`Authorization: Bearer TOKEN`. Every error is JSON, `{"error": "one line"}`, with the status 4xx or 503.
"""


def pages() -> dict[str, str]:
    """The text of each page by its address."""
    return {"reference/cli.md": cli(), "reference/rest.md": rest()}


def data_sets() -> str:
    """The layouts that okng opens."""
    return "\n".join(["| | |", "|---|---|", *(f"| {cell(name)} | {cell(said)} |" for name, said in DATASETS.items())])


def cli() -> str:
    """A section for each verb, with a table of what it takes."""
    verbs = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    return "\n".join([CLI, *(verb(name, command) for name, command in verbs.items()), ends()])


def verb(name: str, command: Any) -> str:
    """Its sentence, how it is typed, and each argument and option."""
    arguments = [one for one in command.params if one.param_type_name == "argument"]
    typed = " ".join(argument_name(one) for one in arguments)
    lines = [f"## okng {name}", "", command.help or "", "", f"    okng {name} {typed}".rstrip(), ""]
    lines += ["| | | default |", "|---|---|---|"]
    for one in command.params:
        is_argument = one.param_type_name == "argument"
        spelt = argument_name(one) if is_argument else ", ".join(f"`{text}`" for text in one.opts)
        takes = "" if is_argument or one.is_flag else f" {one.type.name.upper()}"
        default = one.default
        shown = "" if default in (None, False, (), []) or callable(default) else f"`{default}`"
        lines.append(f"| {spelt}{takes} | {cell(one.help or '')} | {shown} |")
    return "\n".join(lines) + "\n"


def argument_name(one: Any) -> str:
    """FOLDER, [FOLDER] or [FOLDER]..., as help has it."""
    name = (one.metavar or one.name).upper().rstrip("_")
    many = "..." if one.nargs == -1 else ""
    return f"{name}{many}" if one.required else f"[{name}]{many}"


def ends() -> str:
    """What `okng watch` takes images from, and where verdicts go."""
    lines = ["## Sources and sinks", ""]
    for title, found in (("source of `okng watch`", SOURCES), ("`--to`", SINKS)):
        lines += [f"| {title} | |", "|---|---|", *(f"| `{name}` | {cell(said)} |" for name, said in found.items()), ""]
    return "\n".join(lines)


def rest() -> str:
    """A section for each subject, with its routes, the least role, and parameters."""
    application = FastAPI()
    for router in ROUTERS:
        application.include_router(router)
    described = application.openapi()["paths"]
    subjects: dict[str, list[str]] = {}
    for route in (r for router in ROUTERS for r in router.routes if isinstance(r, APIRoute)):
        for method in sorted(route.methods & {"GET", "POST", "PUT", "DELETE"}):
            operation = described.get(route.path, {}).get(method.lower())
            if operation is not None:
                subjects.setdefault(str((operation.get("tags") or ["other"])[0]), []).append(
                    described_route(method, route, operation)
                )
    return "\n".join(
        [REST, *(f"## {subject.capitalize()}\n\n" + "\n".join(found) for subject, found in subjects.items())]
    )


def described_route(method: str, route: APIRoute, operation: dict[str, Any]) -> str:
    """What a route is for, who may ask, and what it takes."""
    said = " ".join((operation.get("description") or operation.get("summary") or "").split())
    lines = [f"### {method} {route.path}", "", f"{said} Role: {role(route)}.".strip(), ""]
    taken = [one for one in operation.get("parameters", []) if one["in"] in ("path", "query")]
    if taken:
        lines += ["| parameter | in | |", "|---|---|---|"]
        for one in taken:
            about = one.get("description", "") or one["schema"].get("description", "")
            lines.append(f"| `{one['name']}` | {one['in']} | {cell(about)} |")
        lines.append("")
    bodies = list(operation.get("requestBody", {}).get("content", {}))
    return "\n".join([*lines, f"Body: {', '.join(f'`{kind}`' for kind in bodies)}.\n" if bodies else ""])


def role(route: APIRoute) -> str:
    """The least role that may ask, as the route's own dependency names it."""
    for dependency in route.dependant.dependencies:
        found = inspect.getclosurevars(dependency.call).nonlocals.get("role") if dependency.call else None
        if found:
            return f"`{found}`"
    return "none"


TABLES = {"<!-- made: data sets -->": data_sets}
