"""The weights of a block; and what a network has learned, layer by layer: gains, biases, lengths of weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from normbench.instruments.instrument import Instrument, Row
from normbench.instruments.probe import Key, Probe, ascending, quantiles
from normbench.norms import Recorded, SwitchableNorm, blocks, preserve_state
from normbench.training.loop import Step

QUANTILES = {"min": 0.0, "q25": 0.25, "median": 0.5, "q75": 0.75, "max": 1.0}


@dataclass(frozen=True)
class Weight:
    """A matrix or kernel of a block: [C', ...], a row per unit.

    Args:
        path: where it is inside the block, "" or such as "input." in recurrent cells, whose weights are several.
        module, attribute: where it is read.
        made_of: the parameters v, or g and v, that it is computed from; none where it is a parameter itself.
    """

    path: str
    module: nn.Module
    attribute: str
    made_of: Mapping[str, nn.Parameter]

    def named(self, symbol: str) -> str:
        """The name of w, g or v in tables, such as "input.w". What is not called `weight` keeps its own."""
        if self.attribute == "weight":
            return self.path + symbol
        return self.path + (self.attribute if symbol == "w" else f"{self.attribute}.{symbol}")

    @property
    def name(self) -> str:
        return self.named("w")

    @property
    def trained(self) -> Tensor:
        """The parameter whose rows are trained: v where there is one."""
        return self.made_of["v"] if self.made_of else self.effective()

    def effective(self) -> Tensor:
        """w, what the network multiplies by. A re-parametrised weight is computed anew at each reading."""
        return cast(Tensor, getattr(self.module, self.attribute))


def inside(block: nn.Module, path: str = "", in_norm: bool = False) -> Iterator[tuple[str, nn.Module, bool]]:
    """The modules of a block: (path, module, is it part of a norm?). Blocks inside it are left to themselves.

    A norm is whatever is called `norm` or `..._norm`. The path is what distinguishes modules: "linear." and "norm." say
    nothing and are left out of it.
    """
    yield path, block, in_norm
    for name, child in block.named_children():
        if not isinstance(child, Recorded) and name != "parametrizations":
            part = "" if name in ("linear", "norm") else f"{name}."
            yield from inside(child, path + part, in_norm or name == "norm" or name.endswith("_norm"))


def weights(block: nn.Module) -> list[Weight]:
    """The weights of a block, in the order of definition: parameters of two axes or more that are no part of a norm."""
    found = []
    for path, module, in_norm in inside(block):
        if not in_norm:
            for attribute, parameter in module.named_parameters(recurse=False):
                if parameter.dim() > 1:
                    found.append(Weight(path, module, attribute, {}))
            parametrizations: Any = getattr(module, "parametrizations", {})
            for attribute, originals in parametrizations.items():
                # torch's names: original0 and original1 are g and v; a parametrization of one tensor has `original`.
                names = {"original0": "g", "original1": "v", "original": "v"}
                made_of = {names[name]: p for name, p in originals.named_parameters(recurse=False) if name in names}
                if made_of["v"].dim() > 1:
                    found.append(Weight(path, module, attribute, made_of))
    return found


def weights_of(layers: Iterable[tuple[str, nn.Module]]) -> dict[Key, Weight]:
    """{(layer, name of a weight): that weight} of these blocks."""
    return {(layer, weight.name): weight for layer, block in layers for weight in weights(block)}


class Parameters(Instrument):
    """Of each parameter of each block, over its units: count, mean and quantiles. The column `tensor` says of what:

        w, v                        |w_j|, |v_j|: the norm of each row, of the effective weight w = g v / |v| and of v
        g, gamma, beta, bias        the values
        running_mean, running_var   the values; of statistics per time step, those of all steps
        mean_instance ... var_batch of switchable normalization: the learned weights of the statistics that it mixes

    gamma and beta are the parameters `weight` and `bias` of a norm; others have their own names, as "alpha". In a
    recurrent cell the place comes first: "hidden.w", "input_norm.gamma".
    """

    name = "parameters"
    columns = ("count", "mean", *QUANTILES)

    def measure(self, step: Step, model: nn.Module, probe: Probe) -> Iterator[Row]:
        rows = []
        with preserve_state(model):
            for layer, block in blocks(model):
                for name, values in per_unit(block):
                    ordered = ascending(values.detach()).double()
                    row: Row = {"layer": layer, "tensor": name, "count": len(values), "mean": ordered.mean()}
                    rows.append(row | dict(zip(QUANTILES, quantiles(ordered, list(QUANTILES.values())), strict=True)))
        yield from rows


def per_unit(block: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """(name, values [units]) of all parameters and running statistics of a block."""
    for weight in weights(block):
        yield weight.name, row_norms(weight.effective())
        for symbol, parameter in weight.made_of.items():
            yield weight.named(symbol), row_norms(parameter) if symbol == "v" else parameter.flatten()
    for path, module, in_norm in inside(block):
        if isinstance(module, SwitchableNorm):
            for part, shares in module.shares(space=isinstance(getattr(block, "linear", None), nn.Conv2d)).items():
                yield from (
                    (f"{path}{name}_{part}", w.reshape(1)) for name, w in zip(("mean", "var"), shares, strict=True)
                )
        for name, parameter in module.named_parameters(recurse=False):
            if in_norm:
                yield path + {"weight": "gamma", "bias": "beta"}.get(name, name), parameter.flatten()
            elif parameter.dim() == 1:
                yield path + name, parameter
        for name in ("running_mean", "running_var"):
            statistic = getattr(module, name, None)
            if statistic is not None:
                yield path + name, statistic.flatten()


def row_norms(weight: Tensor) -> Tensor:
    """The norm of each row of a matrix or kernel."""
    return torch.linalg.vector_norm(weight.flatten(1), dim=1)
