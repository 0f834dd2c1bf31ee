"""Tables of learning curves for `nasib-ray simulate`, from the JSON files of TaskSet tasks.

    python benchmarks/taskset_tables.py TASKSET-FOLDER -o FOLDER

Metz et al. 2020; the files are those that the benchmark DPL (github.com/releaunifreiburg/DPL) comes with. Of each
configuration the validation losses are taken, without the first one, which is from before the training.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq


def main() -> None:
    """Convert every task of a folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    files = sorted(arguments.folder.glob("*.json"))
    if not files:
        parser.error(f"{arguments.folder} holds no JSON file")
    arguments.output.mkdir(parents=True, exist_ok=True)
    for file in files:
        rows = json.loads(file.read_text())
        table = pa.Table.from_pylist([{**row["hp"], "curve": row["valid"]["loss"][1:]} for row in rows])
        pq.write_table(table, arguments.output / f"{file.stem}.parquet")
        print(
            f"{len(rows)} curves of {len(rows[0]['valid']['loss']) - 1} epochs: {arguments.output / file.stem}.parquet"
        )


if __name__ == "__main__":
    main()
