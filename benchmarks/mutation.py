"""Which changes of the code does no test notice? A sample of mutmut's mutants, each against the tests of its own file.

    pip install '.[mutants]'
    python benchmarks/mutation.py FOLDER [--only training.loop.phases …] [--tree .] [--sample 200] [--seed 0]

Mutates what [tool.mutmut] in pyproject.toml names, or `--only` some modules, in a copy of `--tree` at FOLDER (of other
modules: another folder), and draws the sample so that every file counts by its number of mutants. mutmut leaves
functions with a decorator alone; `fit` is wrapped after its definition in the copy, so that its body counts too.
`mutmut run` asks every test that reaches a mutant; here only those that `TESTS` names are asked, which is stricter and
takes a second or two a mutant. What was run is kept in FOLDER/done.csv, and a stopped run goes on from there. Survivors
are printed with their change; a mutant that can't be told from the code, or changes no more than the words of a
message, has to be told by a person.
"""

from __future__ import annotations

import argparse
import csv
import difflib
import os
import random
import re
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
COPIED = ("src", "tests", "results", "docs", "benchmarks", "README.md", "CONTRIBUTING.md", "CHANGELOG.md")
CPU_SECONDS = 120  # a mutant that takes longer is noticed by its time
TESTS = {
    "inspection.reading.decoding": ["inspection/reading/test_decoding.py", "inspection/reading/test_images.py"],
    "inspection.reading.files": [
        "datasets/test_files.py",
        "inspection/test_inspector.py",
        "inspection/test_outputs.py",
    ],
    "inspection.reading.formats": ["inspection/reading/test_decoding.py", "inspection/reading/test_images.py"],
    "inspection.reading.images": [
        "inspection/reading/test_images.py",
        "inspection/reading/test_decoding.py",
        "inspection/reading/test_arrays.py",
    ],
    "inspection.inspector": ["inspection/test_inspector.py", "inspection/reading/test_arrays.py"],
    "inspection.onnx_file": ["inspection/test_engines.py", "inspection/test_model_file.py"],
    "metrics.regions": ["metrics/test_pixel_metrics.py"],
    "training.loop.checkpoint": ["training/loop/test_phases.py", "training/test_frame.py"],
    "training.images.data": [
        "training/loop/test_phases.py",
        "training/test_frame.py",
        "training/test_auxiliary_images.py",
    ],
    "training.loop.descent": ["training/loop/test_phases.py", "training/test_frame.py"],
    "training.loop.feed": ["training/test_frame.py", "training/loop/test_phases.py"],
    "training.fit": ["training/test_held_out.py", "training/test_fit.py", "training/test_ng.py"],
    "training.images.input": ["training/images/test_input.py", "training/test_fit.py"],
    "training.loop.losses": ["training/test_frame.py", "training/loop/test_phases.py"],
    "training.loop.passes": ["training/loop/test_phases.py", "training/test_frame.py"],
    "training.loop.phases": ["training/loop/test_phases.py", "training/loop/test_frozen.py"],
    "training.images.reading": ["training/test_fit.py"],
    "training.loop.seeds": ["training/loop/test_phases.py", "training/test_frame.py"],
}
LEFT_OUT = "not the_command and not bf16_takes and not command_line"  # other programs, half a minute each
MUTATE = """
from mutmut.__main__ import copy_also_copy_files, copy_src_dir, create_mutants, setup_source_paths
from mutmut.mutation.trampoline import set_mutant_under_test
set_mutant_under_test("mutant_generation")
copy_src_dir(); copy_also_copy_files(); setup_source_paths(); create_mutants(1)
"""


def mutate(tree: Path, work: Path, only: list[str] | None) -> None:
    """Every mutant of `tree`, or of `only` some modules, each a function of its own, under work/mutants."""
    work.mkdir(parents=True)
    for name in COPIED:
        if (tree / name).is_dir():
            shutil.copytree(tree / name, work / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif (tree / name).exists():
            shutil.copy(tree / name, work)
    settings = (ROOT / "pyproject.toml").read_text()
    if only:
        files = [f"src/okng/{module.replace('.', '/')}.py" for module in only]
        settings = re.sub(r"only_mutate = \[.*?\]", f"only_mutate = {files}", settings, flags=re.DOTALL)
    (work / "pyproject.toml").write_text(settings)
    fit = work / "src" / "okng" / "training" / "fit.py"
    text, wrapped = re.subn(r"^(?:@\w+\n)+def fit\(", "def fit(", fit.read_text(), flags=re.MULTILINE)
    fit.write_text(text + "\n\nfit = narrated(one_at_a_time(fit))\n" if wrapped else text)
    subprocess.run([sys.executable, "-c", MUTATE], cwd=work, check=True, stdout=subprocess.DEVNULL)


def mutants(work: Path) -> dict[str, list[str]]:
    """The names of the mutants of each module, such as "metrics.ranking"."""
    found = {}
    for path in sorted((work / "mutants" / "src" / "okng").rglob("*.py")):
        module = ".".join(path.relative_to(work / "mutants" / "src" / "okng").with_suffix("").parts)
        names = re.findall(r"^ *(?:async )?def (x\S*__mutmut_\d+)\(", path.read_text(), re.MULTILINE)
        if names:
            found[module] = names
    return found


def drawn(found: dict[str, list[str]], seed: int) -> list[tuple[str, str]]:
    """All (module, mutant), in an order of which every beginning holds each module by its share."""
    rng = random.Random(seed)
    places = []
    for module, names in found.items():
        for i, name in enumerate(rng.sample(names, len(names))):
            places.append(((i + rng.random()) / len(names), module, name))
    return [(module, name) for _, module, name in sorted(places)]


def tests_of(module: str, tests: Path) -> list[str]:
    *rooms, name = module.split(".")
    paths = [tests / path for path in TESTS.get(module, ["/".join([*rooms, f"test_{name}.py"])])]
    return [str(path) for path in paths if path.exists()]


def passes(mutant: str, tests: list[str]) -> bool:
    """Whether all `tests` pass with `mutant` in place of what it mutates, in a process of its own."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    try:
        import pytest
        from mutmut.mutation.trampoline import set_mutant_under_test

        resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        set_mutant_under_test(mutant)
        marks = ["-m", "not slow and not real_data", "-k", LEFT_OUT]
        os._exit(int(pytest.main(["-x", "-q", "-p", "no:xdist", "-p", "no:cacheprovider", *marks, *tests])))
    finally:
        os._exit(70)


def change(work: Path, module: str, name: str) -> str:
    """What `name` changes, as the lines of a diff."""
    text = (work / "mutants" / "src" / "okng" / f"{module.replace('.', '/')}.py").read_text()
    base = name.rpartition("__mutmut_")[0]
    bodies = []
    for one in (f"{base}__mutmut_orig", name):
        found = re.search(rf"^( *)def {one}\(.*?(?=^\1(?:def|@|class|[\w])|\Z)", text, re.MULTILINE | re.DOTALL)
        bodies.append(found[0].replace(one, base).splitlines() if found else [])
    lines = difflib.unified_diff(*bodies, lineterm="", n=0)
    return "\n".join(line for line in lines if not line.startswith(("---", "+++", "@@")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path, help="a folder for the mutants and what was run")
    parser.add_argument("--tree", type=Path, default=ROOT, help="the checkout to mutate")
    parser.add_argument("--only", nargs="+", metavar="MODULE", help="such as training.loop.phases; all by default")
    parser.add_argument("--sample", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    work = given.work.absolute()
    if not work.exists():
        mutate(given.tree, work, given.only)
    found = mutants(work)
    sample = [one for one in drawn(found, given.seed) if one[0] in (given.only or found)][: given.sample]
    path = work / "done.csv"
    done = {row[1]: row for row in csv.reader(path.open())} if path.exists() else {}
    os.chdir(work / "mutants")
    os.environ.update(OMP_NUM_THREADS="1", PYTHONPATH=str(work / "mutants" / "src"), MUTANT_UNDER_TEST="")
    sys.path[:0] = [str(work / "mutants" / "src"), str(work / "mutants")]
    import pytest

    collected = sorted({path for module, _ in sample for path in tests_of(module, Path("tests"))})
    pytest.main(["--collect-only", "-qq", "-p", "no:cacheprovider", *collected])  # what all children need, once

    for module, name in sample:
        if name not in done:
            start = time.monotonic()
            survived = passes(f"okng.{module}.{name}", tests_of(module, Path("tests")))
            done[name] = [module, name, "survived" if survived else "killed", f"{time.monotonic() - start:.1f}"]
            with path.open("a", newline="") as file:
                csv.writer(file).writerow(done[name])
            if survived:
                print(f"\n{module} {name}\n{change(work, module, name)}", flush=True)
    for module in sorted({module for module, _ in sample}):  # a survivor shows that the tests pass without a mutant
        verdicts = {done[name][2] for one, name in sample if one == module}
        if "survived" not in verdicts and not passes("", tests_of(module, Path("tests"))):
            sys.exit(f"{module}: its tests fail without any mutant")
    run = [done[name] for _, name in sample if name in done]
    killed = sum(row[2] == "killed" for row in run)
    print(
        f"\n{killed} of {len(run)} mutants killed, of {sum(map(len, found.values()))} that there are; seed {given.seed}"
    )


if __name__ == "__main__":
    main()
