"""Which runs a figure shows, and their tables as one frame: schemes at their own best lr, where they differ most."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from normbench.analysis.best_lr import choices
from normbench.analysis.groups import Groups, label, order
from normbench.analysis.measured import rows
from normbench.analysis.shortlist import may_be_best
from normbench.files import open_file
from normbench.plots.palette import Style, palette
from normbench.runs import Run

if TYPE_CHECKING:
    import pandas as pd

    from normbench.plots.drawing import Canvas

SCHEMES, PANELS = 8, 4  # that a figure shows at most
OVER = ("complete", "diverged")
# what says how long to train
BUDGETS = {"max_seconds": "seconds of training", "max_steps": "updates", "max_samples": "images", "epochs": "epochs"}


@dataclass(frozen=True, eq=False)
class View:
    """A study as figures see it.

    Frames of runs have a row per run: those of `Groups.runs`, and `setting`: what was varied besides scheme, lr and
    what the figure itself varies, in words.

    Args:
        against: the scheme that others are compared with, and the margin of equivalence in points.
        study: where another one is drawn beside it (`load_together`), the one that the figures are of.
    """

    groups: Groups
    against: tuple[str, float] = ("none", 0.5)
    study: str = ""

    @cached_property
    def members(self) -> dict[str, Run]:
        return {run.name: run for run in self.groups.members}

    @cached_property
    def every(self) -> pd.DataFrame:
        """All runs but copies of one, with what was varied as it was typed: null is a value like others."""
        import pandas as pd

        runs = self.groups.runs.loc[[name for group in self.groups.groups for name in group.runs.index]]
        typed = {
            key: pd.Series([self.groups.configured[name].get(key) for name in runs.index], runs.index, dtype=object)
            for key in self.groups.varying
        }
        return runs.assign(**typed)

    @cached_property
    def best(self) -> pd.DataFrame:
        """The runs of each scheme at its own best lr, in each of the other settings (`Choice`)."""
        shown = [choice.shown for by_scheme in choices(self.groups).values() for choice in by_scheme.values()]
        return self.every.loc[[name for group in shown for name in group.runs.index]]

    @cached_property
    def colored(self) -> list[str]:
        """The schemes in colour: all where there are few, otherwise the reference and those that can be the best.

        Of these (`may_be_best`) as many as have room, first those that can in most settings, then by accuracy.
        """
        if len(self.groups.schemes) <= SCHEMES:
            return list(self.groups.schemes)
        able = []
        for by_scheme in choices(self.groups).values():
            known = {scheme: choice for scheme, choice in by_scheme.items() if choice.accuracies}
            confirmed = {scheme: choice for scheme, choice in known.items() if choice.confirmed}
            able += [known[scheme] for scheme in may_be_best(confirmed or known)]
        settings = Counter(choice.scheme for choice in able)
        able.sort(key=lambda choice: (settings[choice.scheme], choice.mean or 0), reverse=True)
        return list(dict.fromkeys([self.against[0], *(choice.scheme for choice in able)]))[:SCHEMES]

    @cached_property
    def styles(self) -> dict[str, Style]:
        """How each scheme looks in every figure."""
        return palette(self.groups.schemes, self.colored)

    def few(self, schemes: Iterable[str]) -> list[str]:
        """In order, as many as a figure has room for: those in colour first."""
        return order(sorted(order(schemes), key=lambda scheme: scheme not in self.colored)[:SCHEMES])

    def panels(self, runs: pd.DataFrame, *over: str, most: int = PANELS) -> tuple[pd.DataFrame, int]:
        """`runs` with the column `setting`, of the first `most` settings of `ranked`; how many there are.

        Args:
            over: what the figure itself varies.
        """
        import pandas as pd

        ranked = self.ranked(runs, *over)
        kept = pd.concat([runs.assign(setting="").head(0), *ranked[:most]])
        return kept.loc[[name for name in runs.index if name in kept.index]], len(ranked)

    def ranked(self, runs: pd.DataFrame, *over: str) -> list[pd.DataFrame]:
        """`runs` with the column `setting`, a frame for each; first the one that the study is about.

        It has the most schemes; of those, it lies at the ends of most of what was varied in numbers, such as at the
        smallest batch, and there the best and the worst scheme are furthest apart, then the mean accuracy is lower.
        It is one of the study itself, whatever is drawn beside it.
        """
        keys = [key for key in self.groups.varying if key not in ("lr", *over)]
        words = [label(tuple(zip(keys, values, strict=True)), "") for values in runs[keys].to_numpy(dtype=object)]
        settings = [part for _, part in runs.assign(setting=words).groupby("setting", sort=False)]
        most = max((part["scheme"].nunique() for part in settings), default=0)
        full = [part for part in settings if part["scheme"].nunique() == most]
        found = {key: [part[key].iloc[0] for part in full] for key in keys}
        ends_of = {key: (min(some), max(some)) for key, some in found.items()
                   if some and all(isinstance(value, int | float) for value in some)}  # fmt: skip

        def rank(part: pd.DataFrame) -> tuple[int, int, float, float]:
            ends = sum(part[key].iloc[0] in of for key, of in ends_of.items())
            finished = part[part["validation_accuracy"].notna()]
            means = finished.groupby(["scheme", *over], dropna=False)["validation_accuracy"].mean()
            spread, mean = (float(np.ptp(means)), float(means.mean())) if len(means) else (0.0, 0.0)
            return part["scheme"].nunique(), ends, round(spread, 6), -mean

        settings.sort(key=rank, reverse=True)
        first = next((part for part in settings if not self.study or part["study"].iloc[0] == self.study), None)
        return sorted(settings, key=lambda part: part is not first)

    def measured(
        self, instrument: str, *numbers: str, words: Sequence[str] = (), over: Sequence[str] = (), statuses: Any = None
    ) -> Shown | None:
        """The runs with a table of `instrument`, in the first setting of `ranked`.

        Args:
            numbers: columns that are read as finite numbers or NaN.
            words: other columns that the table needs.
            over: settings that the figure itself shows.
            statuses: of the runs; complete alone, unless it says otherwise.
        """
        import pandas as pd

        statuses = statuses or ("complete",)
        runs = self.best[self.best["status"].isin(statuses)]
        needed = (*words, *numbers)
        runs = runs[[has_columns(self.members[name], instrument, needed) for name in runs.index]]
        if runs.empty:
            return None
        runs, settings = self.panels(runs, *over, most=1)
        total = runs["scheme"].nunique()
        runs = runs[runs["scheme"].isin(self.few(runs["scheme"]))]
        tables = [
            rows(self.members[name], instrument, *numbers).assign(run=name, scheme=scheme, **{k: row[k] for k in over})
            for name, scheme, (_, row) in zip(runs.index, runs["scheme"], runs.iterrows(), strict=True)
        ]
        table = pd.concat([t for t in tables if set(words) <= set(t.columns)] or tables[:1])
        said = f"Of {settings} settings this is an extreme one, where schemes differ most." if settings > 1 else ""
        if total > SCHEMES:
            said += f" Only {SCHEMES} of {total} schemes are drawn."
        return Shown(runs, table, said.strip()) if len(table) else None

    def line(self, runs: pd.DataFrame, *axes: str) -> str:
        """Below a title: model, data, training, setting and n of these runs, without what the axes show."""
        words = []
        budget = next((key for key in BUDGETS if key in runs and runs[key].notna().any()), "")
        main = ("model", "dataset", budget, "optimizer", "lr", "batch_size")
        for key in dict.fromkeys((*main, *(key for key in self.groups.varying if key not in BUDGETS))):
            values = runs[key].map(repr).unique() if key in runs and key not in axes else []
            if len(values) == 1 and (value := runs[key].iloc[0]) is not None:
                amount = f"{value:,.12g} {BUDGETS[key][: -1 if value == 1 else None]}" if key == budget else ""
                words.append(amount or label(((key, value),)))
            elif len(values) > 1 and key == "lr":
                words.append("each scheme at its own best lr")
        seeds = runs.groupby(["scheme", *self.groups.varying], dropna=False).size()
        n = f"n = {seeds.min()}" if seeds.min() == seeds.max() else f"n = {seeds.min()} to {seeds.max()}"
        return f"{', '.join(words)}; {n} {'seed' if seeds.max() == 1 else 'seeds'}"


@dataclass(frozen=True, eq=False)
class Drawn:
    """A figure before it is saved; `line` stands below its title: model, data, setting, n."""

    canvas: Canvas
    line: str
    caption: str


@dataclass(frozen=True, eq=False)
class Shown:
    """What a figure of an instrument shows: `runs`, their rows of its `table` with `run` and `scheme`, a sentence."""

    runs: pd.DataFrame
    table: pd.DataFrame
    words: str


def one_seed(runs: pd.DataFrame) -> pd.DataFrame:
    """A run of each scheme, of the seed that most schemes share; the first of its own where it lacks that one."""
    common = runs.groupby("seed")["scheme"].nunique().idxmax()
    first = runs.assign(other=runs["seed"] != common).sort_values("other", kind="stable")
    return first.groupby("scheme", sort=False).head(1)


def has_columns(run: Run, instrument: str, columns: Iterable[str]) -> bool:
    """Whether the table of a run has rows and these columns, by its first bytes: most are not needed and long."""
    try:
        with open_file(run.folder / "measured" / f"{instrument}.csv") as file:
            head, *rest = file.read(8192).split(b"\n")
    except OSError:
        return False
    return len(rest) > 1 and set(columns) <= set(head.decode(errors="replace").split(","))
