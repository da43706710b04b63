"""How weights start: drawn per named layer, so that two schemes that share a layer start from the same draw."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from normbench.models.options import require_choice
from normbench.models.recurrent import RecurrentCell
from normbench.norms import Block, NormScheme

Init = Callable[..., Any]  # (weight, generator=) -> weight, in place


def he(w: Tensor, generator: torch.Generator) -> Tensor:
    """N(0, 2/fan_in). Source: He et al. 2015, arXiv:1502.01852."""
    return nn.init.kaiming_normal_(w, nonlinearity="relu", generator=generator)


def lecun(w: Tensor, generator: torch.Generator) -> Tensor:
    """N(0, 1/fan_in). Source: LeCun et al. 1998, "Efficient BackProp"."""
    return nn.init.kaiming_normal_(w, nonlinearity="linear", generator=generator)


def glorot(w: Tensor, generator: torch.Generator) -> Tensor:
    """N(0, 2/(fan_in + fan_out)). Source: Glorot & Bengio 2010."""
    return nn.init.xavier_normal_(w, generator=generator)


def orthogonal(w: Tensor, generator: torch.Generator) -> Tensor:
    """Orthonormal rows or columns. Source: Saxe et al. 2013, arXiv:1312.6120."""
    return nn.init.orthogonal_(w, generator=generator)


def torch_default(w: Tensor, generator: torch.Generator) -> Tensor:
    """U(-1/sqrt(fan_in), 1/sqrt(fan_in)): what torch.nn.Linear and Conv2d do. It shrinks the signal by sqrt(3)."""
    return nn.init.kaiming_uniform_(w, a=5**0.5, generator=generator)


def normal(w: Tensor, generator: torch.Generator, std: float) -> Tensor:
    """N(0, std^2), whatever the size of the layer."""
    return nn.init.normal_(w, std=std, generator=generator)


INITS: dict[str, Init] = {
    "he": he,
    "lecun": lecun,
    "glorot": glorot,
    "orthogonal": orthogonal,
    "torch": torch_default,
    "normal": normal,
}


def require_method(method: str, std: float = 0.01, scale: float = 1.0) -> None:
    """Raise ValueError if there is no initialisation called `method`, naming the others, or a number is not above 0."""
    require_choice("init", method, ["auto", *INITS])
    for option, value in (("init_std", std), ("init_scale", scale)):
        if not 0 < value < float("inf"):
            raise ValueError(f"model.{option} must be above 0: got {value}.")


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

    Raises: ValueError if there is no such method, or if std or scale is not above 0.
    """
    require_method(method, std, scale)
    given = partial(normal, std=std) if method == "normal" else INITS.get(method)  # None: "auto"
    for name, module in model.named_modules():
        if isinstance(module, Block):
            init = given or scheme.init_ or _suited_to(module.activation)
            _draw(module.linear, f"{name}.linear", init, generator, scale)
        elif isinstance(module, RecurrentCell):
            own = given or scheme.init_
            _draw(module.input, f"{name}.input", own or glorot, generator, scale, parts=module.gates)
            _draw(module.hidden, f"{name}.hidden", own or orthogonal, generator, scale, parts=module.gates)
            module.start_biases()


def _suited_to(activation: nn.Module | None) -> Init:
    if activation is None or isinstance(activation, nn.SELU):
        return lecun
    return glorot if isinstance(activation, nn.Sigmoid | nn.Tanh) else he


@torch.no_grad()
def _draw(
    linear: Any, name: str, init: Init, generator: Callable[[str], torch.Generator], scale: float, parts: int = 1
) -> None:
    weight = torch.empty(linear.weight.shape)
    stream = generator(name)
    for part in weight.chunk(parts):
        init(part, generator=stream)
    weight *= scale
    if torch.nn.utils.parametrize.is_parametrized(linear, "weight"):
        linear.weight = weight  # sets g and v
    else:
        linear.weight.copy_(weight)
    if linear.bias is not None:
        linear.bias.zero_()
