"""Keep the table of `okng compare` among the results, with the command and the date that it was made by.

    okng compare DATA/mvtec_ad/transistor -o FOLDER
    python benchmarks/compared.py FOLDER/transistor.csv

Writes results/compare/transistor.csv, named as the table is: its rows as they are, the methods without a figure too.
"""

from __future__ import annotations

import argparse
import datetime
from pathlib import Path

from measure import RESULTS

from okng.benchmark.rows import read_rows, write_rows

SETS = {"transistor": "DATA/mvtec_ad/transistor", "elpv-mono": "elpv/mono"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path)
    table = parser.parse_args().table
    ended = datetime.datetime.fromtimestamp(table.stat().st_mtime, datetime.UTC)
    more = {"command": f"okng compare {SETS[table.stem]} -o FOLDER", "date": ended.date().isoformat()}
    rows = [{**row, **more} for row in read_rows(table)]
    write_rows(RESULTS / "compare" / table.name, rows[0], rows)


if __name__ == "__main__":
    main()
