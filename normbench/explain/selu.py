"""SELU, step by step: no norm at all, but an activation that pulls mean and variance to 0 and 1."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from normbench.explain.over_batch import label
from normbench.explain.place import Place, look
from normbench.explain.steps import Step
from normbench.norms import Block, blocks

STARTS = (0.25, 0.5, 1.0, 2.0, 4.0)  # variances of o
DEEP = 10  # layers


def steps(place: Place) -> list[Step]:
    activation: Any = place.block.activation
    return [_values(place), _constants(activation), _activated(place), _fixed_point(activation), _layers(place)]


def _values(place: Place) -> Step:
    rows = place.rows(place.values(place.seen.x))
    words = "Nothing is normalised: each image's value stays its own, in training and in inference, at any batch size."
    return Step("values", "The values", "o = W x + b", words, (label(place), "o"), rows)


def constants(activation: Any) -> tuple[float, float]:
    """lambda and alpha, from the activation itself: selu(1) = lambda, selu(-infinity) = -lambda alpha."""
    one, lowest = activation(torch.tensor([1.0, -1e4], dtype=torch.float64)).tolist()
    return one, -lowest / one


def _constants(activation: Any) -> Step:
    scale, alpha = constants(activation)
    words = (
        "Two constants, the same in every network and never learned. They are solved for: with them mean 0 and "
        "variance 1 are mapped to themselves. The slope lambda > 1 widens what is too narrow, the flat negative side "
        "narrows what is too wide."
    )
    formula = "selu(o) = lambda o                       for o > 0\nselu(o) = lambda alpha (exp(o) - 1)     else"
    rows = [("lambda", scale), ("alpha", alpha), ("lowest value, -lambda alpha", -scale * alpha)]
    return Step("constants", "lambda and alpha", formula, words, ("", "value"), rows)


def _activated(place: Place) -> Step:
    o, y = place.values(place.seen.x), place.values(place.seen.tensors["activation"])
    columns = (label(place), "o", "selu(o)")
    return Step("activated", "The activation", "", "", columns, place.rows(o, y), columns[2:])


def moments(activation: Any, mean: float, var: float) -> tuple[float, float]:
    """Mean and variance of selu(o) for normal o: sums over a fine grid, in double precision."""
    z = torch.linspace(-12, 12, 240_001, dtype=torch.float64)
    weight = torch.exp(-z * z / 2)
    y = activation(mean + var**0.5 * z)
    centre = (weight * y).sum() / weight.sum()
    return centre.item(), ((weight * (y - centre) ** 2).sum() / weight.sum()).item()


def _fixed_point(activation: Any) -> Step:
    rows = []
    for start in STARTS:
        mean, var = moments(activation, 0.0, start)
        deep = start
        for _ in range(DEEP):
            deep = moments(activation, 0.0, deep)[1]
        rows.append((f"{start:g}", mean, var, deep))
    words = (
        "For a normal o with mean 0 and variance 1, selu(o) has mean 0 and variance 1 again: a fixed point. From "
        "another variance each layer comes nearer. (The next layer's o has mean 0 and about the variance of selu(o), "
        "if each unit's weights sum to 0 and their squares to 1: LeCun initialisation does that on average. It is "
        "these weights that bring a mean back to 0; selu alone would not.)"
    )
    columns = ("variance of o", "mean of selu(o)", "variance of selu(o)", f"after {DEEP} layers")
    return Step("fixed_point", "The fixed point", "mean 0, variance 1 -> mean 0, variance 1", words, columns, rows)


def _layers(place: Place) -> Step:
    """Mean and variance in this network, over units and images."""
    rows: list[list[Any]] = []
    for name, block in blocks(place.model):
        if isinstance(block, Block) and block.activation is not None:
            tensors = look(place.model, block, place.many, None).tensors
            rows.append([name, *_moments(tensors["linear"]), *_moments(tensors["activation"])])
    words = (
        f"Over all units and {len(place.many)} training images. Nothing holds these numbers where they are: training "
        "has moved the weights, and with them the moments; SELU pulls them back, it doesn't fix them."
    )
    columns = ("layer", "mean of o", "variance of o", "mean of selu(o)", "variance of selu(o)")
    return Step("layers", "Measured in this network", "", words, columns, rows)


def _moments(tensor: Tensor) -> tuple[float, float]:
    var, mean = torch.var_mean(tensor.double(), correction=0)
    return mean.item(), var.item()
