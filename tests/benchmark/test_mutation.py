"""The tests that benchmarks/mutation.py runs against the mutants of a module."""

import importlib.util
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_modules_and_tests_that_are_named_are_there() -> None:
    spec = importlib.util.spec_from_file_location("mutation", ROOT / "benchmarks" / "mutation.py")
    mutation = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(mutation)
    for module, tests in mutation.TESTS.items():
        assert (ROOT / "src" / "okng" / f"{module.replace('.', '/')}.py").is_file(), module
        assert all((ROOT / "tests" / path).is_file() for path in tests), module
    found = mutation.tests_of("training.images.copies", ROOT / "tests")  # of its own room, however deep
    assert found == [str(ROOT / "tests/training/images/test_copies.py")]
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["mutmut"]
    assert all(list(ROOT.glob(path)) for path in settings["only_mutate"])
    assert all((ROOT / path).exists() for path in settings["pytest_add_cli_args_test_selection"])
