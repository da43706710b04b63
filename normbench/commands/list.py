"""`normbench list`, and the help of `normbench run`: what there is to choose from."""

from __future__ import annotations

from pathlib import Path

from normbench.config.options import GROUPS, choices, config_dir


def listing() -> str:
    """`normbench list`."""
    parts = []
    for group, title in GROUPS.items():
        lines = [f"  {group}={name:<18} {text}" for name, text in choices(group).items()]
        parts.append("\n".join([title, *lines]))
    return "\n\n".join(parts)


def run_help() -> str:
    """`normbench run --help`."""
    from normbench.cli import EXAMPLES

    groups = "\n".join(f"  {group}={'|'.join(choices(group))}" for group in GROUPS)
    text = (config_dir() / "config.yaml").read_text()
    options = text[text.index("# training") : text.index("\nhydra:")].rstrip()
    indented = "\n".join(f"  {line}" if line else "" for line in options.splitlines())
    return f"""\
usage: normbench run [-m] [KEY=VALUE ...]

Train one network and write its folder under results/; with -m, one for every combination of the comma-separated
values. Repeating a command continues it: finished runs are skipped, interrupted ones resume.

groups (normbench list describes them; normbench run norm=batch --cfg job shows all their options)
{groups}

options, with their defaults
{indented}

a group's own options are written with its name: norm.eps=1e-3 model.hidden=[300,300] dataset.train_fraction=0.1

also: --cfg job shows the configuration; --config-dir DIR adds your own; a key may come from a file of experiments

{EXAMPLES}"""


def data_listing(folder: Path, name: str | None, source: Path | None) -> str:
    """`normbench data [NAME] [--from PATH]`: what is there, after fetching or importing what was named."""
    from normbench.data import describe, fetch, import_from

    if name is not None:
        import_from(name, source, folder) if source is not None else fetch(name, folder)
    lines = [f"data sets in {folder}"]
    for row in describe(folder):
        if name in (None, row.name):
            size = f"{row.bytes / 2**20:,.0f} MiB" if row.bytes else ""
            lines.append(f"  {row.name:<14} {row.state:<18} {row.images:>7,} images  {size:>9}  {row.where}")
            lines.append(f"  {'':<14} {row.licence}")
    return "\n".join(lines)
