"""Find rows of results/ whose detector's code has been put in order since, and gives the same figures.

    python benchmarks/same_code.py [DETECTOR …]

A row carries a digest of its detector's code and is marked in the tables once the code has changed. For each such row
whose code is in git's history, that code and the present one fit the row's arguments to made-up images, for two epochs,
and score others. Where all scores and maps agree bit for bit, the row gets the present digest.
"""

from __future__ import annotations

import ast
import hashlib
import io
import json
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
AT_MOST = {  # of what costs time
    "epochs": 2, "teacher_epochs": 2, "encoder_epochs": 2, "teacher_steps": 8, "training_steps": 8, "encoder_steps": 8,
    "steps": 5, "samples": 4,
}  # fmt: skip
IMAGES, PRETRAINED_IMAGES = 24, 60  # a tenth is held out; from 50 on frozen networks are compiled


def main() -> None:
    """Compare, and write the digests that have stood the test."""
    from okng.benchmark.code import is_older, present_code
    from okng.benchmark.rows import read_rows, write_rows

    files = {path: read_rows(path) for path in sorted((ROOT / "results").rglob("*.csv"))}
    old = [row for rows in files.values() for row in rows if row.get("code") and row.get("detector") and is_older(row)]
    old = [row for row in old if case(row) and (not sys.argv[1:] or row["detector"] in sys.argv[1:])]
    now = outcomes(ROOT / "src", map(case, old)) if old else {}
    for detector, digest in sorted({(row["detector"], row["code"]) for row in old}):
        rows = [row for row in old if (row["detector"], row["code"]) == (detector, digest)]
        with tempfile.TemporaryDirectory() as folder:
            then = outcomes(Path(folder), map(case, rows)) if check_out(detector, digest, Path(folder)) else {}
        same = [row for row in rows if case(row) in then and then[case(row)] == now[case(row)]]
        print(f"{detector} {digest}: {len(same)} of {len(rows)} rows are what the present code would give")
        for row in same:
            row["code"] = present_code(detector)
    for path, rows in files.items():
        if rows:
            write_rows(path, rows[0], rows)


def check_out(detector: str, digest: str, folder: Path) -> bool:
    """Lay out the newest src/okng in which `detector` has this digest, below `folder`."""
    from okng.benchmark.code import code_digest

    for commit in git("log", "--format=%H", "--", "src/okng").decode().split():
        with tarfile.open(fileobj=io.BytesIO(git("archive", f"{commit}:src", "okng"))) as tree:
            tree.extractall(folder, filter="data")
        if code_digest(detector, folder / "okng") == digest:
            return True
    return False


def git(*words: str) -> bytes:
    """What git says of this repository."""
    return subprocess.check_output(["git", *words], cwd=ROOT)


def case(row: dict[str, str]) -> str:
    """What decides what is fitted to made-up images, as text; nothing where it is told in words or not at all."""
    if "arguments" not in row:
        return ""
    try:
        given: Any = json.loads(row["arguments"] if row["arguments"] != "defaults" else "{}")
    except ValueError:
        if not row["arguments"].startswith("{"):
            return ""
        given = ast.literal_eval(row["arguments"])
    ng = given.pop("labelled_ng", None) is not None
    given.pop("boundary", None)
    given |= {key: min(given[key], most) for key, most in AT_MOST.items() if key in given}
    where = row.get("dataset", "")  # a comparison's rows are of photographs
    shape = (28, 28) if "MNIST" in where else (32, 32, 3) if "CIFAR" in where else (160, 160, 3)
    return json.dumps([row["detector"], {"holdout": 0.1, **given}, ng, shape], sort_keys=True)


def outcomes(source: Path, cases: Iterable[str]) -> dict[str, str]:
    """A digest of all scores and maps of each case, by the okng that lies in `source`; a failure has its own words."""
    command = [sys.executable, __file__, "--fit", json.dumps(sorted(set(cases)))]
    done = subprocess.run(
        command, env={"PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"}, capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def fit(told: str) -> str:
    """The digest of one case, by the okng that is imported here."""
    import okng
    from okng.detectors.catalogue import detector_class

    detector, arguments, ng, shape = json.loads(told)
    rng = np.random.default_rng(0)
    count = PRETRAINED_IMAGES if detector_class(detector).pretrained else IMAGES
    # So far apart that none are near copies, or it would be the rule for those that is compared: they part no split.
    squares = np.ones((shape[0] // 4, shape[1] // 4))
    made = [np.kron(greys, squares) for greys in rng.uniform(-1, 1, (count + 8, 4, 4))]
    if len(shape) == 3:
        made = [np.stack([image, image**2, -image], 2) for image in made]
    pixels = [(127 + 90 * image + rng.normal(0, 9, image.shape)).clip(0, 255).astype(np.uint8) for image in made]
    for image in pixels[count:]:
        image[3:9, 5:14] = 250
    if ng:
        arguments["ng"] = pixels[count + 4 :]
    inspector = okng.fit(pixels[:count], detector, **arguments)
    digest = hashlib.sha256()
    for inspection in inspector.inspect(pixels[:4] + pixels[count : count + 4]):
        digest.update(np.float64(inspection.score).tobytes())
        digest.update(b"" if inspection.map is None else np.asarray(inspection.map, np.float32).tobytes())
    return digest.hexdigest()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--fit"]:
        print(json.dumps({told: fit(told) for told in json.loads(sys.argv[2])}))
    else:
        main()
