"""A sweep that goes on by itself: to learning rates beyond the edge of its grid, then to fresh seeds.

What the next round has is a function of the grid and of the finished runs of the sweep alone: a sweep that is resumed,
and one beside it in another process, go on to the same runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from normbench.config.compose import Expanded, Further
from normbench.config.run_config import RunConfig
from normbench.errors import ConfigError
from normbench.runs import EVERYTHING, SIZES, Run, Study, is_finished, make_folder
from normbench.sweep.plan import Plan, make_plan
from normbench.sweep.pool import start_server
from normbench.sweep.runner import Outcome, View, run_plan

if TYPE_CHECKING:
    from normbench.analysis.best_lr import Choice

FURTHER_RATES = 4  # at most, on either side of the grid


@dataclass(frozen=True)
class Round:
    """Some runs of a sweep.

    Args:
        why: they were added; "" for the grid.
        is_last: no further round can follow.
    """

    run_configs: list[RunConfig]
    why: str = ""
    is_last: bool = True


def run_sweep(
    sweep: Expanded,
    part: Sequence[RunConfig],
    show: Callable[[Plan, str], AbstractContextManager[View]],
    agree: Callable[[Plan], bool] = lambda plan: False,
) -> Outcome:
    """Run a sweep round by round, here or through one of Hydra's launchers.

    Args:
        part: its runs, or those of a shard.
        show: who shows a round, from its plan and why it was added; entered while it runs.
        agree: asked before more than `max_runs` runs of the grid are trained; further rounds are not asked about.

    Raises: as `run_plan`; ConfigError where nobody agrees.
    """
    from normbench.sweep.launcher import run_through_launcher

    if sweep.launcher is None and not all((one.folder / "summary.json").exists() for one in part):
        start_server()  # imports torch meanwhile
    total = Outcome()
    for one in rounds(sweep, part):
        plan = make_plan(one.run_configs, depth=EVERYTHING)
        count, most = len(plan.todo), part[0].config["max_runs"]
        if not one.why and most is not None and count > most and not agree(plan):
            raise ConfigError(f"a sweep of more than max_runs={most:,} runs: {count:,} are to be trained. "
                              f"To train them, add max_runs={count}.")  # fmt: skip
        make_folder(part[0].folder.parent)
        with show(plan, one.why) as view:
            launcher = sweep.launcher
            total += run_plan(plan, view) if launcher is None else run_through_launcher(plan, view, launcher)
    return total


def rounds(sweep: Expanded, grid: Sequence[RunConfig]) -> Iterator[Round]:
    """The grid; while the best lr of a scheme lies at the edge, the next lr there; then the fresh seeds.

    Each round follows from the results of those before. So run one before asking for the next: where a run has no
    result, there is none.

    Args:
        grid: the runs of the sweep, or of a shard: then there is nothing to choose from, and no further round.
    """
    further = sweep.further
    if further is None or len(grid) < len(sweep.run_configs):
        yield Round(list(grid))
        return
    yield Round(list(grid), is_last=False)
    searched = list(grid)
    while _are_over(searched):
        found = _choices(searched)
        added = further.compose(_beyond_the_edge(further, grid, found)) if further.extends else []
        if added:
            searched += added
            yield Round(added, "the best lr lies at the edge of those tried", is_last=False)
            continue
        if further.confirm and (added := further.compose(_to_confirm(further, found))):
            yield Round(added, "fresh seeds for the schemes that may be the best")
        return


def _are_over(run_configs: Iterable[RunConfig]) -> bool:
    """By the sizes of their files: whoever runs a round has looked at these more closely."""
    return all(is_finished(one.folder, one.identity, SIZES) for one in run_configs)


def _choices(run_configs: Sequence[RunConfig]) -> list[Mapping[str, Choice]]:
    """The best lr of each scheme, a mapping per setting; none where a run can't be read: then nothing follows."""
    from normbench.analysis.best_lr import choices
    from normbench.analysis.groups import read

    study = Study(run_configs[0].folder.parent, tuple(Run(one.folder) for one in run_configs))
    return [] if study.unreadable else list(choices(read(study)).values())


def _beyond_the_edge(
    further: Further, grid: Sequence[RunConfig], found: Sequence[Mapping[str, Choice]]
) -> list[list[str]]:
    """For each scheme whose best lr lies at the edge of those tried, the words of its runs with the lr beyond it."""
    first, words = {one.folder for one in grid}, []
    for by_scheme in found:
        for choice in by_scheme.values():
            given = [lr for lr, group in choice.groups.items() if any(run.folder in first for run in group.members)]
            if (beyond := choice.beyond) is None or not given:
                continue
            below = beyond < choice.grid[0]
            added = [lr for lr in choice.grid if (lr < min(given) if below else lr > max(given))]
            if len(added) < FURTHER_RATES:
                words += [_replaced(further.words[run.folder], f"lr={beyond:g}") for run in choice.shown.members]
    return words


def _to_confirm(further: Further, found: Sequence[Mapping[str, Choice]]) -> list[list[str]]:
    """For each scheme that may be the best, and for the reference, the words of its best run with each fresh seed."""
    from normbench.analysis.best_lr import candidates

    words = []
    for by_scheme in found:
        able = candidates(by_scheme)
        reference = "none" if "none" in by_scheme else next(iter(by_scheme))
        for scheme, choice in by_scheme.items():
            if scheme in able or (scheme == reference and choice.lr is not None):
                run = choice.shown.members[0]
                words += [_replaced(further.words[run.folder], seed) for seed in further.confirm]
    return words


def _replaced(words: Sequence[str], word: str) -> list[str]:
    key = word.partition("=")[0]
    return [*(one for one in words if one.partition("=")[0] != key), word]
