"""`okng train`: a folder of OK images in, a model file out, or a model file updated."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from okng.cli.common import ABNORMAL, AUXILIARY, CONTAMINATION, DETECTOR, DEVICE, LANGUAGE, NORMAL, PROTOCOL

if TYPE_CHECKING:
    from okng.datasets import Dataset
    from okng.inspection.reading.images import Source


OF_A_FIT = (
    "detector", "parameter", "preset", "budget", "ng", "auxiliary", "size", "tile", "overlap", "time_per_image",
    "promise", "drop_outliers", "rules", "report", "language", "curves", "resume", "devices", "nodes", "memory",
)  # fmt: skip


def without_those_of_a_fit(ctx: typer.Context, update: Path | None) -> Path | None:
    """Defaults that okng.toml gives to fits are none of an update, which keeps the model's own."""
    if update is not None and ctx.default_map:
        ctx.default_map = {name: value for name, value in ctx.default_map.items() if name not in OF_A_FIT}
    return update


def train(
    source: Annotated[
        str,
        typer.Argument(
            help="A folder, an archive, a list or a URL (s3://…) of OK images, or a data set of `okng list datasets`; "
            "NAME=FOLDER of each of several products."
        ),
    ],
    more: Annotated[
        list[str] | None, typer.Argument(help="NAME=FOLDER of the other products; with --update more images.")
    ] = None,
    detector: Annotated[str | None, typer.Option("-d", "--detector", help=DETECTOR)] = None,
    parameter: Annotated[
        list[str],
        typer.Option("-p", "--parameter", help="The detector's own, such as coreset=0.05; repeatable."),
    ] = [],  # noqa: B006
    preset: Annotated[
        str | None, typer.Option(help="fast, default or best, of the default detector. -p and --size go before it.")
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            help="cpu: minutes on one core; paper: what the method's paper states. -p and --size go before it."
        ),
    ] = None,
    ng: Annotated[
        Path | None,
        typer.Option(help="A folder of NG images, for the detectors that need some; all are learnt, none calibrates."),
    ] = None,
    auxiliary: Annotated[
        Path | None,
        typer.Option(help=AUXILIARY),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="The model file to write. Default: parts.okng, or the one updated."),
    ] = None,
    update: Annotated[
        Path | None,
        typer.Option(
            "--update",
            is_eager=True,
            callback=without_those_of_a_fit,
            help="A model file (of anomalydino, mahalanobis, padim, patch_memory, patchcore, rad, spade "
            "or subspace_ad) that shall learn the images too, without the old ones; a single image, such as a false "
            "alarm, will do.",
        ),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(help="Area as the side of a square, or HxW. Default: the images' own up to 640, -d others 256."),
    ] = None,
    tile: Annotated[
        int | None,
        typer.Option(help="Cut images into squares of so many px, learnt and judged at their own scale, such as 512."),
    ] = None,
    overlap: Annotated[
        int | None, typer.Option(help="By how many px tiles overlap. Default: an eighth of the tile.")
    ] = None,
    time_per_image: Annotated[
        str | None,
        typer.Option(help="What an image may take, such as 50ms: the size is the largest that keeps to it here."),
    ] = None,
    false_alarm_rate: Annotated[
        float | None, typer.Option(help="Share of OK images that may be called NG. Default: 0.05, or the model's.")
    ] = None,
    holdout: Annotated[
        float | None,
        typer.Option(
            help="Share held out for calibration; 0 cross-fits, or in an update learns all. Default: see --promise."
        ),
    ] = None,
    promise: Annotated[
        str,
        typer.Option(
            help="strict: a guaranteed false-alarm rate, by a fifth held out and never learnt. auto: where fitting is "
            "cheap, 20 to 999 images are all judged and nine tenths learnt; about the asked rate, not guaranteed."
        ),
    ] = "auto",
    group_by: Annotated[
        str | None,
        typer.Option(
            help="Pattern on the path that names the lot, shift or serial number, such as 'lot[0-9]+': groups are "
            "never parted and the promise is per group."
        ),
    ] = None,
    drop_outliers: Annotated[
        bool,
        typer.Option("--drop-outliers", help="Leave held-out images that stand far apart out of the calibration."),
    ] = False,
    rules: Annotated[
        Path | None, typer.Option(help="A file of zones to inspect or ignore, and of rules, as `okng rules` takes it.")
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(help="Folder for a page of the oddest images given as OK and of what would be found."),
    ] = None,
    curves: Annotated[
        Path | None, typer.Option(help="A page (.html) or a table (.csv) of the losses, epoch by epoch.")
    ] = None,
    language: Annotated[str, typer.Option(help=LANGUAGE)] = "en",
    normal: Annotated[str | None, typer.Option(help=NORMAL)] = None,
    protocol: Annotated[str | None, typer.Option(help=PROTOCOL)] = None,
    abnormal: Annotated[str | None, typer.Option(help=ABNORMAL)] = None,
    contamination: Annotated[float, typer.Option(help=CONTAMINATION)] = 0.0,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    device: Annotated[str, typer.Option(help=DEVICE)] = "auto",
    precision: Annotated[str, typer.Option(help="f32, or bf16 or f16 where the device is faster so.")] = "f32",
    devices: Annotated[
        int, typer.Option(min=1, help="So many GPUs, or processes of a CPU, share the steps of a method that trains.")
    ] = 1,
    nodes: Annotated[int, typer.Option(min=1, help="So many machines do; torchrun starts it on each.")] = 1,
    memory: Annotated[
        float | None,
        typer.Option(
            help="GB that the fit may take, such as 2: what is beyond lies on disk. Methods that gather something of "
            "every image may take more, and say so."
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue a fit that was stopped.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Write over an existing model without keeping it as .bak.")
    ] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at an unreadable image.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
) -> None:
    """Learn what OK looks like from a folder of OK images."""
    from okng.checks import check_named
    from okng.cli.common import (
        check_writable,
        parse_parameters,
        parse_size,
        parse_time,
        print_json,
        say,
        show_dataset,
        threshold_lines,
    )
    from okng.detectors.catalogue import DEFAULT, detector_class, name_of
    from okng.errors import OkngError
    from okng.inspection.model_file import check_ending
    from okng.inspection.reading.formats import exists
    from okng.inspection.storage import stored
    from okng.inspection.storage.urls import url_of
    from okng.report.language import translator

    check_named(source, *(more or ()))
    say_of_page = translator(language)
    detector_name = name_of(detector or DEFAULT)
    arguments, sides, seconds = parse_parameters(parameter), parse_size(size), parse_time(time_per_image)
    if update is not None and (detector or parameter or size or tile or time_per_image or resume or budget or preset):
        left_out = "leave out -d, -p, --size, --tile, --time-per-image, --preset, --budget, --resume"
        raise OkngError(f"an update keeps the model's detector, parameters and size; {left_out}")
    products = _products([source, *(more or ())]) if update is None else {}
    output = output or update or Path("parts.okng")
    if update is not None and ng is not None:
        raise OkngError("an update takes in OK images only; leave out --ng, or fit again without --update")
    if update is not None and (report is not None or curves is not None or drop_outliers or promise != "auto"):
        raise OkngError("--report, --curves, --drop-outliers and --promise are of a fit; leave them out of an update")
    if update is not None and memory is not None:
        raise OkngError("--memory is of a fit; leave it out of an update")
    if update is not None and rules is not None:
        raise OkngError("an update keeps the model's rules; leave out --rules, or change them by: okng rules")
    if update is not None and auxiliary is not None:
        raise OkngError("an update takes in OK images only; leave out --auxiliary, or fit again without --update")
    if ng is not None and not exists(ng):
        raise OkngError(f"{ng} does not exist; --ng is a folder of NG images")
    if auxiliary is not None and not exists(auxiliary):
        raise OkngError(f"{auxiliary} does not exist; --auxiliary is a folder of images")
    if update is not None and update.suffix == ".onnx":
        raise OkngError("an exported model can't be updated; update the .okng file it was exported from")
    check_writable(output)
    check_ending(output)
    far = url_of(output)
    if far is not None and update is None and not force and stored.exists(far):
        raise OkngError(f"{far} is there already; give -o another name, or add --force")
    if report is not None and products:
        raise OkngError("the page of a training is of one product; leave out --report")
    if report is not None:
        check_writable(report / "training.html")
    if curves is not None:
        if curves.suffix not in (".html", ".csv"):
            raise OkngError(f"--curves is a page such as curves.html or a table such as curves.csv, not {curves}")
        if detector_class(detector_name).collects_only:
            raise OkngError(f"{detector_name} learns in one pass, so it has no losses; leave out --curves")
        check_writable(curves, "--curves", "curves.html")
    rank = _joined(devices, nodes, update) if devices * nodes > 1 else 0
    divided: dict[str, Any] = {"protocol": protocol, "abnormal": abnormal, "contamination": contamination}
    each = {
        key: _images(text, normal, seed, divided, file_allowed=update is not None)
        for key, text in (products or {"": source}).items()
    }
    from okng.training.loop.ranks import check_device  # with torch: what is quickly found wrong was said before

    check_device(device, precision)
    for _, _, dataset in each.values():
        if dataset is not None:
            show_dataset(dataset)
    name = ", ".join(found for _, found, _ in each.values())
    images: list[Source] | dict[str, Any] = {key: found for key, (found, _, _) in each.items()}
    if not products:
        images = [*each[""][0], *map(Path, more or ())]

    import okng
    from okng.inspection.saving import save_beside, save_over, state_before
    from okng.training.fit import discard, is_stopped
    from okng.training.loop.launch import GONE, LAUNCHED
    from okng.training.loop.ranks import Gone
    from okng.training.progress import Narrator
    from okng.training.review import Review

    review = None if report is None else Review(plant=True)
    before = None if update is None else state_before(update)
    checkpoint = (Path() if far else output.parent) / f"{output.name}.partial"
    if resume and not is_stopped(checkpoint):
        say(f"there is no {checkpoint} to go on with; this fit begins anew")
    if update is None and not resume and is_stopped(checkpoint):
        say(f"{checkpoint} is of a fit that was stopped; this one begins anew (--resume would have gone on)")
    try:
        with Narrator() as tell:
            tell.hint = "" if budget or parameter else _cheaper(detector_name)
            common: dict[str, Any] = {
                "holdout": holdout, "group_by": group_by, "seed": seed, "device": device, "precision": precision,
                "strict": strict, "tell": tell,
            }  # fmt: skip
            if update is not None:
                inspector = okng.update(update, images, false_alarm_rate=false_alarm_rate, **common)
                done = inspector.manifest["provenance"]["updates"][-1]
            else:
                inspector = okng.fit(
                    images,
                    detector_name,
                    preset=preset,
                    budget=budget,
                    ng=ng,
                    size=sides,
                    tile=tile,
                    overlap=overlap,
                    time_per_image=seconds,
                    false_alarm_rate=0.05 if false_alarm_rate is None else false_alarm_rate,
                    promise=promise,
                    drop_outliers=drop_outliers,
                    rules=rules,
                    checkpoint=checkpoint,
                    resume=resume,
                    devices=devices,
                    nodes=nodes,
                    max_memory=memory,
                    review=review,
                    **common,
                    **{"auxiliary": auxiliary, **arguments},  # oe_sdn has an argument of this name
                )
                done = inspector.manifest["provenance"]
    except Gone:
        if LAUNCHED in os.environ:
            sys.exit(GONE)
        raise
    except KeyboardInterrupt:
        if update is None and is_stopped(checkpoint):
            say(f"{checkpoint} is kept: the same command with --resume goes on")
        raise
    if rank:
        return  # the first one has the same, and writes it
    done["source"] = name
    kept = None
    try:
        if far is not None:
            inspector.save(far)
        elif update is not None and before is not None and output.resolve() == update.resolve():
            save_over(inspector, output, before)
        else:
            kept = save_beside(inspector, output, force)
    except OkngError as error:
        if update is not None:
            raise
        raise OkngError(f"{error}; the fit is kept: put that right and add --resume") from error
    if update is None:
        discard(checkpoint)
    and_ng = f" and {done['ng_images']} NG images" if done.get("ng_images") else ""
    say(f"learnt from {done['learnt_from']} of {done['images']} images{and_ng} in {done['seconds']:.0f} s")
    for line in threshold_lines(inspector, 4):
        say(line)
    if review is None and update is None and done["stand_apart"] and done["held_out"] < done["images"]:
        say("more like that may be among the learnt images, which were not judged: --report DIR shows the oddest")
    if kept is not None:
        say(f"{output} was there already: it is kept as {kept} (--force would not keep it)")
    if report is not None and review is not None:
        from okng.report.review import write_review

        title = say_of_page("title.train", model=output.name)
        say(f"wrote {write_review(report / 'training.html', title, inspector, review, language)}")
    if curves is not None:
        from okng.report.curves import write_curves

        title = say_of_page("title.curves", model=output.name)
        say(f"wrote {write_curves(curves, title, inspector, language)}")
    which = f" --product {inspector.products[0]}" if inspector.products else ""
    say(f"wrote {far or output}; next: okng inspect {far or output} NEW_IMAGES{which} --report report")
    if as_json:
        described = inspector.described()[0] | {"promise": inspector.promise()}
        for key in ("seen", "unlearnt", "calibrating"):  # as long as the list of images
            del described[key]
        print_json({"model": far or str(output), **described})


def _products(given: list[str]) -> dict[str, str]:
    """What was given as NAME=FOLDER by name; empty for a single folder without a name."""
    from okng.checks import check_product
    from okng.errors import OkngError
    from okng.inspection.storage.urls import url_of

    named = {}
    for text in given:
        name, equals, folder = text.partition("=")
        if not equals or url_of(text) or Path(text).exists():
            if len(given) == 1:
                return {}
            raise OkngError(
                f"{text} has no name: several products are given as NAME=FOLDER each, such as screw=parts/screw/ok; "
                "images of one product are put into one folder (only --update takes several)"
            )
        check_product(name)
        if not folder.strip():
            raise OkngError(f"{text} names no folder (a variable that is not set?); give {name}=FOLDER")
        if name in named:
            raise OkngError(f"two products are called {name}; give one another name")
        named[name] = folder
    return named


def _joined(devices: int, nodes: int, update: Path | None) -> int:
    """The number of this process among those of a fit. Where nobody has started them it starts and ends with them."""
    from okng.cli import common
    from okng.errors import OkngError
    from okng.training.loop.ranks import HOW, check_ranks

    if update is not None:
        raise OkngError("an update is of one process; leave out --devices and --nodes")
    if "WORLD_SIZE" not in os.environ:
        from okng.training.loop.launch import launch

        if nodes > 1:
            raise OkngError(f"several nodes need a process on each: {HOW}")
        sys.exit(launch([sys.executable, "-m", "okng", *sys.argv[1:]], devices))
    rank = check_ranks(devices, nodes)
    common.silent = rank > 0
    return rank


def _cheaper(detector: str) -> str:
    """What to do where the detector's defaults take long, and how long that took."""
    from okng.benchmark.figures import measured, on_gpu
    from okng.training.progress import duration

    seconds = [float(row["seconds"]) for row in measured(detector) if row.get("budget") == "cpu" and not on_gpu(row)]
    if not seconds:
        return ""
    return f"; --budget cpu took {duration(min(seconds))} to {duration(max(seconds))}, test included, on two cores"


def _images(
    source: str, normal: str | None, seed: int, divided: dict[str, Any], file_allowed: bool
) -> tuple[list[Source], str, Dataset | None]:
    """The OK images to learn from, what to call where they are from, and the data set; a list of images is none."""
    from okng.datasets import open_dataset
    from okng.inspection.reading.files import LISTS

    is_list = Path(source).suffix.lower() in LISTS and normal is None and not any(divided.values())
    if Path(source).is_file() and (file_allowed or is_list):
        return [Path(source)], Path(source).name, None
    dataset = open_dataset(source, normal, seed, **divided)
    return [sample.image for sample in dataset.train], dataset.name, dataset
