"""`okng train`: a folder of OK images in, a model file out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def train(
    source: Annotated[str, typer.Argument(help="A folder of OK images, or any data set of `okng list datasets`.")],
    detector: Annotated[str, typer.Option("-d", "--detector", help="A name of `okng list`.")] = "patchcore",
    parameter: Annotated[
        list[str],
        typer.Option("-p", "--parameter", help="The detector's own, such as coreset=0.05; repeatable."),
    ] = [],  # noqa: B006
    output: Annotated[Path, typer.Option("-o", "--output", help="The model file to write.")] = Path("parts.okng"),
    size: Annotated[str | None, typer.Option(help="Area as the side of a square, or HxW. [default: 256]")] = None,
    false_alarm_rate: Annotated[float, typer.Option(help="Share of OK images that may be called NG.")] = 0.05,
    holdout: Annotated[
        float | None, typer.Option(help="Share held out for calibration; 0 cross-fits. [default: by count]")
    ] = None,
    normal: Annotated[str | None, typer.Option(help="The class that is OK, in a data set of classes.")] = None,
    seed: int = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    precision: Annotated[str, typer.Option(help="32-true, bf16-mixed or 16-mixed.")] = "32-true",
    resume: Annotated[bool, typer.Option("--resume", help="Continue a fit that was stopped.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at an unreadable image.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
) -> None:
    """Learn what OK looks like from a folder of OK images."""
    from okng.cli.common import check_writable, parse_parameters, parse_size, print_json, say, show_dataset
    from okng.datasets import open_dataset
    from okng.detectors.catalogue import find

    find(detector)
    arguments, sides = parse_parameters(parameter), parse_size(size)
    check_writable(output)
    dataset = open_dataset(source, normal, seed)
    show_dataset(dataset)

    import okng
    from okng.training.progress import Narrator

    with Narrator() as tell:
        inspector = okng.fit(
            [sample.image for sample in dataset.train],
            detector,
            size=sides,
            false_alarm_rate=false_alarm_rate,
            holdout=holdout,
            seed=seed,
            device=device,
            precision=precision,
            checkpoint=output.with_name(output.name + ".partial"),
            resume=resume,
            strict=strict,
            tell=tell,
            **arguments,
        )
    provenance = inspector.manifest["provenance"]
    provenance["source"] = dataset.name
    inspector.save(output)
    calibration = inspector.calibration
    say(f"learnt from {provenance['learnt_from']} of {provenance['images']} images in {provenance['seconds']:.0f} s")
    say(f"threshold {calibration.threshold:.4g}: {calibration.promise()}")
    say(f"wrote {output}; next: okng inspect {output} NEW_IMAGES --report report")
    if as_json:
        described = inspector.manifest | {
            "calibration": calibration.to_json(),
            "promise": calibration.promise(),
        }
        print_json({"model": str(output), "preprocess": inspector.preprocess.to_json(), **described})
