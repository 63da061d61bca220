"""`okng sensitivity`: what a model would find, by defects planted into OK images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from okng.cli.common import DEVICE, LANGUAGE, PRODUCT


def sensitivity(
    model: Annotated[Path, typer.Argument(help="The model file of `okng train` or `okng export`.")],
    images: Annotated[
        list[Path], typer.Argument(help="OK images, or folders or lists of them; those learnt are left out.")
    ],
    kinds: Annotated[
        str | None,
        typer.Option(
            help="Some of scratch, spot, stain, dent, smear, texture, missing, displaced, doubled, with commas between "
            "them. Default: all nine."
        ),
    ] = None,
    plants: Annotated[
        int | None, typer.Option(help="How many of each kind and size. Default: 20, fewer for large inputs.")
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Folder for a page with curves and examples.")] = None,
    language: Annotated[str, typer.Option(help=LANGUAGE)] = "en",
    csv: Annotated[
        Path | None, typer.Option(help="File for one line per kind and size; - for standard output.")
    ] = None,
    product: Annotated[str | None, typer.Option(help=PRODUCT)] = None,
    false_alarm_rate: Annotated[float | None, typer.Option(help="Another rate than the model's.")] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    device: Annotated[str, typer.Option(help=DEVICE)] = "cpu",
    engine: Annotated[str, typer.Option(help="auto, torch, onnxruntime or openvino.")] = "auto",
    precision: Annotated[str | None, typer.Option(help="f32 or bf16. Default: the file's.")] = None,
    threads: Annotated[int | None, typer.Option(help="CPU cores to use. Default: all.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
) -> None:
    """Plant defects of known kind and size into OK images and say from which size on the model finds them."""
    from okng.cli.common import check_writable, open_model, print_json, say
    from okng.errors import OkngError
    from okng.inspection.model_file import write_atomically
    from okng.inspection.reading.formats import exists
    from okng.inspection.storage.urls import shown
    from okng.planted.measure import sensitivity as measure
    from okng.planted.result import as_csv, lines
    from okng.report.language import translator
    from okng.training.progress import Narrator

    say_of_page = translator(language)
    printed = str(csv) in ("-", "/dev/stdout")
    if printed and as_json:
        raise OkngError("--json and --csv - both want standard output; give --csv the name of a file")
    if csv is not None and not printed:
        check_writable(csv, "--csv", "sensitivity.csv")
    if report is not None:
        check_writable(report / "sensitivity.html", "--report")
    if missing := [path for path in images if not exists(path)]:
        raise OkngError(f"{missing[0]} does not exist; give OK images or folders of OK images")
    inspector = open_model(
        model, false_alarm_rate, product=product, device=device, engine=engine, precision=precision, threads=threads
    )
    wanted = None if kinds is None else [kind.strip().lower() for kind in kinds.split(",") if kind.strip()]
    with Narrator() as tell:
        tell.hint = "; --plants 5 takes a quarter of the time of 20"
        result = measure(inspector, images, kinds=wanted, plants=plants, seed=seed, tell=tell)
    for line in lines(result):
        say(line)
    if csv is not None and not printed:
        write_atomically(csv, as_csv(result).encode())
        say(f"wrote {csv}")
    if report is not None:
        from okng.report.sensitivity import write_sensitivity

        title = say_of_page("title.sensitivity", model=Path(shown(model)).name)
        say(f"wrote {write_sensitivity(report / 'sensitivity.html', title, inspector, result, language)}")
    if printed:
        print(as_csv(result), end="")
    if as_json:
        print_json({"model": shown(model), **result.to_json()})
