"""Methods beside their public code, with the same weights: features, losses, maps and scores.

    python benchmarks/public_code.py CHECKOUTS [--only METHOD …]

CHECKOUTS holds the repositories under their own names, at the commits that results/official.csv names. AnomalyDINO
needs dinov2, too, and faiss-cpu, HTDG and RIAD kornia 0.4, PatchCore faiss-cpu and anomalib 2.7.0, CFA and Uninformed
Students einops, U-Flow FrEIA, GLASS, DSR and UniNet OpenCV, and f-AnoGAN the repository of its authors as
tSchlegl-f-AnoGAN; what else their modules import and nothing here runs may be missing.
Nothing is learnt for long: both sides get the same random weights, or the offline ones, and the same made images, and
what they make of them is compared. A figure is the largest difference as a share of the largest value of theirs. Writes
results/official.csv.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import public_adversarial
import public_anomalib
import public_contrastive
import public_copies
import public_features
import public_flows
import public_htdg
import public_one_class
import public_reconstruction
import public_restored
import public_today
import public_transformations
import torch
from official import COLUMNS, PATH, line
from same_weights import apart, theirs

from okng.benchmark.rows import read_rows, write_rows

METHODS = {
    **public_today.METHODS,
    **public_adversarial.METHODS,
    **public_copies.METHODS,
    **public_anomalib.METHODS,
    **public_htdg.METHODS,
    **public_reconstruction.METHODS,
    **public_one_class.METHODS,
    **public_contrastive.METHODS,
    **public_transformations.METHODS,
    **public_features.METHODS,
    **public_flows.METHODS,
    **public_restored.METHODS,
}


def rows(method: str, checkouts: Path) -> list[dict]:
    beside = METHODS[method]
    torch.set_default_dtype(beside.kind)
    torch.manual_seed(0)
    with theirs(checkouts, beside.public, beside.folder) as load:
        found = {name: apart(both) for name, both in beside.compare(load).items()}
    protocol = (
        f"The same weights and made images, in {str(beside.kind)[6:]}: largest difference, of theirs' largest value."
    )
    more = {
        "arguments": beside.arguments, "seed": "0", "seconds": "",
        "command": f"python benchmarks/public_code.py CHECKOUTS --only {method}",
        "implementation": f"{beside.public} and okng",
    }  # fmt: skip
    made = []
    for name, value in found.items():
        print(f"{method:<16}{name:<50}{value:.2g}", flush=True)
        made.append(line(f"weights-{method}", method, "made", protocol, name, f"{value:.2g}", **more))
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkouts", type=Path)
    parser.add_argument("--only", nargs="+", choices=METHODS, default=list(METHODS))
    asked = parser.parse_args()
    for method in asked.only:
        new = rows(method, asked.checkouts)
        others = [row for row in read_rows(PATH) if row["experiment"] != f"weights-{method}"]
        write_rows(PATH, COLUMNS, [*others, *new])


if __name__ == "__main__":
    main()
