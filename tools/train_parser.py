"""What the shipped parser is trained on, and how.

    PYTHONPATH=tools python tools/train_parser.py people --out people --pictures 2400
    dsr-fit train parser --photos ../shared/data/ccp/photos --labels ../shared/data/ccp/labels --label-scheme ccp \
        --left-out tools/ccp_left_out.txt --rendered people --out trained
    cp trained/parser.safetensors priors/parser/

The photos are those of Clothing Co-Parsing (Yang, Luo and Lin, CVPR 2014). `people` renders clothed people with true
labels; a folder that is there already is completed. Two seconds a picture on one core.
"""

from __future__ import annotations

import argparse
import os
from multiprocessing import get_context
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from rich.progress import track
from synthetic_people import casting

from dsr_fit.training.parsing.rendered import shards, write_shard


def _write(path: Path, seeds: range) -> None:
    write_shard(path, seeds, casting())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    people = commands.add_parser("people", help="render the people")
    people.add_argument("--out", type=Path, required=True)
    people.add_argument("--pictures", type=int, default=2400)
    people.add_argument("--processes", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    missing = [(path, seeds) for path, seeds in shards(arguments.out, arguments.pictures) if not path.exists()]
    with get_context("spawn").Pool(arguments.processes) as pool:
        work = [pool.apply_async(_write, each) for each in missing]
        for one in track(work, "rendering"):
            one.get()


if __name__ == "__main__":
    main()
