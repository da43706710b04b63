"""`normbench run`: train one network, or with -m a sweep."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING, Any

from normbench.commands import console
from normbench.commands.list import options_help
from normbench.config.run_config import RunConfig, command, quoted
from normbench.runs import Run, is_finished, load, make_folder

if TYPE_CHECKING:
    from normbench.config.compose import Expanded
    from normbench.sweep.plan import Plan
    from normbench.sweep.runner import Outcome

DESCRIPTION = """\
Train one network and write its folder under results/; with -m, one for every combination of the comma-separated \
values, in a study that is named by what varies where study= doesn't name it. Repeating a command continues it: \
finished runs are skipped, interrupted ones resume."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "normbench run [-m] [KEY=VALUE ...]"
    parser.description = DESCRIPTION
    parser.epilog = options_help()


def run(options: argparse.Namespace) -> int:
    return run_words(options.words)


def run_words(words: list[str]) -> int:
    """`normbench run WORDS`. Returns the exit code: 0, or 1 if a run of a sweep failed.

    Raises: UserError, Stopped, or whatever went wrong in a single run.
    """
    from normbench.experiment import expand

    found = expand(words, launchers=True)
    if found.printed is not None:
        print(found.printed, end="")
        return 0
    if not found.is_sweep:
        return _single(found.run_configs[0])
    if found.launcher is None or found.launcher.arguments is None:
        return _sweep(found)
    from normbench.sweep.launcher import run_sweeper

    others = run_sweeper(found.launcher)
    return _report(others[0], 0 if all(is_finished(one.folder, one.identity) for one in others) else 1) if others else 0


def _single(run_config: RunConfig) -> int:
    from normbench.experiment import prepare_unfinished, train
    from normbench.sweep.runner import requests_to_stop

    run = Run(run_config.folder)
    ready = prepare_unfinished(run_config)  # before anything is said: bad input gets its error and nothing else
    if ready is None:
        console.say("This run was finished before; nothing was trained. These are its results.")
    else:
        make_folder(run_config.folder)
        _print_settings(run_config)
        try:
            with console.run_progress() as on_progress, requests_to_stop() as signals:
                run = train(ready, on_progress, lambda: bool(signals))
        except OSError as error:  # such as a full disk
            console.complain(f"the run stopped: {error}. Repeat the command to continue it.")
            return 1
    _print_results(run)
    _print_neighbours(run_config)
    console.say(f"\nfolder: {console.shortened(run.folder)}")
    return 0


def _sweep(sweep: Expanded) -> int:
    """Run a sweep here, or through one of Hydra's launchers: its grids, and what it adds to them."""
    from normbench.sweep.plan import shard
    from normbench.sweep.rounds import run_sweep

    def show(plan: Plan, why: str) -> console.SweepView:
        console.say(console.heading(plan) + (f" ({why})" if why else ""))
        console.say_alone(plan)
        return console.SweepView(plan)

    part = shard(sweep.run_configs, sweep.run_configs[0].config["shard"])
    try:
        total = run_sweep(sweep, part, show, console.agree)
    except KeyboardInterrupt:
        _report(part[0], 130)
        raise
    _print_outcome(total)
    if sweep.further and len(part) < len(sweep.run_configs):
        console.say("A shard runs its part of the grid alone; for further learning rates and fresh seeds, repeat the "
                    "command without shard when all parts are done.")  # fmt: skip
    elif sweep.further and total.failed:
        console.say("Further learning rates and fresh seeds follow when these runs have results: repeat the command.")
    return _report(part[0], 1 if total.failed else 0)


def _report(run_config: RunConfig, code: int) -> int:
    """Build the report of the run's study, if there is a run to report on. Returns `code`."""
    from normbench.commands.report import build

    study = run_config.folder.parent
    if any(study.glob("*/summary.json")):
        try:
            build(study)
        except Exception as error:  # such as a full disk: the runs are what matters
            if os.environ.get("HYDRA_FULL_ERROR") == "1":
                raise
            why = " ".join(f"{type(error).__name__}: {error}".split())
            again = f"normbench report {console.shortened(study)}"
            console.complain(f"the runs are over, but there is no report: {why}. Try: {again}")
            return max(code, 1)
    return code


def _print_outcome(outcome: Outcome) -> None:
    are = "is" if outcome.unsupported == 1 else "are"
    counts = [
        (outcome.by_others, "ran in another process"),
        (outcome.skipped, "were finished before"),
        (outcome.unsupported, f"{are} unsupported"),
        (len(outcome.failed), "failed"),
    ]
    parts = [f"{outcome.ran} ran", *(f"{count} {text}" for count, text in counts if count)]
    console.say(f"{outcome.total} run{'s' * (outcome.total != 1)}: {', '.join(parts)}")
    for name, error in outcome.failed.items():
        console.say(f"failed: {name}: {error}")


def _print_settings(run_config: RunConfig) -> None:
    """The values that everything else is read against."""
    config, model = run_config.config, run_config.config["model"]
    console.say(console.title(run_config.choices))
    budgets = ("max_steps", "max_samples", "max_seconds")
    budget = ", ".join(f"{key}={config[key]:,}" for key in budgets if config[key] is not None)
    shown = [f"{key}={config[key]}" for key in ("optimizer", "lr", "batch_size")]
    shown += [budget or f"epochs={config['epochs']:g}", f"weight_decay={config['weight_decay']:g}"]
    usual = {"schedule": "constant", "lr_scaling": "none", "accumulate": 1, "clip_norm": None}
    shown += [f"{key}={config[key]}" for key, value in usual.items() if config[key] != value]
    shown += [f"model.{key}={model[key]}" for key in ("dropout", "init") if key in model]
    shown += [f"{key}={config[key]}" for key in ("seed", "device", "threads")]
    console.say(", ".join(shown))


def results(run: Run) -> list[tuple[str, str]]:
    """What came out of a run that is complete or diverged: what it is, and the number with its unit."""
    summary, seconds = run.summary, run.summary["seconds"]
    spent = ", ".join(f"{what} {seconds[what]:.1f} s" for what in ("training", "evaluating", "measuring"))
    if summary["status"] == "diverged":
        rows = [("diverged", f"the loss was no longer finite at step {summary['diverged_step']:,}")]
    else:
        chance = {
            True: "  (at chance: no better than naming the commonest class)",
            None: "  (too few test images to tell from chance)",
        }.get(summary["at_chance"], "")
        data = summary["dataset"]
        where = f" on {data['test']:,} images" + (" of synthetic data" if data["synthetic"] else "")
        rows = [("test accuracy", f"{summary['test_accuracy']:.2%}{where}{chance}")]
        curve = list(run.table("epochs").get("validation_accuracy", ()))
        sparks = f"  {console.sparkline(curve)}  while training" if len(curve) > 2 else ""
        rows += [("validation accuracy", f"{summary['validation_accuracy']:.2%}{sparks}")]
    rows += [("time", f"{seconds['total']:.1f} s ({spent})")]
    return [*rows, ("steps, samples", f"{summary['steps']:,}, {summary['samples']:,}")]


def _print_results(run: Run) -> None:
    for name, text in results(run):
        console.say(f"{name:<20} {text}")
    if remark := run.summary.get("remark"):
        console.say(f"note: {remark}")
    if shift := run.summary.get("measured", {}).get("shift"):
        about = "how far the input of each block moved from the first step to the last"
        console.say(f"\n{about}, in standard deviations of a unit")
        values = [(layer, "-" if value is None else f"{value:.2f}") for layer, value in shift.items()]
        console.print_table(("block", "shift"), values)


def _print_neighbours(run_config: RunConfig) -> None:
    """Finished runs that differ from this one in the scheme only, or the command that would make them."""
    own, found = _without_scheme(run_config.identity), []
    for run in load(run_config.folder.parent):
        try:
            if run.folder == run_config.folder or not run.summary or _without_scheme(run.record["identity"]) != own:
                continue
            scheme = " ".join(word for word in run.words if word.startswith("norm"))
        except (OSError, ValueError, KeyError, TypeError):  # a folder that can't be read
            continue
        accuracy = run.summary.get("test_accuracy")
        found.append(f"{scheme}: {run.summary['status'] if accuracy is None else f'{accuracy:.2%}'}")
    if found:
        found.sort(key=lambda text: (not text.startswith("norm=none:"), text))
        console.say(f"\n{'with another scheme':<20} {', '.join(found)}")
        return
    rest = [word for word in run_config.words if not word.startswith("norm")]
    others = ",".join(name for name in ("none", "batch", "layer") if name != run_config.choices["norm"])
    usual = {"results_dir": "results", "data_dir": None, "save_model": True}
    config = run_config.config
    rest += [f"study={quoted(config['study'])}"]  # a sweep without it has a study of its own
    rest += [f"{key}={quoted(config[key])}" for key, value in usual.items() if config[key] != value]
    console.say(f"\nto compare: {command('run', '-m', *run_config.flags, f'norm={others}', *rest)}")


def _without_scheme(identity: dict[str, Any]) -> dict[str, Any]:
    choices = {k: v for k, v in identity["choices"].items() if k != "norm"}
    values = {k: v for k, v in identity["values"].items() if not k.startswith("norm.")}
    return {**identity, "choices": choices, "values": values}
