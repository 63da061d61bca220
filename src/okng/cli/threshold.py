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
    product: Annotated[
        str | None, typer.Option(help="Of a model of several products: which one. Default: all.")
    ] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write here instead of in place.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
) -> None:
    """Show the threshold, or change it: a number in the file, nothing is fitted again."""
    from okng.cli.common import calibrations_json, open_model, print_json, say, threshold_lines, unrun
    from okng.errors import OkngError
    from okng.inspection.saving import check_target, save_changed, state_before

    changes = false_alarm_rate is not None or score is not None
    if output is not None and not changes:
        raise OkngError("-o is for a changed threshold; add --false-alarm-rate or --score")
    if changes:
        check_target(model, output)
    before = state_before(model)
    inspector = open_model(model, rate=false_alarm_rate, score=score, load=unrun, product=product)
    for line in threshold_lines(inspector):
        say(line)
    if changes:
        say(f"wrote {save_changed(inspector, model, output, before)}")
    if as_json:
        print_json({"model": str(output or model), **calibrations_json(inspector), "promise": inspector.promise()})
