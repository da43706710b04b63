"""Who may import whom: what keeps the library readable. The table is the one in the README, and has no exceptions."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "normbench"
FILES = sorted(PACKAGE.rglob("*.py"))
assert len(FILES) > 30

# What a room may import of ours, besides itself and the ground floor. Down this list, never up or sideways.
GROUND = {"errors", "files", "seeding", "noise"}
MAY_IMPORT: dict[str, set[str]] = {
    "norms": set(), "data": set(), "runs": set(), "config": set(),
    "models": {"norms"},
    "training": {"norms", "data", "runs", "models"},
    "instruments": {"norms", "data", "models", "training"},
    "verify": {"norms", "data", "models", "training"},
    "explain": {"norms", "data", "models", "training"},
    "experiment": {"norms", "data", "runs", "config", "models", "training", "instruments"},
    "analysis": {"runs"},  # from here to `report` the branch that never imports torch; a sweep chooses its next round
    "sweep": {"runs", "config", "experiment", "analysis"},
    "plots": {"runs", "analysis"},
    "claims": {"runs", "config", "analysis", "plots"},
    "report": {"runs", "config", "analysis", "plots", "claims"},
    "export": {"runs", "analysis"},
    "commands": {"norms", "data", "runs", "config", "models", "training", "instruments", "verify", "explain",
                 "experiment", "sweep", "analysis", "plots", "claims", "report", "export"},
    "cli": {"commands"},
    "api": {"runs", "config", "training", "explain", "experiment", "sweep", "analysis", "plots", "claims", "report",
            "commands"},
}  # fmt: skip
WITHOUT_TORCH = {"runs", "config", "analysis", "plots", "claims", "report", "export"}
HYDRA = {"config", "sweep/launcher.py"}


# Arrows of before the rooms that are still to be turned round. This list only ever shrinks.
PENDING: set[str] = set()


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


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def wrong_arrows() -> list[str]:
    """ "training/trainer.py -> instruments", for each import that the table does not allow."""
    found = []
    for path in FILES:
        if room(path) not in MAY_IMPORT:  # the ground floor below
            continue
        ours = {name.split(".")[1] for name in imports(path) if name.startswith("normbench.")}
        wrong = ours - {room(path)} - GROUND - MAY_IMPORT[room(path)]
        found += [f"{path.relative_to(PACKAGE)} -> {name}" for name in sorted(wrong)]
    return found


def test_imports_point_one_way() -> None:
    assert set(wrong_arrows()) == PENDING


def test_the_ground_floor_imports_nothing_of_ours() -> None:
    for name in GROUND:
        assert not {module for module in imports(PACKAGE / f"{name}.py") if module.startswith("normbench")}, name


def test_there_are_no_circles_between_files() -> None:
    """Within a room, too. Imports inside functions count: they are circles all the same."""
    modules = {".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): path for path in FILES}
    arrows: dict[str, set[str]] = {}
    for name, path in modules.items():
        targets = set()
        for imported in imports(path):
            while imported and imported not in modules:  # a name in a module, or a package
                imported = imported.rpartition(".")[0]
            targets.add(imported)
        arrows[name] = targets - {"", name}
    done: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, " -> ".join([*above[above.index(name) :], name])
        if name not in done:
            for target in sorted(arrows[name]):
                visit(target, (*above, name))
            done.add(name)

    for name in modules:
        visit(name, ())


def test_hydra_stops_at_the_door() -> None:
    for path in FILES:
        theirs = {name.split(".")[0] for name in imports(path)} & {"hydra", "omegaconf"}
        assert not theirs or room(path) in HYDRA or str(path.relative_to(PACKAGE)) in HYDRA, path
        assert not any(name.startswith("hydra._internal") for name in imports(path)), path


@pytest.mark.parametrize("name", sorted(WITHOUT_TORCH))
def test_the_side_branch_never_imports_torch(name: str) -> None:
    for path in (PACKAGE / name).rglob("*.py"):
        assert not {module.split(".")[0] for module in imports(path)} & {"torch", "torchvision"}, path.name


def test_instantiate_is_called_in_one_place() -> None:
    assert len([path for path in FILES if "hydra.utils.instantiate" in imports(path)]) <= 1


def test_rooms_are_small_and_files_say_what_they_are() -> None:
    assert len(list(PACKAGE.glob("*.py"))) <= 8
    # A figure is a module of `plots`, a command one of `commands`: there are as many as there are figures and commands.
    for folder in {path.parent for path in FILES} - {PACKAGE, PACKAGE / "plots", PACKAGE / "commands"}:
        assert len(list(folder.glob("*.py"))) <= 16, folder
    for path in FILES:
        assert path.stem not in {"utils", "core", "common", "helpers", "base", "manager", "misc"}, path
        assert ast.get_docstring(ast.parse(path.read_text())), f"{path}: a module says what it is"
