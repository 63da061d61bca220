"""`okng reproduce`: a published table, run cell by cell."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from okng.cli.common import RAY, TIME_LIMIT


def reproduce(
    table: Annotated[str, typer.Argument(help="A name of `okng list tables`.")],
    data: Annotated[Path, typer.Argument(help="The folder that holds mnist/, cifar10/, mvtec_ad/ and so on.")],
    budget: Annotated[str, typer.Option(help="cpu, minutes per fit on one core, or paper, the full size.")] = "cpu",
    methods: Annotated[
        list[str], typer.Option(help="As printed or by detector, such as AE,SDN; repeatable. Default: all.")
    ] = [],  # noqa: B006
    classes: Annotated[list[str], typer.Option(help="Such as 3,8 or airplane; repeatable. Default: all.")] = [],  # noqa: B006
    out: Annotated[Path, typer.Option("-o", "--output", "--out", help="Folder for the figures.")] = Path("results"),
    seed: Annotated[int, typer.Option(min=0)] = 0,
    time_limit: Annotated[str | None, typer.Option(help=TIME_LIMIT)] = None,
    ray: Annotated[str | None, typer.Option(help=RAY)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
) -> None:
    """Measure the cells of a published table and print both figures side by side; goes on where it stopped."""
    from okng.benchmark import beside
    from okng.benchmark.reproduce import NO_TIME, results_file, standing
    from okng.benchmark.reproduce import reproduce as run
    from okng.benchmark.tables import TABLES
    from okng.checks import seconds_of
    from okng.cli.common import check_writable, print_json, say
    from okng.errors import OkngError, nearest_names
    from okng.inspection.model_file import write_atomically
    from okng.training.progress import Narrator

    if table not in TABLES:
        raise OkngError(f"there is no table {table!r}; {nearest_names(table, TABLES)}")
    path = results_file(table, out)
    check_writable(path)
    seconds = seconds_of(time_limit)
    minutes = None if seconds is None else seconds / 60
    with Narrator() as tell:
        outcomes = run(TABLES[table], data.expanduser(), budget, methods, classes, out, seed, minutes, tell, ray)
    drawing = path.with_suffix(".svg")
    drawn = standing(TABLES[table], out, budget, seed)  # with what was measured before
    write_atomically(drawing, beside.as_svg(TABLES[table], drawn).encode())
    if as_json:
        cells = [{**outcome.row, "value": outcome.value, "reason": outcome.reason} for outcome in outcomes]
        print_json({"table": table, "cells": cells, "notes": TABLES[table].notes(), "drawing": str(drawing)})
    else:
        print("\n".join(beside.as_text(TABLES[table], outcomes)))
    left = sum(outcome.reason == NO_TIME for outcome in outcomes)
    written = f"{path} and {drawing}" if path.exists() else drawing
    say(f"wrote {written}" + (f"; {left} cells are left, the same command goes on" if left else ""))
