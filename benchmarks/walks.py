"""How a slide walks through the package: which files are entered, in which order; and the size of the house.

python benchmarks/walks.py [--json PATH]

Each function below runs once under a profiler of the main thread (threads that read ahead are left out: their order is
chance), on one toy slide in memory (``walks``) and on the same slide in a store (``walks_on_disk``). Written down is the
order in which functions of spatialsig are entered for the first time: loops do not count, nor do imports, lambdas and
comprehensions. A walk is that order as files, the same file in a row once:

- ``stops``: length of the walk;
- ``rooms``: different files in it; ``folders``: different first names below the package, ``_*.py`` being ``ground``;
- ``climbs``: stops on a higher floor than the stop before. Every stop is entered by a call, so that a mere return from
  a function is none. Floors are ``FLOORS`` of ``tests/test_house.py`` of the same checkout;
- ``returns``: stops in a file that was left before: ``stops - rooms``.

``handed`` are the same numbers for the way of the slide itself, in memory: only functions that get it as an argument count
(its own methods do not).
"""

from __future__ import annotations

import argparse
import ast
import importlib
import json
import pkgutil
import re
import runpy
import shutil
import subprocess
import sys
import tempfile
import warnings
from importlib.metadata import version
from itertools import groupby, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import networkx as nx
import spatialdata as sd

import spatialsig as sp

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from spatialdata import SpatialData

SRC = Path(sp.__file__).resolve().parent
CHECKOUT = SRC.parents[1]
PATCHES = {"patch_px": 32, "um_per_px": 1.0, "stride_um": 32.0}
TRAIN = {"max_epochs": 1, "batch_size": 32}
CO_OPTIMIZED = 1  # set for functions, not for the bodies of classes and modules


def first_entries(call: Callable[[], Any], *, handed: bool = False) -> list[str]:
    """File of each function of the package, in the order in which the functions are first entered.

    With ``handed``, of those alone that get a slide as an argument.
    """
    entered: dict[tuple[str, str], str] = {}

    def note(frame: FrameType, event: str, _arg: object) -> None:
        code = frame.f_code
        if event != "call" or not code.co_flags & CO_OPTIMIZED or code.co_name.startswith("<"):
            return
        name = code.co_filename.removeprefix(f"{SRC}/")
        if name != code.co_filename and (not handed or gets_slide(frame)):
            entered.setdefault((name, code.co_qualname), name)

    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(None)
    return list(entered.values())


def gets_slide(frame: FrameType) -> bool:
    """Whether a function, which is no method of a slide, is given one."""
    code = frame.f_code
    names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    if code.co_qualname.startswith("Slide."):
        return False
    return any(type(frame.f_locals.get(name)).__name__ == "Slide" for name in names)


def walk_numbers(files: list[str], floors: dict[str, int]) -> dict[str, int]:
    """Stops, rooms, folders, climbs and returns of a walk."""
    walk = [file for file, _ in groupby(files)]
    heights = [floor_of(file, floors) for file in walk]
    folders = {file.split("/")[0] if "/" in file or file[0] != "_" else "ground" for file in walk}
    rooms = len(set(walk))
    climbs = sum(after > before for before, after in pairwise(heights))
    return {"stops": len(walk), "rooms": rooms, "folders": len(folders), "climbs": climbs, "returns": len(walk) - rooms}


def floor_of(file: str, floors: dict[str, int]) -> int:
    """Floor of the longest listed name the file lies in."""
    parts = Path(file).with_suffix("").parts
    names = ["/".join(parts[:length]) for length in range(len(parts), 0, -1)]
    return floors[next((name for name in names if name in floors), parts[0])]


def walks(data: SpatialData | Path, model: sp.models.SignatureViT, *, handed: bool = False) -> dict[str, list[str]]:
    """First entries of the functions that the house is judged by."""
    calls: dict[str, Callable[[], Any]] = {
        "tl.predict": lambda: sp.tl.predict(data, model, use_rep="X_ae"),
        "tl.aggregate_patches": lambda: sp.tl.aggregate_patches(data, min_cells=3),
        "tl.train_vit": lambda: sp.tl.train_vit(data, **TRAIN),
        "tl.evaluate": lambda: sp.tl.evaluate(data, model),
        "pp.make_patches": lambda: sp.pp.make_patches(data, key_added="other", **PATCHES),
        "pl.patches": lambda: sp.pl.patches(data, "Fibroblast"),
    }
    return {name: first_entries(call, handed=handed) for name, call in calls.items()}


def labelled_slide() -> SpatialData:
    """A toy slide with folds, labels and an embedding."""
    slide = sp.datasets.toy(size_um=400)
    sp.pp.split(slide, by="block", block_um=150, buffer_um=20, n_folds=2)
    sp.pp.make_patches(slide, **PATCHES)
    sp.pp.assign_cells(slide)
    sp.tl.score_cells(slide, "seed")
    autoencoder = sp.tl.train_autoencoder(slide, signatures="seed", max_epochs=1, hidden=(16,), n_latent=4)
    sp.tl.embed_cells(slide, autoencoder)
    sp.tl.aggregate_patches(slide, min_cells=3)
    return slide


def import_circles() -> list[list[str]]:
    """Modules that import each other in a circle, imports inside functions included, those for types only not."""
    names = (path.relative_to(SRC.parent).with_suffix("") for path in SRC.rglob("*.py"))
    paths = {".".join(name.parts).removesuffix(".__init__"): SRC.parent / f"{name}.py" for name in names}
    graph = nx.DiGraph()
    for name, path in paths.items():
        package = name if path.stem == "__init__" else name.rpartition(".")[0]
        graph.add_edges_from((name, used) for used in imported(ast.parse(path.read_text()), package, set(paths)))
    return sorted(sorted(part) for part in nx.strongly_connected_components(graph) if len(part) > 1)


def imported(tree: ast.AST, package: str, modules: set[str]) -> set[str]:
    """Modules that code imports; of ``from package import module`` the module."""
    names: set[str] = set()
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            source = ".".join([*above, *filter(None, [node.module])])
            full = {f"{source}.{alias.name}" for alias in node.names}
            names |= {name if name in modules else source for name in full}
        elif not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)):
            names |= imported(node, package, modules)
    return names & modules


def duplicate_pairs() -> int | None:
    """Pairs that the command ``duplicates`` counts in the checkout; None where there is no such command."""
    if shutil.which("duplicates") is None:
        return None
    command = ["duplicates", "--most", "200", "--seconds", "120"]
    count = re.match(r"(\d+) pairs", subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True).stdout)
    return int(count[1]) if count else 0


def house_numbers() -> dict[str, Any]:
    """Size of the source, its longest folder, its circles."""
    files = sorted(SRC.rglob("*.py"))
    folders = {folder: len(list(folder.glob("*.py"))) for folder in {file.parent for file in files}}
    longest = max(sorted(folders), key=folders.__getitem__)
    return {
        "modules": len(files),
        "lines": sum(len(file.read_text().splitlines()) for file in files),
        "longest_folder": longest.relative_to(SRC.parent).as_posix(),
        "longest_folder_files": folders[longest],
        "circles": import_circles(),
        "duplicate_pairs": duplicate_pairs(),
    }


def main() -> None:
    """Print and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="file to write the numbers to")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    sp.settings.progress = False
    house = runpy.run_path(str(CHECKOUT / "tests" / "test_house.py"))
    floors = {name: number for number, names in enumerate(house["FLOORS"]) for name in names}
    for module in pkgutil.walk_packages([str(SRC)], "spatialsig."):  # imports are no part of a walk
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    slide = labelled_slide()
    model = sp.tl.train_vit(slide, **TRAIN)
    with tempfile.TemporaryDirectory() as scratch:
        store = Path(scratch) / "toy.zarr"
        sp.io.write(sd.deepcopy(slide), store)
        entries = {"walks": walks(slide, model), "walks_on_disk": walks(store, model)}
        entries["handed"] = walks(slide, model, handed=True)
    git = ["git", "-C", str(CHECKOUT), "log", "-1", "--format=%h", "--", "src"]
    result = {
        "version": version("spatialsig"),
        "commit_of_src": subprocess.run(git, capture_output=True, text=True).stdout.strip() or None,
        **{kind: {name: walk_numbers(files, floors) for name, files in e.items()} for kind, e in entries.items()},
        "house": house_numbers(),
    }
    print(json.dumps(result, indent=2))
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
