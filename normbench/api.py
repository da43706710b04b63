"""normbench for users of Python: run, sweep, look at what came out, explain. What a command does, as functions.

Options are those of the command line, by name: `batch_size=4`. An option with a dot in its name is given in a
dictionary: as the first argument, `run({"norm.eps": 1e-3}, norm="batch")`, as the value of its group,
`run(model={"dropout": 0.1})`, or after two asterisks. A value is a number, text, True, False, None, a path, or a list,
tuple or array of these. Expressions and flags are given as words: `run("norm=mine --config-dir=my_configs")`.

A mistake in what was asked for raises `normbench.UserError`. The caller's random numbers, threads, and settings of
torch, Hydra and matplotlib are left as they were; of several threads that call these functions, one trains at a time.
A terminal and a notebook show progress bars; otherwise nothing is printed.

In the examples `tiny` is {"dataset": "synthetic", "instruments": "quick", "max_steps": 5}.
"""

from __future__ import annotations

import logging
import os
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from normbench import runs
from normbench.commands import console
from normbench.config.run_config import RunConfig, quoted
from normbench.errors import ConfigError, Stopped, UserError

if TYPE_CHECKING:
    import pandas as pd

    from normbench.explain.place import Step
    from normbench.plots.drawing import Canvas
    from normbench.plots.view import View
    from normbench.training.callbacks import Progress

__all__ = ["Explanation", "Page", "Run", "Study", "explain", "load", "run", "sweep"]
Words = str | Iterable[str] | Mapping[str, Any]
_log = logging.getLogger(__name__)


def run(words: Words = "", /, *, on_progress: Callable[[Progress], None] | None = None, **options: Any) -> Run:
    """Train one configuration, continue it, or find it finished: `normbench run`.

    >>> run(norm="batch", batch_size=4, **tiny).status
    'complete'
    >>> run("norm=batch batch_size=4 dataset=synthetic instruments=quick max_steps=5")  # the same, found finished
    <Run norm=batch dataset=synthetic instruments=quick batch_size=4 max_steps=5: complete, test accuracy ...%>

    Args:
        words: options as on the command line, in one string or a list; or a dictionary of options.
        on_progress: called with a `Progress` whenever the loss has been read, instead of a progress bar.

    Raises: UserError, of which ConfigError and Unsupported say that nothing was written; KeyboardInterrupt, after a
        checkpoint was written; or whatever went wrong in training.
    """
    from normbench.experiment import compose, prepare_unfinished, train
    from normbench.sweep.runner import requests_to_stop
    from normbench.training.device import own_state

    with own_state(), requests_to_stop() as signals:
        run_config = compose(_typed(words, options))
        if (ready := prepare_unfinished(run_config)) is None:
            return Run(run_config.folder)
        with console.run_progress(lines=False) as show:
            try:
                return Run(train(ready, on_progress or show, lambda: bool(signals)).folder)
            except Stopped:
                raise KeyboardInterrupt from None


def sweep(words: Words = "", /, **options: Any) -> Study:
    """Train every combination of values, side by side: `normbench run -m`. Repeating the call continues the sweep and
    skips finished runs. Where a run fails, a warning is logged, and the others go on.

    >>> study = sweep(norm=["none", "batch"], seed=range(2), **tiny)
    >>> study
    results/norm-synthetic-instruments_quick-max_steps_5: 4 runs: 2 schemes, 1 setting, 2 seeds. 4 complete.
    norm: none, batch; seed: 0, 1
    test accuracy in %, mean and 95% interval, n = 2, synthetic data
    ...
    >>> len(study), [run.seed for run in study]
    (4, [0, 1, 0, 1])

    Lists, tuples, ranges and arrays are swept over. Where the value of an option is a list, give a list of lists, even
    for a single value: `sweep({"model.hidden": [[100, 100]]})`.

    Args:
        words: as for `run`; several values are written `norm=none,batch`.

    Returns: the whole study, `results/<study>`, including runs of earlier sweeps. Without the option `study` it is
        named by the options that vary, then by those that differ from their defaults.
    """
    from normbench.experiment import expand
    from normbench.sweep.plan import shard
    from normbench.sweep.rounds import run_sweep
    from normbench.training.device import own_state

    with own_state():
        found = expand(["-m", *_typed(words, options, swept=True)])
        part = shard(found.run_configs, found.run_configs[0].config["shard"])
        outcome = run_sweep(found, part, lambda plan, why: _Bars(plan))
    for name, error in outcome.failed.items():
        _log.warning("%s failed: %s", name, error)
    return Study(part[0].folder.parent)


def load(folder: str | Path) -> Study:
    """Open a study, `results/<study>`. Raises UserError where there are no runs."""
    try:
        return Study(runs.load(folder).folder)
    except FileNotFoundError as error:
        raise UserError(str(error)) from error


def explain(words: Words = "", /, *, layer: str | None = None, unit: int = 0, **options: Any) -> Explanation:
    """What a scheme computes, step by step, on real images: `normbench explain`. A network is trained for it.

    >>> explain(norm="layer", **tiny).steps[1].title
    'Mean and variance'

    Args:
        words: as for `run`.
        layer: a block, as normbench describe names it; None: the first.
        unit: which unit or channel of it, from 0.

    Returns: an object that a notebook or a Python prompt displays; in a script, print it.
    """
    from normbench.commands.explain import trained_subject
    from normbench.explain.engine import explanation
    from normbench.training.device import own_state

    with own_state():
        subject = trained_subject(_typed(words, options))
        assert subject is not None, "--cfg was refused"
        return Explanation(*explanation(subject, layer, unit))


class Run(runs.Run):
    """One run: `summary` and `config` are dictionaries, `steps`, `epochs` and `measured(...)` data frames.

    `values` are its options, `words` repeat it. A run has no length; its tables have: `len(run.steps)`.

    >>> trained = run(norm="batch", **tiny)
    >>> trained
    <Run norm=batch dataset=synthetic instruments=quick max_steps=5: complete, test accuracy ...%>
    >>> trained.measured("gradients")
    Traceback (most recent call last):
    normbench.errors.UserError: gradients was not measured: there is activations, memory_time, shift, units.
    """

    def measured(self, instrument: str) -> pd.DataFrame:
        """What an instrument has measured. Raises UserError if it has not."""
        _require(instrument, self.instruments)
        return super().measured(instrument)

    def _about(self) -> list[tuple[str, str]]:
        from normbench.commands.run import results

        try:
            self.check()
            rows = [("run", " ".join(self.words)), ("status", self.status)]
            rows += results(self) if self.status in ("complete", "diverged") else [("reason", self.reason)]
        except (OSError, ValueError, KeyError, TypeError) as error:
            rows = [("run", self.name), ("status", f"it can't be read: {error}")]
        return [*rows, ("folder", str(console.shortened(self.folder)))]

    def __repr__(self) -> str:
        about = dict(self._about())
        result = f", test accuracy {about['test accuracy'].split()[0]}" if "test accuracy" in about else ""
        return _text(f"<Run {about['run']}: {about['status']}{result}>")

    def _repr_html_(self) -> str:
        return _table((), self._about(), left=2)


class Study(runs.Study):
    """A folder of runs that answers one question. Its length is the number of runs; iterating gives each `Run`.

    `runs` has a row per run: what was varied, seed, status, accuracies, seconds; `all_columns` has everything. `steps`,
    `epochs` and `measured(...)` are the tables of all runs, with the columns that were varied, and the seed. A study is
    read once: `load` it again to see further runs.

    >>> study = sweep(norm=["none", "batch"], seed=range(2), **tiny)
    >>> list(study.runs)
    ['run', 'norm', 'seed', 'status', 'validation_accuracy', 'test_accuracy', 'train_loss', 'seconds.total']
    >>> study.measured("shift").groupby("norm")["w1_scaled_mean"].mean().index.tolist()
    ['batch', 'none']
    >>> study.compare()[["scheme", "reference", "n"]].to_dict("records")
    [{'scheme': 'batch', 'reference': 'none', 'n': 2}]
    >>> study.plot("layers", tensor="linear", layer="hidden2").savefig("layers.svg")
    >>> study.explorer()
    <Page: the layers of norm-synthetic-instruments_quick-max_steps_5. A notebook shows it; .html is its text.>
    >>> study.report().as_posix()
    '...results/norm-synthetic-instruments_quick-max_steps_5/report/report.html'
    """

    def folders(self) -> Iterator[Run]:
        return (Run(run.folder, run.study) for run in super().folders())

    def __iter__(self) -> Iterator[Run]:
        """The runs that can be read; `unreadable` says why others can't."""
        return iter(cast("Iterable[Run]", self.members.values()))

    def __len__(self) -> int:
        return len(self.members)

    def measured(self, instrument: str) -> pd.DataFrame:
        """What an instrument has measured in the runs. Raises UserError if it has in none."""
        _require(instrument, {name for run in self for name in run.instruments})
        return super().measured(instrument)

    def compare(self, reference: str | None = None, margin: float = 0.5, best_lr: bool = False) -> pd.DataFrame:
        """Each scheme against `reference`, paired by seed: a table of the report, accuracies as fractions of 1.

        Args:
            reference: a scheme; None: `none`, or the first where the study has no `none`.
            margin: differences below it count as none (equivalence), in points of accuracy.
            best_lr: each scheme at its own best lr; False: everything else equal, the lr too.
        """
        import pandas as pd

        from normbench.analysis.answer import Options, check
        from normbench.analysis.best_lr import best_lr_table, compare_at_best_lr
        from normbench.analysis.comparisons import comparisons

        try:
            against, share = check(groups := self._view.groups, Options(reference, margin))
        except ValueError as error:
            raise UserError(str(error)) from error
        if best_lr:
            found = compare_at_best_lr(groups, against, share)
            return pd.DataFrame(best_lr_table(groups, found, against, share).rows)
        return pd.DataFrame(comparisons(groups, against, share).rows)

    def plot(self, name: str, tensor: str = "", layer: str = "") -> Canvas:
        """A figure of the report, as a figure of matplotlib; its `caption` says how to read it.

        Args:
            name: an option that was varied, such as "batch_size", for the test error against it; "layers" for the
                distribution of each layer over training; or a figure of the report: "forest", "shift" ... A wrong
                name raises UserError, which lists them.
            tensor: for "layers": linear, normalized or activation; "": what enters the activation.
            layer: for "layers": a single layer, such as "hidden2".
        """
        from normbench.plots.figures import draw

        return draw(self._view, name, tensor, layer)

    def explorer(self) -> Page:
        """The layer explorer of the report: distributions of each layer, step by step, to play and choose from."""
        from normbench.report.page import render_explorer

        if (html := render_explorer(self._view)) is None:
            raise UserError("no run has measured its layers: the instrument activations does (instruments=standard).")
        return Page(f"the layers of {self.folder.resolve().name}", html)

    def report(self) -> Path:
        """Build the report, `normbench report`. Returns its page."""
        from normbench import report
        from normbench.claims.report import answers
        from normbench.config.options import experiment_of

        name = self.folder.resolve().name
        try:
            return report.build(self.folder, question=experiment_of(name)[1], extra=answers(name)).page
        except (FileNotFoundError, report.ReportError) as error:
            raise UserError(str(error)) from error

    @cached_property
    def _view(self) -> View:
        """The runs in groups, as figures see them. Raises UserError where none can be read."""
        from normbench.analysis.answer import Options, check
        from normbench.analysis.groups import read
        from normbench.plots.view import View

        try:
            groups = read(self)
        except FileNotFoundError as error:
            raise UserError(str(error)) from error
        return View(groups, (check(groups, Options())[0], Options().margin))

    def _about(self) -> tuple[list[str], list[Sequence[str]]]:
        """Lines of text, and the headings and rows of a table of accuracies."""
        from normbench.analysis.groups import order, show
        from normbench.commands.report import accuracies
        from normbench.report.sources import counts

        folder = console.shortened(self.folder)
        if not len(self):
            return [f"{folder}: no run that can be read"], []
        varied = {"norm": order(self.runs["norm"])}
        for key in (*self.varied, "seed"):
            column = self.all_columns[key].drop_duplicates()
            varied[key] = [show(value) for value in (column.sort_values() if column.dtype.kind in "if" else column)]
        words = [f"{key}: {', '.join(values)}" for key, values in varied.items() if len(values) > 1]
        n = len(self.unreadable)
        unread = [f"{n} folder{'s' * (n > 1)} can't be read, see .unreadable"] * bool(n)
        said, rows = accuracies(self._view.groups)
        return [f"{folder}: {counts(self._view.groups)}", *filter(None, ["; ".join(words)]), *unread, said], rows

    def __repr__(self) -> str:
        lines, rows = self._about()
        return _text(*lines, *[console.make_table(rows[0], rows[1:])] if rows else ())

    def _repr_html_(self) -> str:
        lines, rows = self._about()
        return "".join(f"<div>{escape(line)}</div>" for line in lines) + (_table(rows[0], rows[1:]) if rows else "")


@dataclass(frozen=True, eq=False, repr=False)
class Explanation:
    """A calculation: each of `steps` has a title, a formula, words, and a table (`columns`, `rows`); `facts` are about
    the network. A notebook and a Python prompt display it.
    """

    steps: Sequence[Step]
    facts: Mapping[str, Any]

    def __repr__(self) -> str:
        from normbench.commands.explain import print_explanation

        return _text(lambda to: print_explanation(self.steps, self.facts, False, to))

    def _repr_html_(self) -> str:
        from normbench.commands.explain import cells

        parts = [f"<p><b>{escape(self.facts['network'])}</b><br>{escape(self.facts['where'])}</p>"]
        for number, step in enumerate(self.steps, start=1):
            formula = f"<pre>{escape(step.formula)}</pre>" if step.formula else ""
            parts.append(f"<h4>{number}. {escape(step.title)}</h4>{formula}<p>{escape(step.words)}</p>")
            parts.append(_table(step.columns, cells(step)))
        return "".join(parts)


@dataclass(frozen=True, eq=False, repr=False)
class Page:
    """A page with a script of its own, which a notebook shows in a frame. `html` is its text."""

    title: str
    html: str

    def __repr__(self) -> str:
        return f"<Page: {self.title}. A notebook shows it; .html is its text.>"

    def _repr_html_(self) -> str:
        style = "width: 100%; height: 54rem; border: 0"
        return f'<iframe sandbox="allow-scripts" style="{style}" srcdoc="{escape(self.html)}"></iframe>'


class _Bars(console.SweepView):
    """Progress bars without a line for each run; warnings of runs are logged."""

    def say(self, text: str) -> None:
        pass

    def warned(self, run_config: RunConfig, text: str) -> None:
        _log.warning("%s: %s", run_config.name, text)


def _typed(words: Words, options: Mapping[str, Any], swept: bool = False) -> list[str]:
    """The words of a command line; `swept`: lists are several values, not one."""
    if isinstance(words, Mapping):
        return _typed("", {**words, **options}, swept)
    try:
        typed = shlex.split(words) if isinstance(words, str) else [str(word) for word in words]
    except ValueError as error:
        raise ConfigError(f"quotes go in pairs: got {words}.") from error
    if any(word.startswith("--cfg") for word in typed):
        raise ConfigError("--cfg prints a configuration: it is for the command line.")
    for key, value in _flat(options):
        plain = _plain(key, value)
        if swept and plain == []:
            raise ConfigError(f"there is nothing to sweep over: got {key}={value}.")
        typed.append(f"{key}={','.join(map(quoted, plain if swept and isinstance(plain, list) else [plain]))}")
    return typed


def _flat(options: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """("model.dropout", 0.1) of {"model": {"dropout": 0.1}}."""
    for key, value in options.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _plain(key: str, value: Any) -> Any:
    """A number, text, truth, None, {} or a list of these."""
    value = value.tolist() if hasattr(value, "tolist") else value  # of NumPy, torch or pandas
    if isinstance(value, list | tuple | range):
        return [_plain(key, one) for one in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if value is None or value == {} or isinstance(value, str | int | float):
        return value
    raise ConfigError(f"{key} takes a number, text, True, False, None, or a list of these: got {value!r}.")


def _require(instrument: str, known: Iterable[str]) -> None:
    if instrument not in (names := sorted(known)):
        raise UserError(f"{instrument} was not measured: there is {', '.join(names) or 'nothing'}.")


def _text(*parts: Any) -> str:
    """Lines and tables as standard output shows them; a function prints to the console that it is given."""
    to = console.like_out()
    for part in parts:
        if callable(part):
            part(to)
        else:
            to.print(part, soft_wrap=isinstance(part, str))
    return "\n".join(line.rstrip() for line in to.file.getvalue().rstrip("\n").split("\n"))  # type: ignore[attr-defined]


def _table(headings: Sequence[str], rows: Iterable[Sequence[object]], left: int = 1) -> str:
    """Args: left: how many columns hold words; those after them hold numbers."""

    def line(tag: str, texts: Sequence[object]) -> str:
        cells = [escape(str(text)).replace("\n", "<br>") for text in texts]
        style = ' style="text-align: left"'
        return "<tr>" + "".join(f"<{tag}{style * (i < left)}>{cell}</{tag}>" for i, cell in enumerate(cells)) + "</tr>"

    head = f"<thead>{line('th', headings)}</thead>" if headings else ""
    return f"<table>{head}<tbody>{''.join(line('td', row) for row in rows)}</tbody></table>"
