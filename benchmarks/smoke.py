"""Run every benchmark once in its short form and say which of them fail; their numbers mean nothing.

    python benchmarks/smoke.py [NAME ...] [--seconds N]

Records go to a folder that is deleted. Those without ``--quick`` (real data, tables of numbers) are left out.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent


def quick_command(path: Path, scratch: Path) -> list[str] | None:
    """The command of a benchmark in its short form, with its record and its files in ``scratch``."""
    text = path.read_text()
    if "record_options(__doc__" in text:  # of machine.py
        text += '"--quick" "--json"'
    if '"--quick"' not in text:
        return None
    command = [sys.executable, str(path), "--quick"]
    for option, value in (("--json", scratch / f"{path.stem}.json"), ("--directory", scratch), ("--out", scratch)):
        if f'"{option}"' in text:
            command += [option, str(value)]
    return command


def outcome(command: list[str], seconds: float) -> str:
    """``ok``, or how the command ended and the last line it said."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        return f"still running after {seconds:.0f} s"
    last = (done.stderr.strip().splitlines() or [""])[-1]
    return "ok" if done.returncode == 0 else f"exit code {done.returncode}: {last}"


def main() -> None:
    """Print one line for each benchmark; exit code 1 if one of them fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="benchmarks to run; all where none is named")
    parser.add_argument("--seconds", type=float, default=900, help="time each may take")
    args = parser.parse_args()
    failed = 0
    for path in sorted(HERE.glob("*.py")):
        if args.names and path.stem not in args.names:
            continue
        with tempfile.TemporaryDirectory() as scratch:
            command = quick_command(path, Path(scratch))
            if command is None:
                continue
            start = time.monotonic()
            result = outcome(command, args.seconds)
        failed += result != "ok"
        print(f"{path.stem:20} {time.monotonic() - start:6.0f} s  {result}", flush=True)
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
