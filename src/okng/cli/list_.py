"""`okng list`: what there is, and the card of one detector."""

from __future__ import annotations

from typing import Annotated, Any

import typer

DATASETS = {
    "a folder of images": "all OK; subfolders too; what looks like NG, a mask or a test is left out and counted",
    "MVTec AD layout": "train/good, test/KIND, ground_truth/KIND; found by itself; also MPDD, BTAD, VisA in this form",
    "MVTec LOCO, AD 2, 3D-AD": "one of their categories; of 3D-AD the colour images",
    "BMAD": "one of its six sets: train/good, test/good/img, test/Ungood/img and label",
    "VisA": "one of its objects, such as VisA/candle; divided by split_csv/1cls.csv beside it",
    "KolektorSDD, KolektorSDD2": "images with their masks beside them; NG where the mask marks something",
    "magnetic tiles": "MT_Free is OK, MT_Blowhole and the others NG",
    "Real-IAD": "one of its parts, such as realiad_256/audiojack; divided by realiad_jsons/audiojack.json",
    "class folders": "train/CLASS and test/CLASS, or CLASS alone; --normal CLASS is OK, the others NG",
    "IDX files": "MNIST's own files; --normal DIGIT is OK, the others NG; --normal 3,5 takes several",
    "CIFAR-10, CIFAR-100": "their Python batches; --normal airplane",
    "COIL-20, COIL-100": "obj1__0.png and so on in one folder; --normal obj1",
    "COCO": "annotations/ and images; crops of ten classes of objects; COCO/masked without background",
    "DAGM 2007": "one of its folders Class1 to Class10",
    "NanoTWICE": "Normal and Anomalous; all test images are NG",
    "ShanghaiTech Campus": "training/frames and testing/, labelled frame by frame",
    "elpv, elpv/mono, elpv/poly": "2,624 solar cells, brought by: pip install elpv-dataset",
}
SOURCES = {
    "FOLDER": "what comes into it, and into folders below; with --then move or tag the files are put aside",
    "film.mp4": "the frames of a video, each n-th with --every (extra video); .avi, .mkv, .mov, .webm and others, too",
    "camera:0": "a camera of this machine, by its number (extra video)",
    "rtsp://HOST/STREAM": "a stream; rtsps, rtmp, udp, http and https, too (extra video)",
}
SINKS = {
    "jsonl": "one JSON object a line on standard output",
    "csv:FILE": "one line each at the end of a file",
    "parquet:FOLDER": "files of a thousand records, or of a minute's (extra parquet)",
    "copy:FOLDER": "FOLDER/OK and FOLDER/NG with a copy of each image",
    "link:FOLDER": "the same with hard links",
    "webhook:URL": "HTTP POST; signed where OKNG_WEBHOOK_SECRET is set",
    "mqtt://BROKER/TOPIC": "QoS 1; mqtts:// with TLS (extra mqtt)",
    "opcua://IP:PORT": "an OPC UA server with the last record's values (extra opcua)",
}
TOPICS = ("detectors", "datasets", "backbones", "tables", "sources", "sinks")


def list_(
    what: Annotated[
        str, typer.Argument(help="detectors, datasets, backbones, tables, sources, sinks, or a detector's name.")
    ] = "detectors",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
) -> None:
    """Print the detectors, the data sets, the backbones, the tables, the ends of `okng watch`, or one card."""
    from okng.cli.common import print_json
    from okng.detectors.cards import cards
    from okng.detectors.catalogue import installed, name_of
    from okng.errors import OkngError, nearest_names

    if what == "detectors":
        found, lines = _detectors()
    elif what == "datasets":
        found = dict(DATASETS)
        lines = [f"{name:<28}{text}" for name, text in DATASETS.items()]
    elif what in ("sources", "sinks"):
        found, lines = _ends(what)
    elif what == "tables":
        found, lines = _tables()
    elif what == "backbones":
        found, lines = _backbones()
    else:
        try:
            name = name_of(what)
        except OkngError:
            nearest = nearest_names(what.lower(), [*TOPICS, *cards(), *installed()])
            raise OkngError(f"there is nothing called {what!r}; {nearest}") from None
        found, lines = _card(name)
    if as_json:
        print_json(found)
    else:
        print("\n".join(lines))


def _detectors() -> tuple[dict[str, Any], list[str]]:
    """All of them, the default first, then the newest."""
    from dataclasses import asdict

    from okng.benchmark.figures import headlines
    from okng.detectors.cards import cards
    from okng.detectors.catalogue import DEFAULT, find, installed

    measured = headlines()
    names = sorted(cards(), key=lambda name: (name != DEFAULT, -(cards()[name].year or 0), name))
    found: dict[str, Any] = {}
    lines = [f"  {'name':<23}{'year':<6}{'measured':<19}{'time':<8}good for"]
    for name in (*names, *installed()):
        card, figure = find(name), measured.get(name)
        found[name] = {**asdict(card), "default": name == DEFAULT, "measured": figure}
        told = "" if figure is None else f"{figure['image_auroc']:.3f} {figure['dataset']}"
        time = "" if figure is None or figure["seconds"] is None else _time(figure["seconds"])
        mark = "*" if name == DEFAULT else " "
        lines.append(f"{mark} {name:<23}{card.year or '':<6}{told:<19}{time:<8}{card.good_for or card.idea}")
    return found, [
        *lines,
        "",
        "* the default. measured: image AUROC on MVTec AD's transistor, or the mean of MNIST's ten digits, each",
        "against the rest. time: a fit and its test on 2 CPU cores, with small arguments where a network is trained;",
        "such a method's own defaults are its paper's and can take hours. More of one: okng list NAME",
    ]


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def _tables() -> tuple[dict[str, Any], list[str]]:
    from okng.benchmark.tables import TABLES

    found, lines = {}, []
    for name, table in TABLES.items():
        cells, printed = len(table.cells), table.figures
        found[name] = {"title": table.title, "cells": cells, "printed": printed, "notes": table.notes()}
        lines.append(f"{name:<18}{cells:>4} cells, {printed:>3} figures printed  {table.title}")
    return found, [*lines, "", "next: okng reproduce TABLE DATA_DIR --budget cpu"]


def _ends(what: str) -> tuple[dict[str, Any], list[str]]:
    """The sources or the sinks of `okng watch`, as they are typed, those of other packages last."""
    import importlib.metadata

    found = dict(SOURCES if what == "sources" else SINKS)
    for point in importlib.metadata.entry_points(group=f"okng.{what}"):
        found[f"{point.name}:…"] = f"of the package {point.dist.name if point.dist else point.value}"
    typed = "okng watch MODEL SOURCE" if what == "sources" else "--to SINK, of okng watch and okng serve"
    return found, [*(f"{name:<22}{text}" for name, text in found.items()), "", f"typed: {typed}; docs/watch.md"]


def _backbones() -> tuple[dict[str, Any], list[str]]:
    import timm

    from okng.nn.features.backbones import BROUGHT

    names = timm.list_models(pretrained=True)
    first = "  ".join(BROUGHT) + "   weights installed by pip: work offline"
    rest = f"and {len(names)} models of timm by name; weights come from its hub, or give -p weights=FILE"
    return {"offline": [*BROUGHT], "timm": names}, [first, rest]


def _card(name: str) -> tuple[dict[str, Any], list[str]]:
    import itertools
    import textwrap
    from dataclasses import asdict

    from okng.benchmark.code import is_older
    from okng.benchmark.figures import in_short, measured, published
    from okng.checks import typed
    from okng.detectors.catalogue import DEFAULT, explanations, find, parameters
    from okng.errors import OkngError

    card = find(name)
    finds = {"defects": "finds defects", "classes": "finds other classes", "both": "finds defects and other classes"}
    found = [finds[card.finds]] if card.finds else []
    places = {True: ["says where"], False: ["whole images only"], None: []}[card.localizes]
    needs = [f"needs {card.labels}"] if card.labels else []
    default = ["the default"] if name == DEFAULT else []
    about = "; ".join([card.family, *found, *places, *needs, *default])
    lines = [f"{name}: {card.title} ({about})", card.idea]
    lines += [f"good for: {card.good_for}"] if card.good_for else []
    lines += [f"{card.paper}, {card.year}"] if card.paper else []
    try:
        explained = explanations(name)
        defaults = {key: p.default for key, p in parameters(name).items() if key not in ("image_size", "channels")}
    except OkngError:  # the line has no torch, and so no constructors to ask
        explained, defaults = {}, {}
    lines += ["", "parameters" if defaults else "parameters: shown where PyTorch is installed"]
    for text, keys in itertools.groupby(defaults, explained.get):  # neighbours are often explained together
        lines.append("  " + " ".join(f"-p {key}={typed(defaults[key])}" for key in keys))
        lines += textwrap.wrap(text or "", 112, initial_indent=" " * 6, subsequent_indent=" " * 6)
    figures = {"published": published(name), "measured": measured(name)}
    for title, rows in figures.items():
        lines += ["", f"{title}:" if rows else f"{title}: nothing yet"]
        for (whose, protocol, source), several in itertools.groupby(in_short(rows), _measurement):
            marks = [(row, "‡" if title == "measured" and is_older(row) else "") for row in several]
            told = ", ".join(f"{row['metric']} = {row['value']}{mark}" for row, mark in marks)
            for text, depth in ((f"{whose}: {told}", 2), (protocol, 6)):
                lines += textwrap.wrap(text, 112, initial_indent=" " * depth, subsequent_indent=" " * 6)
            lines.append(" " * 6 + source)  # a command, in one piece to be copied
    if any(is_older(row) for row in figures["measured"]):
        lines += ["", "‡ by other code of the detector than today's, or before that was noted: it may differ now"]
    described = {"parameters": defaults, "explanations": explained, "default": name == DEFAULT}
    return {**asdict(card), "name": name, **described, **figures}, lines


def _measurement(row: dict[str, str]) -> tuple[str, str, str]:
    """What several metrics share: on which images and with which arguments, by which protocol, and the source.

    The arguments of a budget are left to the command, which names it.
    """
    given = row.get("arguments", "") if not row.get("budget") else ""
    if given.startswith("{"):
        given = given.strip("{}").replace("'", "").replace(": ", "=")
    whose = row["dataset"] if given in ("", "defaults") else f"{row['dataset']}, {given}"
    return whose, row["protocol"], row["source"]
