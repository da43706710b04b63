"""`normbench plan`: the cells of a sweep, with what is to be done for each, and for how long."""

from __future__ import annotations

import json
from collections import Counter

from rich.markup import escape

from normbench.commands.console import out, plain_table, say
from normbench.commands.live import duration, heading, shared, without
from normbench.sweep.plan import DONE, UNSUPPORTED, Plan
from normbench.sweep.runner import how_many

LISTED = 60  # cells; of more, the first and a count


def print_plan(plan: Plan) -> None:
    todo, jobs = plan.todo, how_many(plan.items[0].cell)
    common = shared(plan)
    say(heading(plan))
    table = plain_table()
    for name in ("status", "run", "steps", "samples", "seconds left"):
        table.add_column(name, justify="left" if name in ("status", "run") else "right")
    order = [*todo, *plan.having(UNSUPPORTED, DONE)]
    for item in order[:LISTED]:
        seconds = "?" if item.seconds is None else f"{item.seconds:.1f}"
        status = f"{item.status} at {item.behind:,}" if item.behind else item.status
        rest = ("", "", "")
        if item.steps:
            rest = (f"{item.steps:,}", f"{item.samples:,}", "" if item.status == DONE else seconds)
        table.add_row(status, escape(" ".join(without(common, item.cell))), *rest)
    out.print(table)
    if len(order) > LISTED:
        say(f"... and {len(order) - LISTED} more (--json lists them all)")
    for reason, count in Counter(item.reason for item in plan.having(UNSUPPORTED)).items():
        say(f"{count} unsupported: {reason}")
    counts = Counter(item.status for item in plan.items)
    say(", ".join(f"{count} {status}" for status, count in counts.items()))
    if not todo:
        return
    left = plan.seconds_left(jobs)
    unknown = sum(item.seconds is None for item in todo)
    time = f"about {duration(left)}" if left is not None else f"unknown for {unknown} of {len(todo)} runs"
    say(f"time left, {jobs} side by side: {time}")
    say(f"disk: at most {sum(item.disk for item in todo) / 1e6:,.0f} MB")


def print_json(plan: Plan) -> None:
    jobs = how_many(plan.items[0].cell)
    todo = plan.todo
    cells = [
        {
            "name": item.cell.name, "words": item.cell.words, "status": item.status, "reason": item.reason,
            "steps": item.steps, "samples": item.samples, "steps_behind": item.behind, "seconds": item.seconds,
            "disk_bytes": item.disk,
        }
        for item in plan.items
    ]  # fmt: skip
    summary = {
        "study": str(plan.items[0].cell.folder.parent), "jobs": jobs, "seconds_left": plan.seconds_left(jobs),
        "disk_bytes": sum(item.disk for item in todo), "order": [item.cell.name for item in todo], "cells": cells,
    }  # fmt: skip
    print(json.dumps(summary, indent=1))
