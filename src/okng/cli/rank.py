"""`okng rank`: unlabelled images that score one another."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from okng.cli.common import print_json, say


def rank(
    images: Annotated[list[Path], typer.Argument(help="Unlabelled images, or folders or lists of them; most are OK.")],
    param: Annotated[
        list[str] | None, typer.Option("-p", "--param", help="KEY=VALUE of MuSc: backbone, strides, blocks, weights, …")
    ] = None,
    size: Annotated[int, typer.Option(help="The area of an input as the side of a square.")] = 256,
    together: Annotated[int, typer.Option(help="How many images at most score one another.")] = 100,
    seed: Annotated[int, typer.Option(min=0, help="Divides more images than that into parts.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
) -> None:
    """Order unlabelled images by how odd each is among the others: no OK images, no verdict, and no promise."""
    from okng.cli.common import parse_parameters
    from okng.training.progress import Narrator
    from okng.unlabelled.rank import rank as ranked

    with Narrator() as tell:
        found = ranked(images, size=size, together=together, seed=seed, tell=tell, **parse_parameters(param or []))
    if as_json:
        print_json({"images": [{"path": each.path, "score": each.score} for each in found]})
    else:
        for each in found:
            print(f"{each.score:.4f}  {each.path}")
    say("scores hold among these images alone, and promise nothing: look through the first ones, and")
    say("next: okng train FOLDER_OF_THE_OK_ONES")
