"""`normbench plan`: the runs of a sweep, with what is to be done for each, and for how long."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from typing import TYPE_CHECKING

from normbench.commands import console
from normbench.commands.list import options_help

if TYPE_CHECKING:
    from normbench.sweep.plan import Plan

LISTED = 60  # runs; of more, the first and a count


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "normbench plan [KEY=VALUE ...] [--json]"
    parser.add_argument("--json", action="store_true", help="for programs: every run, in the order of running")
    parser.epilog = options_help()


def run(options: argparse.Namespace) -> int:
    """What `normbench run -m WORDS` would do. Writes nothing. Returns 0. Raises ConfigError."""
    from normbench.experiment import expand
    from normbench.sweep.plan import make_plan, shard
    from normbench.sweep.rounds import rounds

    sweep = expand(["-m", *options.words], launchers=True)
    if sweep.run_configs:  # none after --cfg
        known = list(rounds(sweep, shard(sweep.run_configs, sweep.run_configs[0].config["shard"])))
        plan = make_plan([run_config for one in known for run_config in one.run_configs])
        (_print_json if options.json else _print)(plan, known[-1].is_last or not plan.todo)
    return 0


def _print(plan: Plan, is_all: bool) -> None:
    console.say(("" if is_all else "at least ") + console.heading(plan))
    if not is_all:
        console.say("Further learning rates and fresh seeds may follow, as the results will have it.")
    todo, rows = plan.todo, []
    order = [*todo, *plan.having("done")]
    for item in order[:LISTED]:
        status = f"{item.status} at {item.steps_behind:,}" if item.steps_behind else item.status
        seconds = "" if item.status == "done" else "?" if item.seconds is None else f"{item.seconds:.1f}"
        costs = (f"{item.steps:,}", f"{item.samples:,}", seconds) if item.steps else ("", "", "")
        rows.append((status, plan.own_words(item.run_config), *costs))
    columns = ("status", "run", "steps", "samples", "seconds left")
    console.print_table(columns, rows, right=columns[2:])
    if len(order) > LISTED:
        console.say(f"... and {len(order) - LISTED} more (--json lists them all)")
    for reason, run_configs in plan.unsupported.items():
        console.say(console.unsupported(plan, run_configs, reason))
    for item in [item for item in plan.having("again") if item.reason][:LISTED]:
        console.say(f"damaged, will be done again: {item.run_config.name}: {item.reason}")
    if sizes := [len(task) for task in plan.tasks if task[0].stack]:
        each = sizes[0] if len({*sizes}) == 1 else f"{min(sizes)} to {max(sizes)}"
        console.say(f"in stacks, {each} run{'s' * (max(sizes) > 1)} at once: {sum(sizes)} runs, {len(sizes)} stacks")
    console.say_alone(plan)
    counts = Counter(item.status for item in plan.items)
    console.say(", ".join(f"{count} {status}" for status, count in counts.items()))
    if todo:
        left, unknown = plan.seconds_left(), sum(item.seconds is None for item in todo)
        time = f"unknown for {unknown} of {len(todo)} runs" if left is None else f"about {console.duration(left)}"
        console.say(f"time left, {plan.jobs} side by side: {time}")


def _print_json(plan: Plan, is_all: bool) -> None:
    cells = [
        {
            "name": item.run_config.name, "words": item.run_config.words, "status": item.status, "reason": item.reason,
            "steps": item.steps, "samples": item.samples, "steps_behind": item.steps_behind, "seconds": item.seconds,
        }
        for item in plan.items
    ]  # fmt: skip
    summary = {
        "study": str(plan.items[0].run_config.folder.parent), "jobs": plan.jobs, "seconds_left": plan.seconds_left(),
        "is_all": is_all,
        "order": [item.run_config.name for item in plan.todo],
        "tasks": [[item.run_config.name for item in task] for task in plan.tasks],
        "cells": cells,
    }  # fmt: skip
    print(json.dumps(summary, indent=1))
