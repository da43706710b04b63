"""What a reader has to know beside the numbers: what all runs share, and what differs besides the scheme."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from statistics import median
from typing import Any

from normbench.analysis.groups import MAIN, Groups, Setting, is_synthetic, label, show, without
from normbench.runs import Run

SYNTHETIC = "SYNTHETIC DATA (made from random numbers, for trying the bench): says nothing about real images."
MOST = 4  # settings whose updates are said


def constants(groups: Groups) -> str:
    """The main settings that all runs share, in one line: "model=mlp dataset=mnist lr=0.001 ..."."""
    shared = groups.constant
    idle = {"momentum"} if shared.get("optimizer") not in ("momentum", "nesterov") else set()
    idle |= {"decay_norm_parameters"} if not shared.get("weight_decay") else set()
    usual = {"schedule": "constant", "lr_scaling": "none", "accumulate": 1}  # named only where they are not so
    idle |= {key for key, value in usual.items() if shared.get(key) == value}
    idle |= {"epochs"} if {"max_steps", "max_samples"} & set(shared) else set()  # these set the budget instead
    words = [f"{key}={show(shared[key])}" for key in ("norm", *MAIN) if key in shared and key not in idle]
    return " ".join(f"{w} (synthetic)" if groups.synthetic and w.startswith("dataset=") else w for w in words)


def heading(groups: Groups, setting: Setting) -> str:
    """A setting's name, with synthetic data marked where only some are."""
    members = [run for group in groups.settings[setting].values() for run in group.members]
    synthetic = "dataset" in groups.varying and any(map(is_synthetic, members))
    return label(setting) + (" (synthetic data)" if synthetic else "")


def interval_covers(runs: Iterable[Run], images: str = "test set") -> str:
    """What an interval over the seeds of these runs covers, and what it doesn't.

    Args:
        images: that accuracies are measured on.
    """
    draws = [_draws(run) if run.values.get("dataset.draw_seed") is None else set() for run in runs]
    if not all(draws) or not draws:
        return f"new seeds on this {images}, not new images"
    words = " and ".join(sorted(set.union(*draws)))
    return f"new seeds, each with its own {words}, on this {images}, not a new {images}"


def differences(groups: Groups) -> list[str]:
    """What differs between runs that are compared, besides the scheme: sentences; none where nothing does."""
    return [*_updates(groups), *_parameters(groups), *_origins(groups)]


def shared_draws(groups: Groups) -> list[str]:
    """What intervals over seeds assume where all seeds were trained on one draw of images or of wrong labels."""
    if not any(_draws(run) for run in groups.members if run.values.get("dataset.draw_seed") is not None):
        return []
    return [
        "All seeds share one draw of the training images or of their wrong labels (dataset.draw_seed): intervals and p "
        "values are of new seeds on this draw, not of new draws."
    ]


def updates_in_time(groups: Groups) -> list[str]:
    """How many updates each scheme made where `max_seconds` ended the runs: a sentence per setting, the lr aside."""
    found: dict[tuple[float, Setting], dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for group in groups.groups:
        for run in group.having("complete"):
            if (seconds := run.values.get("max_seconds")) is not None:
                rest = without(group.setting, "lr", "max_seconds")
                found[float(seconds), rest][group.scheme].append(int(run.summary["steps"]))
    said = [
        f"In {seconds:g} seconds of training{_of(rest)}: "
        + ", ".join(f"{scheme} {median(steps):,.0f} updates" for scheme, steps in by_scheme.items())
        + " (medians, on the machine at hand)."
        for (seconds, rest), by_scheme in found.items()
    ]
    return said if len(said) <= MOST else [*said[:MOST], "The table of runs has the updates of the other settings."]


def _draws(run: Run) -> set[str]:
    """What of a run's training data is drawn at random."""
    usual = {"dataset.train_fraction": (1, "training subset"), "dataset.label_noise": (0, "wrong labels")}
    return {word for key, (none, word) in usual.items() if run.values.get(key, none) != none}


def _updates(groups: Groups) -> list[str]:
    """Batch sizes are compared at equal numbers of images: then the numbers of updates are not equal."""
    if "batch_size" not in groups.varying:
        return []
    found: dict[Setting, dict[int, set[int]]] = defaultdict(lambda: defaultdict(set))
    for run, status in zip(groups.members, groups.runs["status"], strict=True):
        if status == "complete" and "steps" in run.summary:
            values = groups.configured[run.name]
            rest = tuple((k, values.get(k)) for k in groups.varying if k not in ("batch_size", "lr"))
            found[rest][values["batch_size"]].add(int(run.summary["steps"]))
    words = []
    for rest, steps in found.items():
        if len(set.union(*steps.values())) > 1 and all(len(of_size) == 1 for of_size in steps.values()):
            counts = "; ".join(f"{size}: {max(of_size):,}" for size, of_size in sorted(steps.items()))
            words.append(
                f"Updates by batch size{_of(rest)}: {counts}. Fewer updates are part of what a large batch does."
            )
    return words


def _parameters(groups: Groups) -> list[str]:
    found: dict[Setting, dict[str, int]] = defaultdict(dict)
    for group in groups.groups:
        network = tuple(item for item in group.setting if item[0].partition(".")[0] in ("model", "dataset"))
        if (count := parameters(group.members)) is not None:
            found[network][group.scheme] = count
    return [
        f"Parameters differ{_of(network)}: {'; '.join(f'{scheme} {count:,}' for scheme, count in counts.items())}."
        for network, counts in found.items()
        if len(set(counts.values())) > 1
    ]


def parameters(members: Iterable[Any]) -> int | None:
    """Of the network: as the first of its runs that is over says."""
    return next((int(n) for run in members if (n := run.summary.get("parameters")) is not None), None)


def _origins(groups: Groups) -> list[str]:
    records = [run.record for run in groups.members]
    words = []
    for key in ("normbench", "torch"):
        versions = {str((record.get("versions") or {}).get(key)) for record in records}
        if len(versions) > 1:
            words.append(f"The runs were made by different versions of {key}: {', '.join(sorted(versions))}.")
    commits = {str(record.get("git_commit") or "unknown") for record in records}
    if len(commits) > 1:  # twelve letters are enough, and the sign that the code was changed since
        short = sorted(commit[:12] + "+" * commit.endswith("+") for commit in commits)
        words.append(f"The runs were made by different commits: {', '.join(short)}.")
    machines = {str((record.get("machine") or {}).get("cpu")) for record in records}
    if len(machines) > 1:
        words.append(f"The runs were made on different machines ({', '.join(sorted(machines))}): mind the seconds.")
    return words


def _of(setting: Setting) -> str:
    words = label(setting, "")
    return f" ({words})" if words else ""
