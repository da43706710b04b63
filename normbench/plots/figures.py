"""The list of a report's figures. A new one is a function `(view) -> Drawn | None`, None without data, and a line here.

Most make a tidy frame of a table and let `facets` draw it; those with a form of their own have a module of their own.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial

from normbench.errors import UserError
from normbench.plots import cost, dose, forest, inside, maps, results, ribbons
from normbench.plots.drawing import Canvas, Figure, complete, look
from normbench.plots.saver import Save, saver
from normbench.plots.view import Drawn, View

MANY = 100  # runs, above which a second process saves: its start takes a second of a core


@dataclass(frozen=True)
class Spec:
    """`missing` says why there is no such figure and what would supply it; without it nothing is said."""

    name: str
    title: str
    draw: Callable[[View], Drawn | None]
    missing: str = ""


# In the page's order: what comes out of training and what it costs, then why.
FIGURES: tuple[Spec, ...] = (
    Spec("batch_sizes", "Test error against batch size", partial(results.along, option="batch_size"),
         "all runs of a setting have the same batch size."),
    Spec("along_option", "Test error against what was varied", partial(results.along_others, place=0),
         "besides scheme, lr and batch size, nothing was varied."),
    Spec("along_option_2", "Test error against what else was varied", partial(results.along_others, place=1)),
    Spec("learning_curves", "Learning curves", results.learning_curves,
         "no run has evaluated its validation set twice (option evaluations)."),
    Spec("lr_sensitivity", "Validation error against the learning rate", results.lr_sensitivity,
         "all runs of a setting have the same learning rate. Sweep it: normbench run -m lr=0.01,0.1,1"),
    Spec("lr_batch", "Learning rate and batch size together", maps.draw,
         "it takes runs at two learning rates and two batch sizes or more (of the same setting)."),
    Spec("forest", "Paired differences in test accuracy", forest.draw,
         "no scheme has a complete run with the setting and seed of one of the reference."),
    Spec("cost", "Cost: time per update, memory, error for the time spent", cost.draw,
         "no run is complete, or none says how long it trained."),
    Spec("ribbons", "Distribution of each layer over training", ribbons.draw,
         "no finished run has percentiles of its layers. The instrument activations supplies them."),
    Spec("shift", "Internal covariate shift: how far each layer's values have moved since the start", inside.shift,
         "no complete run has measured it. The instrument shift supplies it."),
    Spec("dose", "More shift, and how fast it then learns", dose.draw),
    Spec("train_test_shift", "Two shifts: internal, over training, and between training and test images",
         inside.train_test_shift, "no complete run has measured it. The instrument train_test_shift supplies it."),
    Spec("train_test_accuracy", "Accuracy on corrupted images", inside.train_test_accuracy),
    Spec("batch_noise", "How much mini-batches differ", inside.batch_noise,
         "it takes runs at two batch sizes or more, measured by the instrument batch_noise."),
    Spec("running_statistics", "Error of the running statistics", inside.running_statistics,
         "no complete run of a scheme with running statistics has measured them. The instrument statistics does."),
    Spec("inference_statistics", "Validation error by the statistics of inference", inside.inference_statistics),
    Spec("depth", "Gradients and silent units by depth", inside.depth,
         "the instruments gradients and units supply it (instruments=standard)."),
    Spec("landscape", "The loss along the gradient", inside.landscape,
         "the instrument landscape supplies it (instruments=full)."),
    Spec("time_steps", "Along the sequence", inside.time_steps,
         "no complete run is of a recurrent network (model=rnn) with the instrument time_steps."),
)  # fmt: skip


def draw(view: View, name: str, tensor: str = "", layer: str = "") -> Canvas:
    """One figure, with its title and its caption.

    Args:
        name: of FIGURES; or the option that was varied, whose values are its horizontal axis; or "layers": the
            distribution of each layer over training, of this `tensor` and this `layer` where they are given.

    Raises: UserError if there is no such figure, or nothing to draw in it.
    """
    known = {spec.name: spec for spec in FIGURES}
    layers = partial(ribbons.draw, tensor=tensor, layer=layer)
    known["layers"] = replace(known["ribbons"], draw=layers)
    known |= {"batch_size": known["batch_sizes"], "lr": known["lr_sensitivity"]}
    for option in view.groups.varying:
        along = partial(results.along, option=option)
        missing = f"{option} does not vary within a setting."
        known.setdefault(option, Spec(option, f"Test error against {option}", along, missing))
    if name not in known:
        raise UserError(f"a figure is one of {', '.join(known)}: got {name!r}.")
    if (tensor or layer) and name != "layers":
        raise UserError("tensor and layer choose among the distributions of plot('layers').")
    spec = known[name]
    with look():
        if (drawn := spec.draw(view)) is None:
            raise UserError(f"{name} can't be drawn: {spec.missing or 'these runs have no data for it.'}")
        complete(drawn.canvas, spec.title, view.groups.synthetic, drawn.line)
    drawn.canvas.caption = drawn.caption
    return drawn.canvas


def draw_all(view: View, pdf: bool = False) -> list[Figure]:
    """Every figure; in place of one that fails, a note: a study of hours must not lose its tables to a picture.

    Args:
        pdf: whether to save them as PDF, too.
    """
    figures = []
    with look(), saver(apart=len(view.groups.members) > MANY) as save:
        for spec, begun in [(spec, _begin(spec, view, save, pdf)) for spec in FIGURES]:
            try:
                figure = begun.result()
            except Exception as error:
                logging.getLogger(__name__).exception("%s could not be drawn", spec.name)
                figure = Figure(spec.name, spec.title, f"Could not be drawn: {type(error).__name__}: {error}")
            figures += [figure] if figure else []
    return figures


def _begin(spec: Spec, view: View, save: Save, pdf: bool) -> Future[Figure | None]:
    """Draw a figure and begin to save it; None where there is none and nothing is to be said."""
    done: Future[Figure | None] = Future()
    try:
        if drawn := spec.draw(view):
            return save(spec.name, spec.title, drawn.caption, drawn.canvas, view.groups.synthetic, drawn.line, pdf)
        done.set_result(Figure(spec.name, spec.title, f"Not drawn: {spec.missing}") if spec.missing else None)
    except Exception as error:
        done.set_exception(error)
    return done
