"""`okng rules`: see or change which parts of an image a model inspects, and what a region means."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from okng.cli.common import DEVICE


def rules(
    model: Annotated[Path, typer.Argument(help="The model file, .okng or .onnx.")],
    file: Annotated[
        Path | None, typer.Option("--set", help="A JSON file of zones and rules, such as `okng rules --json` prints.")
    ] = None,
    clear: Annotated[bool, typer.Option("--clear", help="Take out all zones and rules.")] = False,
    ok: Annotated[
        list[Path] | None,
        typer.Option("--ok", help="OK images to calibrate by, one of a part; those learnt are left out. Repeatable."),
    ] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write here instead of in place.")] = None,
    device: Annotated[str, typer.Option(help=DEVICE)] = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
) -> None:
    """Show zones and rules, or change them: in the file, nothing is fitted again."""
    from okng.cli.common import calibrations_json, open_model, print_json, say, threshold_lines, unrun
    from okng.errors import OkngError
    from okng.inspection.saving import check_target, save_changed, state_before
    from okng.inspection.verdict.rules import Rules

    if file is not None and clear:
        raise OkngError("--set and --clear are two things; give one of them")
    changes = file is not None or clear or bool(ok)
    if output is not None and not changes:
        raise OkngError("-o is for changed rules; add --set FILE or --clear")
    wanted = None if file is None else Rules.of(file)  # before a large model is read
    how: dict[str, Any] = {"device": device} if ok else {"load": unrun}
    if changes:
        check_target(model, output)
    before = state_before(model)
    inspector = open_model(model, **how)
    if changes:
        wanted = Rules() if clear else wanted if wanted is not None else inspector.rules
        inspector = inspector.with_rules(wanted, ok or None)
    for zone in inspector.rules.zones:
        say(f"zone {zone.name!r}: {zone.kind}, {len(zone.points)} corners, {zone.colour}")
    for rule in inspector.rules.rules:
        asked = {key: value for key, value in rule.to_json().items() if key not in ("name", "verdict", "colour")}
        asked = {key: value for key, value in asked.items() if (key, value) != ("min_count", 1)}
        said = ", ".join(f"{key} {value}" for key, value in asked.items()) or "any region"
        say(f"rule {rule.name!r}: {rule.verdict} for {said}, {rule.colour}")
    if not inspector.rules:
        say("no zones and no rules: the whole image is inspected, and the score decides")
    for line in threshold_lines(inspector):
        say(line)
    if changes:
        say(f"wrote {save_changed(inspector, model, output, before)}")
    if as_json:
        told = {"model": str(output or model), **inspector.rules.to_json(), **calibrations_json(inspector)}
        print_json(told | {"promise": inspector.promise()})
