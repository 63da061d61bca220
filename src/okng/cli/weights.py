"""`okng weights`: which pre-trained weights are here, which ones a method needs, and how they come here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from okng.cli.common import print_json


def weights(
    what: Annotated[
        str | None, typer.Argument(help="A detector, for what it needs; or a file, for its checksum. Default: all.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
) -> None:
    """List pre-trained weights: whether they are here, how large, under which licence, from where."""
    from dataclasses import asdict

    from okng.detectors import weights as of

    if what is not None and Path(what).is_file():
        path = Path(what)
        size, sha256 = path.stat().st_size, of.checksum(path)
        if as_json:
            print_json({what: {"size": size, "sha256": sha256}})
        else:
            print(f"{what}  {_megabytes(size)}  sha256 {sha256}")
            print(f"next: okng train OK_DIR -p backbone=NAME -p weights={what}")
        return
    found = of.weights(what)
    if as_json:
        print_json({each.name: asdict(each) for each in found})
        return
    for each in found:
        here = {"pip": "here, by pip", "hub": "here, in the cache"}.get(each.here, "not here")
        if each.here and not each.known:
            here += ", checksum unknown"
        whose = next(iter(each.used.values())) if what is not None else _methods(len(each.used))
        print(f"{each.name:<38}{here:<20}{_megabytes(each.size):>8}  {each.licence:<16}{whose:<12}{each.url}")
    if not found:
        print(f"{what} needs no pre-trained weights")
        return
    print()
    print(
        "Weights that are not here are downloaded by the first fit that names them, where there is a network. To carry"
    )
    print("them to a machine without one: download the URL elsewhere, copy the file, and give it by its path:")
    print("okng train OK_DIR -d DETECTOR -p backbone=NAME -p weights=FILE. okng weights FILE prints its checksum.")


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.0f} MB"


def _methods(count: int) -> str:
    return f"{count} method{'s' if count > 1 else ''}"
