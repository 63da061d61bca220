"""`okng compare`: several methods on the same images, on one page."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from okng.cli.common import ABNORMAL, AUXILIARY, DEVICE, LANGUAGE, NORMAL, PROTOCOL, RAY, TIME_LIMIT


def compare(
    data: Annotated[list[str], typer.Argument(help="Data sets, as for `okng train`, or folders of OK images alone.")],
    detectors: Annotated[
        list[str],
        typer.Option(
            "-d",
            "--detectors",
            help="Names of `okng list` with commas between them, or all. Default: all, quickest first.",
        ),
    ] = [],  # noqa: B006
    family: Annotated[str | None, typer.Option(help="All of a family, such as 'feature matching'.")] = None,
    budget: Annotated[str, typer.Option(help="cpu, minutes per fit on one core, or paper, the papers' size.")] = "cpu",
    seeds: Annotated[int, typer.Option(min=1, help="How many fits of each, with the seeds 0, 1, ...")] = 1,
    time_limit: Annotated[str | None, typer.Option(help=TIME_LIMIT)] = None,
    auxiliary: Annotated[Path | None, typer.Option(help=AUXILIARY)] = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for pages and tables.")] = Path("comparison"),
    language: Annotated[str, typer.Option(help=LANGUAGE)] = "en",
    false_alarm_rate: Annotated[float, typer.Option(help="Share of OK images that may be called NG.")] = 0.05,
    normal: Annotated[str | None, typer.Option(help=NORMAL)] = None,
    protocol: Annotated[str | None, typer.Option(help=PROTOCOL)] = None,
    abnormal: Annotated[str | None, typer.Option(help=ABNORMAL)] = None,
    device: Annotated[str, typer.Option(help=DEVICE)] = "auto",
    ray: Annotated[str | None, typer.Option(help=RAY)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
) -> None:
    """Compare methods: what each finds and costs, and which differences are real; goes on where it stopped."""
    import okng
    from okng.cli.common import check_writable, print_json, say, show_dataset
    from okng.comparing.comparison import of_family
    from okng.datasets import open_dataset
    from okng.errors import OkngError
    from okng.report.language import translator
    from okng.training.progress import Narrator

    names = [name.strip() for text in detectors for name in text.split(",") if name.strip()]
    if names and family is not None:
        raise OkngError("give names with -d or a --family, not both")
    translator(language)
    check_writable(output / "comparison.html")
    opened = [open_dataset(source, normal, 0, protocol, abnormal) for source in data]
    for dataset in opened:
        show_dataset(dataset)
    chosen = of_family(family) if family is not None else None if names in ([], ["all"]) else names
    words = shlex.join(["okng", *sys.argv[1:]])
    try:
        with Narrator() as tell:
            found = okng.compare(
                opened, chosen, seeds=seeds, time_limit=time_limit, budget=budget, auxiliary=auxiliary, output=output,
                false_alarm_rate=false_alarm_rate, device=device, ray=ray, command=words, language=language,
                tell=tell,
            )  # fmt: skip
    except KeyboardInterrupt:
        say(f"what is measured is kept in {output}: the same command goes on")
        raise
    if as_json:
        print_json(found.to_json())
    else:
        print(found)
    pages = [str(compared.page) for compared in found.sets]
    if len(pages) > 1:
        pages.append(str(output / "ranks.html"))
    say(f"wrote {', '.join(pages)}")
    if found.left:
        left = "; ".join(found.left[:5]) + (" …" if len(found.left) > 5 else "")
        say(f"{len(found.left)} fits had no time left ({left}); the same command goes on")
