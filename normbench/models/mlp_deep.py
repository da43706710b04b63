"""A deep multi-layer perceptron of equal layers."""

from __future__ import annotations

from typing import Any

from normbench.models.mlp import MLP
from normbench.models.options import require_sizes
from normbench.norms import NormScheme


def mlp_deep(
    scheme: NormScheme, shape: tuple[int, int, int], classes: int, *, depth: int, width: int, **options: Any
) -> MLP:
    """An MLP of `depth` hidden layers of `width` units each.

    Args:
        scheme, shape, classes, options: as in MLP.

    Source: Klambauer et al. 2017, arXiv:1706.02515, figure 1: 8, 16 and 32 layers, as wide as the image has values.
    """
    require_sizes("depth", [depth])
    require_sizes("width", [width])
    return MLP(scheme, shape, classes, hidden=[width] * depth, **options)
