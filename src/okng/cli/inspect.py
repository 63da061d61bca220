"""`okng inspect`: images in, verdicts out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from okng.benchmark.rows import json_ready
from okng.cli.common import DEVICE, LANGUAGE, RAY, Lines, calibrations_json, check_writable, open_model, say
from okng.errors import OkngError

if TYPE_CHECKING:
    import numpy as np

    from okng.inspection.inspector import Inspector
    from okng.inspection.outputs import CsvFile, Overlays
    from okng.inspection.reading.images import UnreadableImage
    from okng.inspection.verdict.result import Inspection
    from okng.line.sources.video import Video
    from okng.report import Report

NG_FOUND = 3  # 1 is a mistake, 2 a command that can't be read, 130 Ctrl-C
NAMED = 10  # overlays that fail are named one by one until then
IMAGES = (
    "Images, folders, lists of them (.txt, .csv, .json), archives (.zip, .tar), URLs of storage (s3://…), or one "
    "video: FILE.mp4, camera:0, rtsp://…."
)
WHOSE = "Of a model of several products: the one the images are of. Default: as a folder of what is given is called."
STDOUT = ("-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1")


def inspect(
    model: Annotated[Path, typer.Argument(help="The model file of `okng train` or `okng export`.")],
    images: Annotated[list[str], typer.Argument(help=IMAGES)],
    report: Annotated[Path | None, typer.Option(help="Folder for an HTML report.")] = None,
    language: Annotated[str, typer.Option(help=LANGUAGE)] = "en",
    overlays: Annotated[Path | None, typer.Option(help="Folder for a heatmap over each image.")] = None,
    csv: Annotated[Path | None, typer.Option(help="File for one line per image; - for standard output.")] = None,
    product: Annotated[str | None, typer.Option(help=WHOSE)] = None,
    false_alarm_rate: Annotated[float | None, typer.Option(help="Another rate than the model's.")] = None,
    threshold: Annotated[float | None, typer.Option(help="A score threshold chosen by hand.")] = None,
    device: Annotated[str, typer.Option(help=DEVICE)] = "cpu",
    engine: Annotated[str, typer.Option(help="auto, torch, onnxruntime or openvino.")] = "auto",
    precision: Annotated[str | None, typer.Option(help="f32 or bf16. Default: the file's.")] = None,
    threads: Annotated[int | None, typer.Option(help="CPU cores to use. Default: all.")] = None,
    ray: Annotated[str | None, typer.Option(help=RAY)] = None,
    parquet: Annotated[
        Path | None, typer.Option(help="With --ray: a folder or URL of Parquet files; the same command goes on there.")
    ] = None,
    fail_on_ng: Annotated[
        bool, typer.Option("--fail-on-ng", help=f"Exit code {NG_FOUND} if an image is NG or could not be read.")
    ] = False,
    every: Annotated[int, typer.Option(help="Of a video or a camera each n-th frame.")] = 1,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at an unreadable image.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
) -> None:
    """Say of each image whether it is OK or NG, how odd it is, and where."""
    from okng.checks import check_named
    from okng.inspection.inspector import each_placed
    from okng.inspection.outputs import CsvFile, Overlays, is_stream
    from okng.inspection.reading.formats import exists, printable
    from okng.inspection.storage.urls import shown, storage_url, url_of
    from okng.inspection.verdict.result import p_words
    from okng.report.language import translator
    from okng.training.progress import Narrator

    check_named(*images)
    title = translator(language)("title.inspect", model=Path(shown(model)).name)
    csv_printed = str(csv) in STDOUT
    if csv_printed and as_json:
        raise OkngError("--json and --csv - both want standard output; give --csv the name of a file")
    if csv is not None and not csv_printed and not is_stream(csv):
        check_writable(csv, "--csv", "all.csv")
    if report is not None:
        check_writable(report / "report.html", "--report")
    if overlays is not None:
        if url_of(overlays) is not None:
            raise OkngError("--overlays is a folder on this machine; --report and --csv may be in storage")
        check_writable(overlays / "overlay.png", "--overlays")
    inspector = open_model(
        model,
        false_alarm_rate,
        threshold,
        product=product,
        device=device,
        engine=engine,
        precision=precision,
        threads=threads,
    )
    video = _video(images, every)
    if video is not None and (whose := inspector.product_of(images[0])) is not None:
        inspector = inspector.of(whose)
    if ray is None and parquet is not None:
        raise OkngError("--parquet is written by the workers of a cluster; add --ray, or take --csv")
    if ray is not None:
        if video is not None:
            raise OkngError("a video is one after another; leave out --ray")
        from okng.cli.common import on_cluster

        inspector = on_cluster(inspector, ray, threads, device, parquet)
    paths: list[Path | str] = [] if video is not None else [storage_url(image) or Path(image) for image in images]
    if missing := [path for path in paths if isinstance(path, Path) and not exists(path)]:
        raise OkngError(f"{missing[0]} does not exist; give images or folders of images")
    if report is not None and inspector.product is None and inspector.products:
        raise OkngError(f"a report is of one product; add --product {inspector.products[0]}, or leave out --report")
    if overlays is not None and any(each.pixel_threshold is None for each in inspector.calibrations.values()):
        raise OkngError("this detector gives no map, so there is no heat to draw; leave out --overlays")
    drawn = None if overlays is None else Overlays(overlays, inspector)
    total = None if video is None else video.total
    if video is None and not any(isinstance(path, str) for path in paths):
        # Of each image, before the first is judged, its product is known; storage is listed on the way, however much.
        total = sum(1 for _ in (inspector.product_of(*each) for each in each_placed(paths, strict=strict)))
    if total == 0 and video is None:
        raise OkngError(f"no images in {', '.join(map(shown, images))}; png, jpg, tif, bmp and webp are read")
    page = None
    if report is not None:
        from okng.report import Report

        page = Report(title, inspector, model=model, total=total, language=language)
    lines = Lines(alone=drawn is None and page is None and (csv is None or csv_printed))
    table = None if csv is None else CsvFile(csv, lines if csv_printed else None)
    files = _Files(total, table, drawn, page, report)
    if as_json:
        lines.put(f'{{"model": {json.dumps(shown(model))}, "images": [', end="")
    complete = False
    try:
        # Without --json the verdicts themselves show how far it is.
        with Narrator(quiet=not (as_json or csv_printed)) as tell:
            tell.begin("inspecting", total or 1)
            for inspection, frame in (
                _frames(inspector, video)
                if video is not None
                else ((found, None) for found in inspector.inspect(paths, unreadable=None if strict else files.skip))
            ):
                if as_json:
                    lines.put((", " if files.judged else "") + json.dumps(json_ready(inspection.to_dict())), end="")
                elif not csv_printed:
                    p = p_words(inspection.p_value, inspector.calibrations[inspection.product].smallest_rate)
                    judged = f"{inspection.verdict}  score {inspection.score:.4g}  {p}{_of(inspection)}"
                    lines.put(f"{judged}  {printable(str(inspection.path))}{_where(inspection)}{_why(inspection)}")
                files.add(inspection, frame)
                tell.advance()
        complete = True
    except KeyboardInterrupt:
        if video is None or not video.live:
            raise
        complete = True  # a camera has no other end
    finally:  # what was judged until something stopped it is not lost
        failures = files.close(complete)
        if as_json:
            closing = {
                "counts": files.counts,
                "skipped": files.skipped,
                "not_drawn": [] if drawn is None else drawn.failed,
                "total": files.total,
                "complete": complete,
                "calibration": json_ready(calibrations_json(inspector)),
            }
            lines.put(f"], {json.dumps(closing)[1:]}")
        if lines.lost:
            say(f"standard output ended early: {lines.lost}")
    unread = f", {len(files.skipped)} unreadable" if files.skipped else ""
    say(f"{files.counts['OK']} OK, {files.counts['NG']} NG{unread}: {inspector.promise()}")
    if lines.lost and not lines.left:
        failures.append(f"standard output can't be written: {lines.lost}")
    if failures:
        raise OkngError("; ".join(failures))
    if not files.judged:
        raise OkngError("none of the images could be read")
    if fail_on_ng and (files.counts["NG"] or files.skipped):
        raise typer.Exit(NG_FOUND)


class _Files:
    """The files that were asked for, each with what it holds of how much."""

    def __init__(
        self, total: int | None, table: CsvFile | None, drawn: Overlays | None, page: Report | None, report: Path | None
    ):
        self.total, self.table, self.drawn, self.page, self.report = total, table, drawn, page, report
        self.counts = {"OK": 0, "NG": 0}
        self.skipped: list[str] = []

    @property
    def judged(self) -> int:
        """How many images have a verdict."""
        return sum(self.counts.values())

    def add(self, inspection: Inspection, frame: np.ndarray | None) -> None:
        """One result into each of them; `frame`: the pixels of what is in no file."""
        self.counts[inspection.verdict] += 1
        if self.table is not None:
            self.table.add(inspection)
        if (
            self.drawn is not None
            and self.drawn.add(inspection, image=frame) is None
            and len(self.drawn.failed) <= NAMED
        ):
            say(self.drawn.failed[-1] if len(self.drawn.failed) < NAMED else "further overlays fail, too")
        if self.page is not None:
            self.page.add(inspection, image=frame)

    def skip(self, error: UnreadableImage) -> None:
        """One image without a result."""
        self.skipped.append(str(error))
        say(f"skipped: {error}")
        if self.page is not None:
            self.page.skip(error.path, error.reason)

    def close(self, complete: bool) -> list[str]:
        """Finish them one by one, say what each holds, and return what went wrong."""
        failures = []
        if complete or self.total is None:  # a video's file may promise more or fewer frames than it has
            self.total = self.judged + len(self.skipped)
            if self.page is not None:
                self.page.total = self.total
        unread = f", {len(self.skipped)} unreadable" if self.skipped else ""
        if self.table is not None:
            written = self.table.close(complete)
            if written is not None:
                place = "lines on standard output" if str(written) == "-" else written
                say(f"wrote {place}: {self.table.rows} of {self.total} images{unread}")
            if written != self.table.path and self.table.path.exists():
                say(f"{self.table.path} is of an earlier run")
            if self.table.error:
                place = "standard output" if str(self.table.path) == "-" else self.table.path
                failures.append(f"{place} can't be written: {self.table.error}")
        if self.drawn is not None:
            say(f"wrote {self.drawn.written} of {self.total} overlays{unread}: {self.drawn.folder}")
            if self.drawn.failed:
                failures.append(f"{len(self.drawn.failed)} overlays are missing, the first: {self.drawn.failed[0]}")
        if self.page is not None and self.report is not None:
            try:
                written = self.page.write(self.report / "report.html")
                say(f"wrote {written}: {self.judged} of {self.total} images{unread}")
            except OkngError as error:
                failures.append(str(error))
        if not complete:
            for failure in failures:
                say(failure)
        return failures


def _of(inspection: Inspection) -> str:
    """The product, where there are several."""
    return "" if inspection.product is None else f"  {inspection.product}"


def _why(inspection: Inspection) -> str:
    """What a rule said; that a score is above the threshold needs no words."""
    said = [why for why in inspection.reasons if " by rule " in why]
    return f"  {'; '.join(said)}" if said else ""


def _where(inspection: Inspection) -> str:
    """How many regions, and that they don't contradict an OK."""
    if not inspection.regions:
        return ""
    count = len(inspection.regions)
    but = "" if inspection.is_ng else ", the image is still OK"
    return f"  {count} region{'s'[: count != 1]}{but}"


def _video(images: list[str], every: int) -> Video | None:
    """The video among `images`, if it is one."""
    from okng.inspection.storage.urls import is_stream, url_of
    from okng.line.sources import is_video

    videos = [text for text in images if is_video(text) and (url_of(text) is None or is_stream(text))]
    if not videos and every != 1:
        raise OkngError("--every is about the frames of a video or a camera; leave it out for images")
    if not videos:
        return None
    if len(images) > 1:
        raise OkngError(f"{videos[0]} is a video; inspect it by itself")
    from okng.line.sources.video import Video

    video = Video(videos[0], say, every)
    if video.live:
        video.check()
    return video


def _frames(inspector: Inspector, video: Video) -> Iterator[tuple[Inspection, np.ndarray]]:
    """The frames of a video with their pixels, one by one, until it ends; a camera has no end."""
    import numpy as np

    from okng.inspection.verdict.likeness import Likeness

    number, likeness = 0, Likeness(inspector.learnt_images)
    try:
        for arrivals in video:
            for arrival in arrivals:
                assert isinstance(arrival.image, np.ndarray)
                decoded = inspector.decode(arrival.image, number)
                (found,) = inspector.judge([decoded])
                likeness.add(decoded.traits, found.is_ng)
                yield replace(found, path=arrival.name), arrival.image
                number += 1
    finally:
        video.close()
        likeness.warn()
