"""Benchmarks are run by hand and rarely: what they take from the package must still exist."""

import ast
import importlib
import importlib.util
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def names_taken(path: Path) -> list[tuple[str, str]]:
    """Module and name of everything a file imports from the package."""
    imports = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)]
    own = [node for node in imports if (node.module or "").split(".")[0] == "spatialsig"]
    return sorted({(node.module or "", alias.name) for node in own for alias in node.names})


def exists(module: str, name: str) -> bool:
    owner = importlib.import_module(module)
    return hasattr(owner, name) or (hasattr(owner, "__path__") and bool(importlib.util.find_spec(f"{module}.{name}")))


@pytest.mark.parametrize("path", sorted(BENCHMARKS.glob("*.py")), ids=lambda path: path.name)
def test_what_a_benchmark_imports_exists(path: Path) -> None:
    missing = [f"{module}.{name}" for module, name in names_taken(path) if not exists(module, name)]
    assert not missing


def test_a_name_that_is_gone_is_seen() -> None:
    assert exists("spatialsig.nn.vit", "ViTConfig")
    assert exists("spatialsig.nn", "vit")
    assert not exists("spatialsig.nn.vit", "gone")
