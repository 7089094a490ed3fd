"""Last line of every module's head: its floor, the rooms of the floor below (it may import these and all below), and who uses it. ``make heads`` writes them, ``test_house.py`` checks them."""

import ast
import re
from collections import defaultdict
from pathlib import Path

import spatialsig
from spatialsig._arguments import CALLED_IN
from spatialsig.tl import ABOVE

SRC = Path(spatialsig.__file__).parent
WIDTH = 120  # of a line: where modules do not fit, only their rooms are named
LINE = re.compile(
    r"(\n\n(?=Floor|Ground|Called|Used)((Floor \d+|Ground floor)[^.\n]*\. ?)?((Called as|Used by) [^\n]*)?)+\Z"
)


def modules() -> dict[str, Path]:
    """``room/module`` -> file, of everything that is no front door of a room."""
    files = sorted(path for path in SRC.rglob("*.py") if path.name not in ("__init__.py", "__main__.py"))
    return {path.relative_to(SRC).with_suffix("").as_posix(): path for path in files}


def _doors() -> dict[tuple[str, str], str]:
    """Room and name that it exports -> the module that holds it."""
    found = {}
    for door in SRC.rglob("__init__.py"):
        room = door.parent.relative_to(SRC).as_posix().removeprefix(".")
        for node in ast.walk(ast.parse(door.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                base = f"{room}/{node.module}" if node.level else node.module.removeprefix("spatialsig.")
                found |= {(room, alias.name): base.strip("/").replace(".", "/") for alias in node.names}
    return found


def _used(path: Path, doors: dict[tuple[str, str], str]) -> set[str]:
    """Modules whose names a file imports, or reads as ``room.name``."""
    tree, used, rooms = ast.parse(path.read_text()), set(), set()
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom):
            continue
        if node.level:
            here = path.parent.relative_to(SRC).as_posix()
            place = "/".join(part for part in (here, (node.module or "").replace(".", "/")) if part not in ("", "."))
        elif (node.module or "").partition(".")[0] == "spatialsig":
            place = node.module.replace(".", "/").removeprefix("spatialsig").strip("/")
        else:
            continue
        for alias in node.names:
            inside = f"{place}/{alias.name}".strip("/")
            used |= {place, inside, doors.get((place, alias.name), "")}
            rooms |= {inside}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in rooms:
            used.add(doors.get((node.value.id, node.attr), ""))
    return used


def heads(floors: dict[str, int]) -> dict[str, str]:
    """Line that each module's head should end with."""
    doors, users, public = _doors(), defaultdict(list), defaultdict(list)
    for name, path in {**modules(), "cli": SRC / "cli" / "__init__.py"}.items():
        for used in _used(path, doors) - {name}:
            users[used].append(name)
    for (room, exported), module in doors.items():
        room = CALLED_IN[room] if exported in ABOVE else room
        if room in ("io", "pp", "tl", "pl", "datasets", "models", ""):
            public[module].append(".".join(filter(None, ("sp", room, exported))))
    lines = {}
    for name in modules():
        called = f"Called as {', '.join(sorted(public[name]))}" if public[name] else ""
        floor = floors[name.partition("/")[0]]
        below = (
            sorted(room for room, number in floors.items() if number == floor - 1)
            if floor > 1
            else ["the ground floor"]
        )
        start = f"Floor {floor}, above {', '.join(below)}. " if floor else "Ground floor. "
        rooms = sorted({module.partition("/")[0] for module in users[name]})
        for by in (
            users[name],
            [f"{len(users[name])} modules of {', '.join(rooms)}"],
            [f"{len(users[name])} modules of {len(rooms)} rooms"],
        ):
            used = f"{'used' if called else 'Used'} by {', '.join(by)}" if users[name] else ""
            line = f"{start}{'; '.join(filter(None, (called, used)))}."
            if len(line) <= WIDTH:
                break
        if called or used:
            lines[name] = line
    return lines


def head_of(path: Path) -> str:
    """Line that a module's head ends with; empty without one."""
    found = LINE.search(ast.get_docstring(ast.parse(path.read_text()), clean=False).rstrip())
    return found[0].strip() if found else ""


def write(floors: dict[str, int]) -> None:
    """Bring the heads of all modules up to date."""
    lines = heads(floors)
    for name, path in modules().items():
        text = path.read_text()
        doc = ast.get_docstring(ast.parse(text), clean=False)
        body = LINE.sub("", doc.rstrip())
        new = f"{body}\n\n{lines[name]}\n" if name in lines else body + ("\n" if "\n" in body else "")
        path.write_text(text.replace(f'"""{doc}"""', f'"""{new}"""', 1))


if __name__ == "__main__":
    from .test_house import FLOOR

    write(FLOOR)
