"""What the package answers to what other people's files and habits broke elsewhere: every case by its call and its command.

python benchmarks/answers.py [SECTION ...]
"""

from __future__ import annotations

import contextlib
import io
import sys
import tempfile
import textwrap
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import answers_cases
import answers_files
from answers_place import Place

import spatialsig as sp
from spatialsig.cli import main as command_line

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from answers_place import Case

SECTIONS = {
    "A": ("Results that no longer fit what they were made from", answers_cases.stale),
    "B": ("The manifest and other people's tables", answers_files.tables),
    "C": ("Images that contradict themselves", answers_files.images),
    "D": ("Stores and paths", answers_files.stores),
    "E": ("Atera", answers_files.atera),
    "F": ("Arguments and values", answers_cases.values),
    "G": ("A full disk", answers_cases.full_disk),
    "H": ("Damaged models", answers_cases.damaged),
}
PARTS_SHOWN = 600  # characters of what a call returns


def answer(call: Callable[[], object]) -> str:
    """The error or the warnings of a call; what it returned where there are none."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            returned = call()
        except sp.errors.SpatialsigError as error:
            return f"{type(error).__name__}: {error}"
        except Exception as error:  # noqa: BLE001 -- what is not ours is shown as it is
            return f"UNTYPED {type(error).__name__}: {error}"
    said = dict.fromkeys(str(w.message) for w in caught if issubclass(w.category, sp.errors.SpatialsigWarning))
    return f"warns: {' | '.join(said)}" if said else f"returns {str(returned)[:PARTS_SHOWN]}"


def typed(words: Sequence[object]) -> str:
    """What the command line says, with its exit code."""
    said, code = io.StringIO(), 0
    before, sys.argv = sys.argv, ["spatialsig", *map(str, words)]
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            warnings.simplefilter("default", sp.errors.SpatialsigWarning)
            command_line()
    except SystemExit as end:
        code = int(end.code or 0)
    except Exception as error:  # noqa: BLE001 -- the same
        return f"UNTYPED {type(error).__name__}: {error}"
    finally:
        sys.argv = before
    return f"exit {code}: {' '.join(said.getvalue().split())[:PARTS_SHOWN]}"


def show(case: Case, scratch: str, counts: Counter[str]) -> None:
    """Print a case with its answers, and count them by their kind."""
    print(case.name)
    lines = []
    with case.given():
        if case.call is not None:
            lines.append(("API", answer(case.call)))
        if case.command is not None:
            words = case.command()
            lines.append(("CLI", f"spatialsig {' '.join(map(str, words))}  ->  {typed(words)}"))
    for door, line in lines:
        counts[door] += 1
        counts["UNTYPED"] += "UNTYPED" in line
        text = textwrap.fill(line.replace(scratch, "..."), 116, break_long_words=False, break_on_hyphens=False)
        print(textwrap.indent(f"{door}  {text}", "     ").replace("\n     ", "\n          "))


def main() -> None:
    """Print every case and its answers, and how many there were."""
    sp.settings.progress = False
    start, counts, n_cases = time.monotonic(), Counter[str](), 0
    with tempfile.TemporaryDirectory() as scratch:
        place = Place(Path(scratch))
        for letter in sys.argv[1:] or SECTIONS:
            title, cases = SECTIONS[letter]
            print(f"\n{letter}. {title}\n")
            for case in cases(place):
                show(case, scratch, counts)
                n_cases += 1
    print(
        f"\n{n_cases} cases, {counts['API']} by the API, {counts['CLI']} by the command line, "
        f"{counts['UNTYPED']} untyped, in {time.monotonic() - start:.0f} s"
    )


if __name__ == "__main__":
    main()
