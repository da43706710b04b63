"""What is tried: one block of a scheme, dense or convolutional, with data, all in float64."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from normbench.norms import NormScheme, weight_norm
from normbench.verify.definitions import COLUMNS, DEFINITIONS, Definition, Options

PLACES = ("dense", "convolution")
INPUTS, UNITS, EXAMPLES, SIDE = 8, 16, 64, 5


@dataclass(frozen=True)
class Limits:
    """Errors allowed in float64: of outputs of about 1, of running statistics, and of a gradient of length 1."""

    exact: float = 1e-10
    update: float = 1e-12
    gradient: float = 1e-6


# torch's CUDA kernel of weight normalisation takes the root in |v| in float32, whatever the precision of v: |v| is off
# by up to 6e-8 of it, and its finite differences over steps of 1e-5 by up to 3e-3.
ROOT_IN_FLOAT32 = Limits(exact=1e-6, update=1e-6, gradient=1e-2)


@dataclass(frozen=True)
class Trial:
    """A scheme in one place. Every block that it makes starts from the same numbers."""

    scheme: NormScheme
    given: Options
    place: str
    device: str = "cpu"

    @property
    def options(self) -> Options:
        """Those of the scheme's YAML; what it does not say is as usual."""
        return {"eps": 1e-5, "momentum": 0.1, **self.given}

    @property
    def corrects(self) -> bool:
        """Is it batch renormalization that corrects from the first batch on?"""
        return self.scheme.name == "batch_renorm" and self.options.get("warmup_steps") == 0

    @property
    def limits(self) -> Limits:
        coarse = self.device.startswith("cuda") and self.scheme.reparametrize is weight_norm
        return ROOT_IN_FLOAT32 if coarse else Limits()

    @property
    def definition(self) -> Definition | None:
        """What is expected; None for a scheme that is not known. Of batch renormalization the start alone is."""
        return None if self.corrects else DEFINITIONS.get(self.scheme.name)

    def block(self) -> Any:
        """In training mode; without activation, unless the scheme has its own. Gains and biases have left 1 and 0."""
        torch.manual_seed(0)
        linear = nn.Linear(INPUTS, UNITS) if self.place == "dense" else nn.Conv2d(INPUTS, UNITS, 3)
        block = self.scheme.block(linear, nn.Identity if self.scheme.activation else None)
        block = block.to(self.device, torch.float64).train()
        with torch.no_grad():
            for parameter in block.parameters():
                if parameter is not weight_of(block):
                    parameter.copy_(torch.rand_like(parameter) + 0.5)
        return block

    def data(self, seed: int = 1) -> Tensor:
        """Examples whose features have a mean that isn't 0; as many as two ghost batches, where there are some."""
        count = max(2 * (self.options.get("virtual") or 0), EXAMPLES)
        count -= count % (self.options.get("virtual") or 1)
        sides = () if self.place == "dense" else (SIDE, SIDE)
        drawn = torch.randn(count, INPUTS, *sides, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        return drawn.add_(0.5).to(self.device)

    def network(self) -> nn.Sequential:
        """Two blocks and a plain output."""
        torch.manual_seed(0)
        linears: tuple[Any, Any] = (nn.Linear(INPUTS, UNITS), nn.Linear(UNITS, UNITS))
        if self.place == "convolution":
            linears = nn.Conv2d(INPUTS, UNITS, 3), nn.Conv2d(UNITS, UNITS, 2)
        positions = 1 if self.place == "dense" else (SIDE - 3) ** 2
        hidden = [self.scheme.block(linear, nn.ReLU) for linear in linears]
        output = self.scheme.block(nn.Linear(UNITS * positions, 5), normalize=False)
        return nn.Sequential(*hidden, nn.Flatten(), output).to(self.device, torch.float64)


def passed_through(module: nn.Module, x: Tensor) -> Tensor:
    """The output, under the same random numbers each time."""
    torch.manual_seed(2)
    return module(x)


def largest(x: Tensor) -> float:
    """The largest absolute value; NaN if there is one."""
    return x.detach().abs().max().item()


def weight_of(block: Any) -> nn.Parameter:
    """What is drawn at random: the weight itself, or v where it is re-parametrised."""
    linear = block.linear
    return linear.parametrizations.weight.original1 if parametrize.is_parametrized(linear) else linear.weight


def transformed(column: str, w: Tensor, x: Tensor, by: float = 3.0) -> tuple[Tensor, Tensor]:
    """Weights [C', C, ...] and data [N, C, ...] after one of the changes."""
    w, x = w.clone(), x.clone()
    if column == "matrix scaled":
        w *= by
    elif column == "matrix shifted":  # W + 1 shift^T: every unit's weight vector by the same
        w += torch.linspace(-1, by, w[0].numel()).to(w).view_as(w[0])
    elif column == "vector scaled":
        w[2] *= by
    elif column == "data scaled":
        x *= by
    elif column == "data shifted":
        x += torch.linspace(-1, by, x.shape[1]).to(x).view(1, -1, *[1] * (x.dim() - 2))
    elif column == "one case scaled":
        x[3] *= by
    return w, x


__all__ = ["COLUMNS", "PLACES", "Trial", "largest", "passed_through", "transformed", "weight_of"]
