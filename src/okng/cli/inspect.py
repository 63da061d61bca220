"""`okng inspect`: images in, verdicts out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from okng.cli.common import DEVICE


def inspect(
    model: Annotated[Path, typer.Argument(help="The model file of `okng train` or `okng export`.")],
    images: Annotated[list[Path], typer.Argument(help="Images, folders, or lists of them (.txt, .csv, .json).")],
    report: Annotated[Path | None, typer.Option(help="Folder for an HTML report.")] = None,
    overlays: Annotated[Path | None, typer.Option(help="Folder for a heatmap over each image.")] = None,
    csv: Annotated[Path | None, typer.Option(help="File for one line per image.")] = None,
    false_alarm_rate: Annotated[float | None, typer.Option(help="Another rate than the model's.")] = None,
    threshold: Annotated[float | None, typer.Option(help="A score threshold chosen by hand.")] = None,
    device: Annotated[str, typer.Option(help=DEVICE)] = "cpu",
    engine: Annotated[str, typer.Option(help="auto, torch, onnxruntime or openvino.")] = "auto",
    precision: Annotated[str | None, typer.Option(help="f32 or bf16. Default: the file's.")] = None,
    threads: Annotated[int | None, typer.Option(help="CPU cores to use. Default: all.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at an unreadable image.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
) -> None:
    """Say of each image whether it is OK or NG, how odd it is, and where."""
    import json
    import sys
    from functools import partial

    from okng.cli.common import check_writable, open_model, plain, say
    from okng.errors import OkngError
    from okng.inspection.files import find_images
    from okng.inspection.formats import exists
    from okng.inspection.images import UnreadableImage
    from okng.inspection.inspector import each_image
    from okng.inspection.outputs import CsvFile, save_overlay
    from okng.training.progress import Narrator

    for wanted in (csv, report and report / "report.html", overlays and overlays / "overlay.png"):
        if wanted is not None:
            check_writable(wanted)
    inspector = open_model(
        model, false_alarm_rate, threshold, device=device, engine=engine, precision=precision, threads=threads
    )
    if missing := [path for path in images if not exists(path)]:
        raise OkngError(f"{missing[0]} does not exist; give images or folders of images")
    total = sum(1 for _ in each_image(images, partial(find_images, strict=strict)))
    if not total:
        raise OkngError(f"no images in {', '.join(str(path) for path in images)}; png, jpg, tif, bmp and webp are read")
    page = None
    if report is not None:
        from okng.report import Report

        page = Report(f"Inspection with {model.name}", inspector)
    skipped: list[str] = []

    def unreadable(error: UnreadableImage) -> None:
        skipped.append(str(error))
        say(f"skipped: {error}")
        if page is not None:
            page.skip(error.path, error.reason)

    table = None if csv is None else CsvFile(csv)
    counts = {"OK": 0, "NG": 0}
    if as_json:
        print(f'{{"model": {json.dumps(str(model))}, "images": [', end="")
    complete = False
    try:
        with Narrator(quiet=not as_json) as tell:  # without --json the verdicts themselves show how far it is
            tell.begin("inspecting", total)
            for inspection in inspector.inspect(images, unreadable=None if strict else unreadable):
                if as_json:
                    print(", " if sum(counts.values()) else "", json.dumps(plain(inspection.to_dict())), sep="", end="")
                else:
                    where = f"  {len(inspection.regions)} regions" if inspection.regions else ""
                    score = f"score {inspection.score:.4g}  p {inspection.p_value:.4f}"
                    print(f"{inspection.verdict}  {score}  {inspection.path}{where}")
                counts[inspection.verdict] += 1
                if table is not None:
                    table.add(inspection)
                if overlays is not None:
                    save_overlay(overlays, inspection, inspector)
                if page is not None:
                    page.add(inspection)
                tell.advance()
        complete = True
    finally:  # what was judged until something stopped it is not lost
        if table is not None:
            say(f"wrote {table.close()}")
        if as_json:
            print(f'], "counts": {json.dumps(counts)}, "skipped": {json.dumps(skipped)}, ', end="")
            print(f'"complete": {json.dumps(complete)}, ', end="")
            print(f'"calibration": {json.dumps(plain(inspector.calibration.to_json()))}}}')
    sys.stdout.flush()
    if page is not None and report is not None:
        say(f"wrote {page.write(report / 'report.html')}")
    unread = f", {len(skipped)} unreadable" if skipped else ""
    say(f"{counts['OK']} OK, {counts['NG']} NG{unread}: {inspector.calibration.promise()}")
    if not sum(counts.values()):
        raise OkngError("none of the images could be read")
