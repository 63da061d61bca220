"""`okng evaluate`: a model file against labels and masks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from okng.cli.common import ABNORMAL, CONTAMINATION, DEVICE, LANGUAGE, NORMAL, PRODUCT, PROTOCOL, RAY


def evaluate(
    model: Annotated[Path, typer.Argument(help="The model file of `okng train` or `okng export`.")],
    source: Annotated[str, typer.Argument(help="A labelled data set, as for `okng train`.")],
    normal: Annotated[str | None, typer.Option(help=NORMAL)] = None,
    protocol: Annotated[str | None, typer.Option(help=PROTOCOL)] = None,
    abnormal: Annotated[str | None, typer.Option(help=ABNORMAL)] = None,
    contamination: Annotated[float, typer.Option(help=f"{CONTAMINATION} As in training.")] = 0.0,
    product: Annotated[str | None, typer.Option(help=PRODUCT)] = None,
    false_alarm_rate: Annotated[float | None, typer.Option(help="Another rate than the model's.")] = None,
    report: Annotated[Path | None, typer.Option(help="Folder for an HTML report.")] = None,
    language: Annotated[str, typer.Option(help=LANGUAGE)] = "en",
    seed: Annotated[int, typer.Option(min=0, help="The seed that divided the data set in training.")] = 0,
    device: Annotated[str, typer.Option(help=DEVICE)] = "cpu",
    engine: Annotated[str, typer.Option(help="auto, torch, onnxruntime or openvino.")] = "auto",
    precision: Annotated[str | None, typer.Option(help="f32 or bf16. Default: the file's.")] = None,
    threads: Annotated[int | None, typer.Option(help="CPU cores to use. Default: all.")] = None,
    ray: Annotated[str | None, typer.Option(help=RAY)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
) -> None:
    """Measure a model on a labelled data set: AUROC, AP, F1, AUPRO, false alarms."""
    from importlib.util import find_spec

    from okng.cli.common import check_writable, on_cluster, open_model, print_json, say, show_dataset
    from okng.datasets import open_dataset
    from okng.errors import OkngError, missing_extra
    from okng.inspection.storage.urls import shown
    from okng.report.language import translator

    say_of_page = translator(language)
    if report is not None:
        check_writable(report / "report.html", "--report")
    if find_spec("sklearn") is None:  # the line inspects without it
        raise missing_extra("scikit-learn", "train")
    dataset = open_dataset(source, normal, seed, protocol, abnormal, contamination)
    show_dataset(dataset)
    inspector = open_model(
        model, false_alarm_rate, product=product, device=device, engine=engine, precision=precision, threads=threads
    )
    if ray is not None:
        inspector = on_cluster(inspector, ray, threads, device)

    from okng.benchmark.evaluation import evaluate_inspector, metric_lines
    from okng.report import Report
    from okng.training.progress import Narrator

    title = say_of_page("title.evaluate", model=Path(shown(model)).name, data=dataset.name)
    page = Report(title, inspector, model=model, language=language) if report is not None else None
    try:
        with Narrator() as tell:
            figures = evaluate_inspector(inspector, dataset, page, tell)
    except KeyboardInterrupt:
        if page is not None and report is not None:  # figures of a part would be no figures; what was judged is kept
            say(f"wrote {page.write(report / 'report.html')}: {page.inspected} of {page.total} images, no figures")
        raise
    for line in metric_lines(figures):
        say(line)
    failure = None
    if page is not None and report is not None:
        metrics = {key: figures[key] for key in ("image_auroc", "image_ap", "f1_max", "pixel_auroc", "aupro")}
        try:
            say(f"wrote {page.write(report / 'report.html', metrics)}: {page.inspected} of {page.total} images")
        except OkngError as error:  # the figures are printed all the same
            failure = error
    if as_json:
        print_json({"model": shown(model), "dataset": dataset.name, "protocol": dataset.protocol, **figures})
    if failure is not None:
        raise failure
