"""`okng threshold`: see or change a model's threshold without fitting again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def threshold(
    model: Annotated[Path, typer.Argument(help="The model file, .okng or .onnx.")],
    false_alarm_rate: Annotated[float | None, typer.Option(help="Take the threshold for this rate.")] = None,
    score: Annotated[
        float | None, typer.Option("--threshold", "--score", help="A score threshold chosen by hand.")
    ] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write here instead of in place.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
) -> None:
    """Show the threshold, or change it: a number in the file, nothing is fitted again."""
    from okng.cli.common import open_model, print_json, say, unrun
    from okng.errors import OkngError

    changes = false_alarm_rate is not None or score is not None
    if output is not None and not changes:
        raise OkngError("-o is for a changed threshold; add --false-alarm-rate or --score")
    inspector = open_model(model, rate=false_alarm_rate, score=score, load=unrun)
    calibration = inspector.calibration
    say(f"threshold {calibration.threshold:.6g}: {inspector.promise()}")
    if changes:
        inspector.save(output or model)
        say(f"wrote {output or model}")
    if as_json:
        print_json({"model": str(output or model), **calibration.to_json(), "promise": inspector.promise()})
