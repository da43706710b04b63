"""The weights of a block: what the network multiplies by, and what is trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

from torch import Tensor, nn

from normbench.norms import Recorded


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
