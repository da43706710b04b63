"""Who may import whom, how long a file may be: what keeps the library readable in an afternoon."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "normbench"
FILES = sorted(PACKAGE.rglob("*.py"))
assert len(FILES) > 30

# What each part may import of ours, besides itself; a part that is not named may import everything.
MAY_IMPORT = {
    "norms": set(),
    "models": {"norms"},
    "data": set(),
    "training": set(),
    "optimization": set(),
    "seeding": set(),
    "runs": set(),
    "instruments": {"data", "memory", "norms", "seeding", "training"},
    "memory": set(),
    "report": {"runs"},
    "claims": {"cell", "data", "folding", "listing", "models", "norms", "report", "runs"},
    "cell": {"runs"},  # but for types
    "summary": {"data", "norms"},
    "folding": {"data", "norms"},
    "verify": {"norms"},
}
HYDRA = {"app", "cli", "composing", "config", "hydra_errors", "sweeper"}


@cache
def imports(path: Path) -> set[str]:
    """Modules imported by a file, wherever in it, but not for type checkers alone."""
    tree = ast.parse(path.read_text())
    guarded = {
        id(node) for block in ast.walk(tree) if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.dump(block.test)
        for node in ast.walk(block)
    }  # fmt: skip
    found: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in guarded:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: imports are absolute here"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def part(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def test_imports_point_one_way() -> None:
    for path in FILES:
        ours = {name.split(".")[1] for name in imports(path) if name.startswith("normbench.")} - {part(path)}
        assert part(path) not in MAY_IMPORT or ours <= MAY_IMPORT[part(path)], path


def test_hydra_stops_at_the_door() -> None:
    for path in FILES:
        theirs = {name.split(".")[0] for name in imports(path)} & {"hydra", "omegaconf"}
        assert not theirs or part(path) in HYDRA, path


@pytest.mark.parametrize("name", ["runs", "report"])
def test_reports_are_built_without_torch(name: str) -> None:
    for path in FILES:
        if part(path) == name:
            assert not {module.split(".")[0] for module in imports(path)} & {"torch", "torchvision"}, path.name


def test_claims_are_answered_without_torch_but_for_calculations() -> None:
    for path in PACKAGE.glob("claims/*.py"):
        calculates = path.stem == "calculations"
        torch = {name for name in imports(path) if name.split(".")[0] in ("torch", "torchvision")}
        heavy = {
            name for name in imports(path) if name.split(".")[1:2] in (["data"], ["folding"], ["models"], ["norms"])
        }
        assert calculates or not torch | heavy, path.name


def test_instantiate_is_called_in_one_place() -> None:
    assert [path.name for path in FILES if "hydra.utils.instantiate" in imports(path)] == ["config.py"]


def test_a_file_is_one_idea() -> None:
    for path in FILES:
        assert len(path.read_text().splitlines()) <= 250, path
        assert path.stem not in {"utils", "core", "common", "helpers", "base", "manager", "misc"}, path
        assert ast.get_docstring(ast.parse(path.read_text())), f"{path}: a module says what it is"
