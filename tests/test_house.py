"""The arrows of the house point down, the front door is light, and names are exported on purpose."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import spatialsig
from spatialsig._arguments import CALLED_IN

from .heads import head_of, heads, modules

SRC = Path(spatialsig.__file__).parent
FLOORS = [
    {
        "_keys",
        "errors",
        "_arguments",
        "_checks",
        "_settings",
        "_progress",
        "_workers",
        "_hashing",
        "_text",
        "_yaml",
        "_files",
        "_known",
        "_misfits",
        "_paths",
        "_processes",
        "_stains",
    },
    {"geometry", "stats", "signatures", "nn", "store"},
    {"data", "models"},
    {"train"},
    {"slide"},
    {"inference", "labels", "expression"},
    {"evaluation"},
    {"io", "pp", "tl", "pl"},
    {"datasets", "maps", "atlas"},
    {"cohort"},
    {"report"},
    {"pipeline", "referee", "whole_slides"},
    {"cli"},
    {"__init__", "__main__"},
]
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
FREE = FLOORS[0]  # the ground floor may read itself
MAX_LINES = 300
SUMMARY = Path(__file__).parents[1] / "benchmarks" / "summary.py"


def room(path: Path) -> str:
    """First name below the package: ``pp/_patches.py`` -> ``pp``."""
    return path.relative_to(SRC).with_suffix("").parts[0]


def rooms_used(path: Path) -> set[str]:
    used = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "spatialsig":
            tail = (node.module or "").split(".")[1:]
            used |= {tail[0]} if tail else {alias.name for alias in node.names}
        if isinstance(node, ast.Import):
            used |= {a.name.split(".")[1] for a in node.names if a.name.startswith("spatialsig.")}
    return used - {room(path)}


FILES = sorted(SRC.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SRC)))
def test_imports_only_from_lower_floors(path: Path) -> None:
    for used in rooms_used(path):
        if not (used in FREE and room(path) in FREE):
            assert FLOOR[used] < FLOOR[room(path)], f"{path.name} may not import from {used}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SRC)))
def test_files_stay_readable(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MAX_LINES
    assert path.stem not in {"utils", "helpers", "common", "misc"}


@pytest.mark.parametrize("name", sorted(name for name in FLOOR if (SRC / name / "__init__.py").exists()))
def test_a_room_says_on_which_floor_it_lies(name: str) -> None:
    head = " ".join((SRC / name / "__init__.py").read_text().split('"""')[1].split())
    below = [lower for floor in FLOORS[1 : FLOOR[name]] for lower in sorted(floor)]
    assert f"Floor {FLOOR[name]}: may import the ground floor{' and ' if below else ''}{', '.join(below)}." in head


def test_heads_say_on_which_floor_a_module_lies_and_who_uses_it() -> None:
    wanted = heads(FLOOR)
    assert {name: head_of(path) for name, path in modules().items() if head_of(path)} == wanted, "call `make heads`"


MAX_FILES = 20


@pytest.mark.parametrize("folder", sorted({path.parent for path in FILES}), ids=lambda p: str(p.relative_to(SRC)))
def test_folders_stay_readable(folder: Path) -> None:
    assert len(list(folder.glob("*.py"))) <= MAX_FILES


def imports(path: Path) -> set[str]:
    """Modules of the package that a file loads, at once or in a function; not those it only names in annotations."""
    tree = ast.parse(path.read_text())
    guarded = [n for n in ast.walk(tree) if isinstance(n, ast.If) and "TYPE_CHECKING" in ast.dump(n.test)]
    skipped = {id(inner) for guard in guarded for inner in ast.walk(guard)}
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and id(node) not in skipped:
            base = node.module or ""
            if node.level:
                base = ".".join(filter(None, (module_name(path.parent / "__init__.py"), base)))
            names |= {base} | {f"{base}.{alias.name}" for alias in node.names}
        if isinstance(node, ast.Import) and id(node) not in skipped:
            names |= {alias.name for alias in node.names}
    return names & MODULES


def module_name(path: Path) -> str:
    parts = ("spatialsig", *path.relative_to(SRC).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path) for path in FILES}


def test_no_module_leads_back_to_itself() -> None:
    graph = {module_name(path): imports(path) for path in FILES if path.name != "__init__.py"}
    graph = {name: used & graph.keys() for name, used in graph.items()}
    order: dict[str, int] = {}

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, f"circle: {' -> '.join((*trail[trail.index(name) :], name))}"
        if name not in order:
            for used in sorted(graph[name]):
                visit(used, (*trail, name))
            order[name] = len(order)

    for name in sorted(graph):
        visit(name, ())


FRONT_ROOMS = ("io", "pp", "tl", "pl", "datasets")


def public_modules(front: str) -> set[str]:
    """Modules of a front room that define one of its public names."""
    room_module = importlib.import_module(f"spatialsig.{front}")
    homes = {getattr(getattr(room_module, name), "__module__", "") for name in room_module.__all__}
    return {home for home in homes if home.startswith(f"spatialsig.{front}.")}


@pytest.mark.parametrize("front", FRONT_ROOMS)
def test_public_functions_do_not_import_their_siblings(front: str) -> None:
    public = public_modules(front)
    for path in (path for path in FILES if room(path) == front and path.name != "__init__.py"):
        siblings = imports(path) & (public - {module_name(path)})
        assert not siblings, f"{path.name} imports {sorted(siblings)}; what they share belongs one floor down"


def test_tl_holds_what_a_user_can_call_and_nothing_else() -> None:
    files = {module_name(path) for path in FILES if path.parent == SRC / "tl" and path.name != "__init__.py"}
    assert files == public_modules("tl")


def test_what_tl_calls_from_above_lies_above_and_is_called_so() -> None:
    for name, place in spatialsig.tl.ABOVE.items():
        home = place.removeprefix("spatialsig.")
        assert FLOOR[home] > FLOOR["tl"]
        assert CALLED_IN[home] == "tl"
        assert getattr(spatialsig.tl, name).__module__.startswith(f"{place}.")


HEAVY = {"torch", "lightning", "spatialdata_io", "squidpy", "scanpy", "tensorstore", "tifffile"}


@pytest.mark.parametrize(("code", "loaded"), [("import spatialsig", set()), ("import spatialsig, torch", {"torch"})])
def test_bare_import_is_light(code: str, loaded: set[str]) -> None:
    probe = f"{code}; import sys; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-W", "ignore", "-c", probe], check=True, capture_output=True, text=True)
    assert HEAVY & set(run.stdout.split()) == loaded


@pytest.mark.parametrize("name", ["spatialsig.io", "spatialsig.pp", "spatialsig.tl", "spatialsig.pl", "spatialsig"])
def test_public_names_exist_and_are_documented(name: str) -> None:
    module = importlib.import_module(name)
    for public in module.__all__:
        thing = getattr(module, public)
        if callable(thing):
            assert thing.__doc__, f"{name}.{public} has no docstring"
            if name != "spatialsig":
                assert "Returns" in thing.__doc__, f"{name}.{public} does not say what it writes"


def test_the_page_of_measured_numbers_is_what_was_recorded() -> None:
    subprocess.run([sys.executable, str(SUMMARY), "--check"], check=True)
