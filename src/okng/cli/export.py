"""`okng export`: a model file as one ONNX file for the line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from okng.cli.common import NORMAL


def export(
    model: Annotated[Path, typer.Argument(help="The model file that `okng train` wrote.")],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Default: the model's name, .onnx.")] = None,
    precision: Annotated[str, typer.Option(help="f32, or bf16 where the line's CPU has it.")] = "f32",
    calibrate: Annotated[
        str | None, typer.Option(help="For bf16: new OK images, or a labelled data set whose test part has them.")
    ] = None,
    normal: Annotated[str | None, typer.Option(help=NORMAL)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
) -> None:
    """Write the whole detector as ONNX, for OpenVINO or ONNX Runtime, and check it against PyTorch."""
    from dataclasses import asdict

    from okng.cli.common import check_writable, open_model, print_json, say
    from okng.datasets import open_dataset

    output = output or model.with_suffix(".onnx")
    check_writable(output)
    inspector = open_model(model)
    from okng.exporting import export as write

    images = None if calibrate is None else open_dataset(calibrate, normal)
    done = write(inspector, output, precision=precision, calibrate=images)
    parity, drift = done.parity, done.drift
    told: dict[str, Any] = {"model": str(output), "precision": precision, "parity": asdict(parity)}
    if drift is not None:
        told["drift"] = asdict(drift)
    maps = "" if parity.map is None else f", maps by {parity.map:.1e}"
    say(f"ONNX Runtime against PyTorch on {parity.images} images: scores differ by {parity.score:.1e} at most{maps}")
    if drift is not None:
        moved = f"{drift.typical:.2%} of the largest OK one, at most {drift.worst:.2%}"
        say(f"{precision} against f32: scores move by {moved}")
        say(f"verdicts differ on {drift.verdicts} of {drift.images} images, calibrated on {drift.ok} OK ones")
        if drift.auroc is not None:
            say(f"image AUROC {drift.auroc[precision]:.4f} at {precision}, {drift.auroc['f32']:.4f} at f32")
    say(f"wrote {output}; next: okng inspect {output} NEW_IMAGES")
    if as_json:
        print_json(told)
