"""What there is to choose from, read from the YAML files themselves."""

from __future__ import annotations

from pathlib import Path

GROUPS = {
    "norm": "schemes",
    "model": "models",
    "dataset": "data sets",
    "instruments": "instruments",
    "experiment": "experiments",
}


def config_dir() -> Path:
    """The folder of YAML files: inside the package once installed, beside it in a checkout."""
    here = Path(__file__).resolve().parent.parent
    for folder in (here / "configs", here.parent / "configs"):
        if (folder / "config.yaml").is_file():
            return folder
    raise FileNotFoundError(f"normbench is not completely installed: {here / 'configs'} is missing.")


def choices(group: str) -> dict[str, str]:
    """The options of a group with their one-line descriptions: {"batch": "batch normalization ...", ...}."""
    root = config_dir() / group
    files = sorted(root.rglob("*.yaml"))
    return {path.relative_to(root).with_suffix("").as_posix(): description(path) for path in files}


def question(study: str) -> str:
    """What the experiment asks that puts its runs into this study: the description of its file; "" if there is none."""
    import yaml

    root = config_dir() / "experiment"
    for path in sorted(root.rglob("*.yaml")):
        if (yaml.safe_load(path.read_bytes()) or {}).get("study") == study:
            return description(path)
    return ""


def description(path: Path) -> str:
    """The first comment line of a YAML file."""
    comments = [line.lstrip("# ").strip() for line in path.read_text().splitlines()[:2] if line.startswith("#")]
    return next((line for line in comments if not line.startswith("@package")), "")
