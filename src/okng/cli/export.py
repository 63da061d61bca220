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
    import tempfile
    from dataclasses import asdict

    from okng.cli.common import check_writable, open_model, print_json, say
    from okng.datasets import open_dataset
    from okng.errors import OkngError

    if precision not in ("f32", "bf16"):
        raise OkngError(f"--precision is f32 or bf16, not {precision!r}")
    if (precision == "bf16") != (calibrate is not None):
        raise OkngError(
            "bf16 moves the scores, so its threshold needs OK images the model has not learnt from; "
            "give both: --precision bf16 --calibrate NEW_OK_IMAGES"
        )
    output = output or model.with_suffix(".onnx")
    if output.suffix != ".onnx":
        raise OkngError(f"{output} is to be an ONNX file; give it a name that ends in .onnx")
    check_writable(output)
    inspector = open_model(model)
    from okng.export import export_onnx, recalibrate

    told: dict[str, Any] = {"model": str(output), "precision": precision}
    with tempfile.TemporaryDirectory() as folder:
        at_f32 = output if calibrate is None else Path(folder) / "f32.onnx"
        parity = export_onnx(inspector, at_f32)
        if calibrate is not None:
            inspector, drift = recalibrate(at_f32, precision, open_dataset(calibrate, normal))
            inspector.save(output)
            told["drift"] = asdict(drift)
    told["parity"] = asdict(parity)
    maps = "" if parity.map is None else f", maps by {parity.map:.1e}"
    say(f"ONNX Runtime against PyTorch on {parity.images} images: scores differ by {parity.score:.1e} at most{maps}")
    if calibrate is not None:
        say(f"{precision} against f32: scores move by {drift.typical:.2%}, at most {drift.worst:.2%}")
        say(f"verdicts differ on {drift.verdicts} of {drift.images} images, calibrated on {drift.ok} OK ones")
        if drift.auroc is not None:
            say(f"image AUROC {drift.auroc[precision]:.4f} at {precision}, {drift.auroc['f32']:.4f} at f32")
    say(f"wrote {output}; next: okng inspect {output} NEW_IMAGES")
    if as_json:
        print_json(told)
