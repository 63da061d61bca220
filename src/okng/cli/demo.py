"""`okng demo`: the whole trip on real solar cells that pip brings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def demo(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for models and reports.")] = Path("okng-demo"),
    detector: Annotated[str, typer.Option("-d", "--detector", help="A name of `okng list`.")] = "patchcore",
    seed: Annotated[int, typer.Option(min=0)] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
) -> None:
    """Train on OK solar cells, inspect unseen OK and defective ones, write a report; offline."""
    from okng.cli.common import check_writable, print_json, say, show_dataset
    from okng.datasets import open_dataset

    check_writable(output / "mono.okng")
    sets = {kind: open_dataset(f"elpv/{kind}", seed=seed) for kind in ("mono", "poly")}

    import okng
    from okng.benchmark.evaluation import evaluate_inspector, metric_lines
    from okng.report import Report
    from okng.training.progress import Narrator

    results = {}
    for kind, dataset in sets.items():
        show_dataset(dataset)
        with Narrator() as tell:
            inspector = okng.fit([sample.image for sample in dataset.train], detector, seed=seed, tell=tell)
            inspector.manifest["provenance"]["source"] = dataset.name
            inspector.save(output / f"{kind}.okng")
            page = Report(f"Solar cells, {kind}crystalline", inspector)
            figures = evaluate_inspector(inspector, dataset, page, tell)
        metrics = {key: figures[key] for key in ("image_auroc", "image_ap", "f1_max")}
        figures["report"] = str(page.write(output / f"{kind}.html", metrics).resolve())
        figures["model"] = str((output / f"{kind}.okng").resolve())
        for line in metric_lines(figures):
            say(line)
        say(f"report: {figures['report']}\n")
        results[kind] = figures
    if as_json:
        print_json(results)
