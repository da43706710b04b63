"""How weights start: drawn per named layer, so that two schemes that share a layer start from the same draw."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from normbench.models.cells import RecurrentCell
from normbench.norms import Block, NormScheme

Init = Callable[..., Any]  # (weight, generator=) -> weight, in place

INITS: dict[str, Init] = {
    # N(0, 2/fan_in). He et al. 2015, arXiv:1502.01852
    "he": partial(nn.init.kaiming_normal_, nonlinearity="relu"),
    # N(0, 1/fan_in). LeCun et al. 1998, "Efficient BackProp"
    "lecun": partial(nn.init.kaiming_normal_, nonlinearity="linear"),
    # N(0, 2/(fan_in + fan_out)). Glorot & Bengio 2010
    "glorot": nn.init.xavier_normal_,
    # orthonormal rows or columns. Saxe et al. 2013, arXiv:1312.6120
    "orthogonal": nn.init.orthogonal_,
    # U(-1/sqrt(fan_in), 1/sqrt(fan_in)): what torch.nn.Linear and Conv2d do. It shrinks the signal by sqrt(3)
    "torch": partial(nn.init.kaiming_uniform_, a=5**0.5),
    # N(0, std^2), whatever the size of the layer
    "normal": nn.init.normal_,
}


def initialize(
    model: nn.Module,
    scheme: NormScheme,
    method: str,
    generator: Callable[[str], torch.Generator],
    std: float = 0.01,
    scale: float = 1.0,
) -> None:
    """Draw all weights of `model`; biases start at 0 (an LSTM's forget gate at 1).

    Args:
        method: "auto", or a name of `INITS` for all layers. "auto" is the scheme's own initialisation if it has one;
            else He before ReLU and its relatives, Glorot before sigmoid and tanh, LeCun before SELU and where no
            activation follows (an output, the end of a residual branch); in a recurrent cell, gate by gate, Glorot for
            W_x and orthogonal for W_h.
        generator: name of a layer -> the generator its weight is drawn from.
        std: standard deviation of "normal".
        scale: multiplies every weight that is drawn; of a weight-normalised layer, both g and v.
    """
    methods = INITS | {"normal": partial(nn.init.normal_, std=std)}
    given = scheme.init_ if method == "auto" else methods[method]  # None: whatever suits the layer
    for name, module in model.named_modules():
        if isinstance(module, Block):
            _draw(module.linear, given or _suited_to(module.activation), generator(f"{name}.linear"), scale)
        elif isinstance(module, RecurrentCell):
            for part, suited in (("input", "glorot"), ("hidden", "orthogonal")):
                linear = module.get_submodule(part)
                _draw(linear, given or INITS[suited], generator(f"{name}.{part}"), scale, parts=module.gates)
            module.start_biases()


def _suited_to(activation: nn.Module | None) -> Init:
    if activation is None or isinstance(activation, nn.SELU):
        return INITS["lecun"]
    return INITS["glorot"] if isinstance(activation, nn.Sigmoid | nn.Tanh) else INITS["he"]


@torch.no_grad()
def _draw(linear: Any, init: Init, stream: torch.Generator, scale: float, parts: int = 1) -> None:
    weight = torch.empty(linear.weight.shape)
    for part in weight.chunk(parts):
        init(part, generator=stream)
    weight *= scale
    if torch.nn.utils.parametrize.is_parametrized(linear, "weight"):
        linear.weight = weight  # sets g and v
    else:
        linear.weight.copy_(weight)
    if linear.bias is not None:
        linear.bias.zero_()
