"""The multi-layer perceptron, and the deep one of equal layers."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import prod
from typing import Any

from torch import nn

from normbench.models.options import ACTIVATIONS
from normbench.norms import NormScheme


class MLP(nn.Sequential):
    """Hidden blocks `hidden1`, `hidden2`, ... and a linear `output`.

    Args:
        scheme: how the hidden layers are normalised.
        shape: of one image, (C, H, W); its pixels are the inputs.
        classes: number of outputs.
        hidden: width of each hidden layer.
        activation: relu | sigmoid | tanh | leaky_relu | elu | gelu | selu, unless the scheme brings its own.
        dropout: rate after each hidden layer, 0 for none.
        normalize_output: normalise the output layer, too.

    Shape: [N, C, H, W] -> logits [N, classes].
    """

    def __init__(
        self,
        scheme: NormScheme,
        shape: tuple[int, int, int],
        classes: int,
        *,
        hidden: Sequence[int],
        activation: str = "relu",
        dropout: float = 0.0,
        normalize_output: bool = False,
    ) -> None:
        super().__init__()
        widths = [prod(shape), *hidden]
        self.add_module("flatten", nn.Flatten())
        for i, (a, b) in enumerate(pairwise(widths), start=1):
            self.add_module(f"hidden{i}", scheme.block(nn.Linear(a, b), ACTIVATIONS[activation], dropout))
        self.add_module("output", scheme.block(nn.Linear(widths[-1], classes), normalize=normalize_output))


def mlp_deep(
    scheme: NormScheme, shape: tuple[int, int, int], classes: int, *, depth: int, width: int, **options: Any
) -> MLP:
    """An MLP of `depth` hidden layers of `width` units each; its other options are those of MLP.

    Source: Klambauer et al. 2017, arXiv:1706.02515, figure 1: 8, 16 and 32 layers, as wide as the image has values.
    """
    return MLP(scheme, shape, classes, hidden=[width] * depth, **options)
