"""How many units say something, and how alike a layer makes different images."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from normbench.instruments.instrument import Instrument, Row
from normbench.instruments.probe import Probe
from normbench.norms import blocks
from normbench.training.loop import Step

# The slope outside is less than a fifth of the largest for the sigmoid, a sixteenth for tanh.
SATURATED: dict[type, tuple[float, float]] = {nn.Sigmoid: (0.05, 0.95), nn.Tanh: (-0.97, 0.97)}


class Units(Instrument):
    """Of the `activation` a of each block, over the probe's images and positions (bn_mode "probe"):

        zeros         share of values that are 0
        dead          share of units that never vary: with ReLU, those whose input is 0 or less at every image
        saturated     share of values outside [.05, .95] (sigmoid), [-.97, .97] (tanh); empty for all else
        dormant       share of units j with E|a_j| <= tau mean_k E|a_k|
        cosine        mean over pairs of images i, i' of cos(a_i, a_i')
        stable_rank   tr(M) / ||M||_2, M_ii' = cos(a_i, a_i')

    The last two take the first `images` of the probe, each with all its units and positions (or time steps) as one
    vector, and leave out those whose vector is 0. A recurrent cell's activation is h, which mixes gates and tanh: small
    values don't mean that nothing is saturated, so it has no `saturated`.

    Args:
        tau: below this share of the layer's mean activity a unit is dormant.
        images: at most so many are compared; the stable rank can't be larger.

    Source: dormant: Sokar et al. 2023, arXiv:2302.12902, definition 3.1; cosine, stable rank: Lubana et al. 2021,
        arXiv:2106.05956; saturation: Glorot & Bengio 2010.
    """

    name = "units"
    columns: Sequence[str] = ("units", "zeros", "dead", "saturated", "dormant", "cosine", "stable_rank")

    def __init__(self, *, tau: float = 0.025, images: int = 128) -> None:
        self.tau, self.images = tau, images

    def measure(self, step: Step, model: nn.Module, probe: Probe) -> Iterator[Row]:
        bounds = {name: SATURATED.get(type(getattr(block, "activation", None))) for name, block in blocks(model)}
        for (layer, tensor), a in probe.tensors().items():
            if tensor == "activation":
                row: Row = {"layer": layer, "tensor": tensor, "units": a.shape[1]}
                row["saturated"] = share_outside(a, bounds[layer])
                row.update(zip(("zeros", "dead", "dormant"), shares(a, self.tau), strict=True))
                row["cosine"], row["stable_rank"] = likeness(a[: self.images].flatten(1))
                yield row


def shares(a: Tensor, tau: float) -> list[float]:
    """Of activations [N, C, P]: the share of zeros, of dead units, of dormant units."""
    activity = a.abs().mean((0, 2))  # [C]
    zeros = 1 - a.count_nonzero() / a.numel()
    dead = (a.amax((0, 2)) == a.amin((0, 2))).float().mean()
    dormant = (activity <= tau * activity.mean()).float().mean()
    return torch.stack((zeros, dead, dormant)).tolist()


def share_outside(a: Tensor, bounds: tuple[float, float] | None) -> float | str:
    """The share of values outside of `bounds`; empty without bounds."""
    return "" if bounds is None else ((a < bounds[0]) | (a > bounds[1])).float().mean().item()


def likeness(a: Tensor) -> tuple[float, float]:
    """Mean cosine of two rows of `a` [N, D], and the stable rank of the matrix of all of them; NaN if none is left.

    With u the rows at length 1: mean cosine = (|sum u|^2 - N) / (N (N - 1)); u u^T has the trace N, and its largest
    eigenvalue is also that of u^T u, whichever is smaller.
    """
    length = a.norm(dim=1, keepdim=True)
    u = (a / length)[length.squeeze(1) != 0]
    n = len(u)
    if n < 2 or not (u.isfinite().all() and length.isfinite().all()):  # a length may overflow before the values do
        return math.nan, math.nan
    cosine = (u.sum(0).square().sum() - n) / (n * (n - 1))
    # double: of a matrix with many equal eigenvalues, as dead units make them, LAPACK finds none in single precision
    gram = (u @ u.T if n <= u.shape[1] else u.T @ u).double()
    return cosine.item(), n / torch.linalg.eigvalsh(gram)[-1].item()
