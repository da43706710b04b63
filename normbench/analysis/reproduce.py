"""Every run with the command that repeats it, and the few commands that repeat a study."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

from normbench.analysis.groups import Groups, order
from normbench.analysis.tables import Column, Table, number, percent, show_or_dash
from normbench.runs import Run

Block = dict[str, tuple[str, ...]]  # {"norm": ("batch", "layer"), "seed": ("0", "1")}: every combination of these


def every_run(groups: Groups) -> Table:
    """One row per run: what sets it apart, what became of it, and the command that repeats it."""
    columns = [
        Column("scheme", "norm", numeric=False),
        *(Column(key, key.replace("_", " "), show_or_dash) for key in groups.varying),
        Column("seed", "seed"),
        Column("status", "status", numeric=False),
        Column("test_accuracy", "test accuracy %", percent),
        Column("steps", "steps", number("{:,}")),
        Column("seconds", "seconds", number("{:.1f}")),
        Column("command", "command", numeric=False),
    ]
    keys = dict.fromkeys(("model", "batch_size", *groups.varying))  # the first two: what the page filters by
    rows = [
        {
            "run": run.name,
            "scheme": scheme,
            **{key: groups.configured[run.name].get(key) for key in keys},
            "seed": run.seed,
            "status": f"{status}, at chance" if run.summary.get("at_chance") else status,
            "reason": run.reason,
            "test_accuracy": run.summary.get("test_accuracy"),
            "steps": run.summary.get("steps"),
            "seconds": (run.summary.get("seconds") or {}).get("total"),
            "command": command(run),
        }
        for run, scheme, status in zip(groups.members, groups.runs["scheme"], groups.runs["status"], strict=True)
    ]
    counted = f"{len(rows)} run{'' if len(rows) == 1 else 's'}"
    caption = f"{counted}. Seconds: training, evaluating and measuring together."
    return Table("runs", "Every run", caption, columns, rows)


def command(run: Run) -> str:
    """The shortest command that repeats one run, into a study of the same name."""
    return shlex.join(["normbench", "run", *_overrides(run)])


def commands(groups: Groups) -> list[str]:
    """As few `normbench run -m` as repeat exactly these runs: one for a full crossing, more for a ragged study."""
    rows, alone = [], []
    keys: dict[str, None] = {}
    for run in groups.members:
        words = _overrides(run)
        if all("=" in word for word in words):
            rows.append((run, dict(word.partition("=")[::2] for word in words)))
            keys |= dict.fromkeys(rows[-1][1])
        else:  # ~key, which takes an option away
            alone.append(command(run))
    # A run's block has each key with its value, also where that is the default; not keys that only other runs have.
    blocks: list[Block] = [
        {key: (row.get(key, _word(run.values.get(key))),) for key in keys if key in row or key in run.values}
        for run, row in rows
    ]
    joined = min((_join(blocks, way) for way in (list(keys), list(keys)[::-1])), key=len)
    return [_line(block) for block in joined] + alone


def again(runs: Sequence[Run], **axes: Sequence[Any]) -> str:
    """The command that repeats runs with other values: again([a, b], seed=[5, 6]) for both configurations and seeds."""
    return as_command(again_words(runs, **axes))


def as_command(sweeps: Sequence[Sequence[str]]) -> str:
    """Sweeps, each in its words, as one line for a shell."""
    return " && ".join(shlex.join(["normbench", "run", "-m", *words]) for words in sweeps)


def again_words(runs: Sequence[Run], **axes: Sequence[Any]) -> list[list[str]]:
    """The words of the sweeps that repeat runs with other values.

    One sweep where the configurations differ in the value of one key, otherwise one each.
    """
    words = [[word for word in _overrides(run) if word.partition("=")[0] not in axes] for run in runs]
    lines = list(dict.fromkeys(map(tuple, words)))
    if all("=" in word for line in lines for word in line):
        blocks: list[Block] = [{key: (value,) for key, _, value in (w.partition("=") for w in line)} for line in lines]
        joined = _join(blocks, list(dict.fromkeys(key for block in blocks for key in block)))
        lines = [tuple(f"{key}={','.join(values)}" for key, values in block.items()) for block in joined]
    return [[*line, *(f"{key}={_sweep(values)}" for key, values in axes.items())] for line in lines]


def _overrides(run: Run) -> list[str]:
    words, study = run.words, run.config.get("study")
    return words if not study or any(word.startswith("study=") for word in words) else [*words, f"study={study}"]


def _join(blocks: Sequence[Block], keys: Sequence[str]) -> list[Block]:
    """Blocks that differ in one key alone become one, key by key: the same runs, none of them twice."""
    for key in keys:
        groups: dict[Any, Block] = {}
        for block in blocks:
            rest = tuple((name, values) for name, values in block.items() if name != key)
            found = groups.setdefault((key in block, rest), block)
            if found is not block and key in block:
                groups[True, rest] = found | {key: tuple(dict.fromkeys(found[key] + block[key]))}
        blocks = list(groups.values())
    return list(blocks)


def _line(block: Block) -> str:
    flag = ["-m"] if any(len(values) > 1 for values in block.values()) else []
    words = [f"{key}={','.join(_sorted(key, values))}" for key, values in block.items()]
    return shlex.join(["normbench", "run", *flag, *words])


def _sorted(key: str, values: Sequence[str]) -> list[str]:
    """Numbers by size, schemes in the order of the tables, anything else as it came."""
    if key == "norm":
        return order(values)
    try:
        return sorted(values, key=float)
    except ValueError:
        return list(values)


def _word(value: Any) -> str:
    """A value as it is typed on the command line."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value).replace(", ", ",")


def _sweep(values: Sequence[Any]) -> str:
    """5,6,7 or, where it is long and unbroken, range(5,17)."""
    if len(values) > 8 and list(values) == list(range(values[0], values[0] + len(values))):
        return f"range({values[0]},{values[-1] + 1})"
    return ",".join(map(_word, values))
