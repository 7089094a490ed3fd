"""How large is the report of eight slides, all of them held out once, with six signatures? Goal: below 20 MB.

python benchmarks/report_size.py [--quick] [--out FOLDER] [--json PATH]
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
import warnings
from pathlib import Path

from signs import make_cohort

import spatialsig as sp
from spatialsig.report import write_report

HERE = Path(__file__).resolve().parent
GOAL_MB = 20.0


def main() -> None:
    """Print and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="4 slides of 0.4 mm")
    parser.add_argument("--out", type=Path, default=HERE / "out" / "report")
    parser.add_argument("--json", type=Path, default=HERE / "results" / "report_size.json")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    sp.settings.progress = False
    n_slides, size_um = (4, 400.0) if args.quick else (8, 1200.0)
    shutil.rmtree(args.out, ignore_errors=True)
    args.out.mkdir(parents=True)
    cohort = make_cohort(args.out, n_slides, size_um)
    # one epoch: the pictures weigh the same however good the scores are
    evaluation = sp.tl.cross_validate(cohort, run_dir=args.out / "folds", use_rep=None, max_epochs=1)
    started = time.perf_counter()
    parameters = {"synthetic": True, "split": {"by": "patient"}}
    page = write_report(
        args.out / "report.html", cohort=cohort, evaluation=evaluation, histories={}, warnings=[], coverage=None,
        parameters=parameters,
    )  # fmt: skip
    result = {
        "slides": len(cohort),
        "signatures": int(evaluation["signature"].nunique()),
        "mb": round(page.stat().st_size / 1e6, 2),
        "goal_mb": GOAL_MB,
        "seconds": round(time.perf_counter() - started, 1),
    }
    print(json.dumps(result, indent=2))
    if not args.quick:
        args.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
