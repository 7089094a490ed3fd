"""Flip single bits in every kind of file of a store; ``sp.io.verify`` must find each and name its element.

python benchmarks/bitflips.py --n 10000
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import warnings
from pathlib import Path

import store_breaks as breaks
import store_faults as faults

HERE = Path(__file__).resolve().parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="200 flips")
    parser.add_argument("--json", type=Path, default=HERE / "results" / "bitflips.json")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as directory:
        base = faults.base_store(Path(directory))
        found = breaks.flip_run(base, Path(directory), 200 if args.quick else args.n, args.seed)
    found |= {"goal_missed": 0, "seconds": round(time.perf_counter() - started, 1)}
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=1))
    sys.exit(1 if found["missed"] or found["misnamed"] or not found["n"] else 0)


if __name__ == "__main__":
    main()
