"""docs/tables.md, docs/methods.md and what is drawn say what results/ says."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from okng.benchmark.beside import Line

ROOT = Path(__file__).parents[2]


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["tables_page", "methods_page"])
def test_the_page_is_written_from_the_results(name: str) -> None:
    module = script(name)
    assert module.PAGE.read_text(encoding="utf-8") == module.page(), f"run python benchmarks/{name}.py"


def test_what_learning_ng_images_costs_is_drawn_from_the_results_and_within_the_plot(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The lowest line once ran below the axis, through its labels."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    module = script("contamination")
    drawing = module.DRAWING.read_text(encoding="utf-8")
    assert drawing == module.draw(module.by_method(module.read_rows(module.PATH))), (
        "run python benchmarks/contamination.py"
    )
    heights = [float(y) for y in re.findall(r'<circle cx="[^"]*" cy="([^"]*)"', drawing)]
    assert len(heights) == len(module.METHODS) * len(module.SHARES)
    assert all(module.TOP <= y <= module.TOP + module.HEIGHT for y in heights)


def test_a_cell_has_the_published_figure_beside_it() -> None:
    module = script("tables_page")
    assert module.cell(Line("0", "0.95", 0.98765)) == "0.988 (0.95)" and module.cell(Line("0", "0.95", None)) == "–"


def test_a_difference_is_over_the_cells_that_have_both_figures_and_a_large_one_is_explained() -> None:
    module = script("tables_page")
    table = module.TABLES["ocgan/cifar10"]
    (block,), outcomes = table.blocks, module.standing(table, module.ROOT / "results")
    apart = module.differences(table, block, outcomes)
    for method, found in apart.items():
        cells = [o for o in outcomes if o.cell.method == method]
        assert found == pytest.approx(sum(o.value - o.cell.published for o in cells) / len(cells), abs=1e-9)
    said = module.explained(table, block, outcomes)
    assert {method for method, found in apart.items() if round(abs(found), 3) >= module.FAR} == {
        line[2:].partition(":")[0] for line in said.splitlines() if line.startswith("- ")
    }
    only_means = module.TABLES["oe-sdn/table3"]
    there = module.standing(only_means, module.ROOT / "results")
    assert abs(module.differences(only_means, only_means.blocks[0], there)["Rotation"]) < 0.01
    assert module.differences(only_means, only_means.blocks[1], there) == {}  # of some classes there is no printed mean


def test_each_cell_without_a_figure_has_a_reason() -> None:
    module = script("tables_page")
    for table in module.TABLES.values():
        outcomes = module.standing(table, module.ROOT / "results")
        run = {(o.cell.dataset, o.cell.metric, o.cell.method, o.cell.kind) for o in outcomes}
        for block in table.blocks:
            said = module.missing(table, block, outcomes)
            there = module.AT_HAND.get(block.dataset, block.classes)
            for method in block.methods:
                for kind in block.classes:
                    if (block.dataset, block.metric, method, kind) not in run:
                        assert (kind if there else "all of it") in said if kind not in there else method in said


def test_a_cell_of_three_seeds_has_their_deviation() -> None:
    cell = script("methods_page").cell
    rows = [{"metric": "aupro", "value": value} for value in ("0.9000", "0.9200", "0.9400")]
    assert cell(rows) == "0.920 ± 0.020" and cell(rows[:2]) == "0.910" and cell([]) == "–"
    assert cell([{"metric": "fit_seconds", "value": value} for value in ("90", "100", "400")]) == "100"
