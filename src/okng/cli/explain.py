"""`okng explain`: which places raise an image's score, by Grad-CAM."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from okng.cli.common import DEVICE, PRODUCT


def explain(
    model: Annotated[Path, typer.Argument(help="The model file of `okng train`.")],
    images: Annotated[list[Path], typer.Argument(help="Images, or folders of them.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the pictures.")] = Path("explained"),
    layer: Annotated[
        str | None, typer.Option(help="A convolution by name. Default: the last one whose output has places.")
    ] = None,
    device: Annotated[str, typer.Option(help=DEVICE)] = "cpu",
    strict: Annotated[bool, typer.Option("--strict", help="Stop at an unreadable image.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
    product: Annotated[str | None, typer.Option(help=PRODUCT)] = None,
) -> None:
    """Draw over each image which places raise its score, by Grad-CAM, each image on a scale of its own."""
    import json

    from okng.benchmark.rows import json_ready
    from okng.cli.common import Lines, check_writable, open_model, say
    from okng.errors import OkngError
    from okng.inspection.inspector import each_image
    from okng.inspection.outputs import Overlays
    from okng.inspection.reading.formats import exists
    from okng.inspection.reading.images import UnreadableImage
    from okng.inspection.storage.urls import shown

    check_writable(output / "picture.png")
    inspector = open_model(model, product=product, device=device)
    from okng.detectors.explanation import explainer

    explaining = explainer(inspector, layer)
    if missing := [path for path in images if not exists(path)]:
        raise OkngError(f"{missing[0]} does not exist; give images or folders of images")
    drawn = Overlays(output, explaining)
    total = sum(1 for _ in each_image(images))
    lines = Lines(alone=False)
    skipped: list[str] = []
    explained: list[dict[str, Any]] = []
    blank = 0
    complete = False

    def unreadable(error: UnreadableImage) -> None:
        skipped.append(str(error))
        say(f"skipped: {error}")

    try:
        for inspection in explaining.inspect(images, unreadable=None if strict else unreadable):
            assert inspection.map is not None
            empty = not inspection.map.any()
            blank += empty
            written = drawn.add(inspection, (0.0, float(inspection.map.max())))
            if written is None:
                say(drawn.failed[-1])
            overlay = None if written is None else str(written)
            explained.append(inspection.to_dict() | {"overlay": overlay, "nothing_to_show": empty})
            if not as_json and written is not None:
                nothing = "  nothing to show" if empty else ""
                lines.put(f"{inspection.verdict}  score {inspection.score:.4g}  {inspection.path}  {written}{nothing}")
        if not explained:
            raise OkngError(f"no readable images in {', '.join(map(shown, images))}")
        complete = True
    finally:  # what was explained until something stopped it is told
        used = explaining.engine.layer  # type: ignore[attr-defined]
        if explained:
            say(f"{drawn.written} of {total} images explained at {used}, in {output}")
        if blank:
            has_map = inspector.calibration.pixel_threshold is not None
            say(
                f"nothing to show on {blank} of them, because whatever {used} sees there lowers the score: what makes "
                "them odd is what it misses; try another --layer"
                + (", or `okng inspect --overlays` for the detector's map" if has_map else "")
            )
        if as_json and explained:
            told = {"model": shown(model), "layer": used, "images": explained, "skipped": skipped, "total": total}
            lines.put(json.dumps(json_ready(told | {"complete": complete})))
    if lines.lost and not lines.left:
        raise OkngError(f"standard output can't be written: {lines.lost}")
    if drawn.failed:
        raise OkngError(f"{len(drawn.failed)} pictures are missing, the first: {drawn.failed[0]}")
