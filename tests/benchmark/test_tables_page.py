"""docs/tables.md says what results/ says."""

import importlib.util
from pathlib import Path

from okng.benchmark.beside import Line

ROOT = Path(__file__).parents[2]


def test_the_page_is_written_from_the_results():
    spec = importlib.util.spec_from_file_location("tables_page", ROOT / "benchmarks" / "tables_page.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.PAGE.read_text(encoding="utf-8") == module.page(), "run python benchmarks/tables_page.py"
    assert module.cell(Line("0", "0.95", 0.98765)) == "0.988 (0.95)" and module.cell(Line("0", "0.95", None)) == "–"
