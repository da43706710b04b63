"""A scheme: one small value that says how a network is normalised. No class tree, no registry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from normbench.noise import Dropout
from normbench.norms.block import Block
from normbench.norms.statistics import KINDS, Kind


def _as_it_is(module: nn.Module) -> nn.Module:
    return module


@dataclass(frozen=True)
class NormScheme:
    """What a scheme changes in a network. Whatever it leaves out is the plain network.

    Args:
        name: the scheme's name, as in `norm=batch`.
        reparametrize: linear layer or convolution -> the same with its weight re-parametrised (weight normalisation).
        norm: number of features -> module that normalises a block's pre-activation [N, C, ...] over whatever it likes.
        recurrent_norm: (features, steps, place) -> module called with (x [N, features], t), or None for none there.
            `place` is "input" (on W_x x), "hidden" (on W_h h) or "state" (on the cell, before its tanh). The cell adds
            one bias after "input" and "hidden", so modules there need none.
        activation: () -> module, instead of the model's own.
        init_: (weight, generator=) -> weight, in place: how weights start under `model.init=auto`.
        dropout: rate -> module.
        placement: norm "before" or "after" the activation; recurrent cells have places of their own.
        data_dependent_init: (model, images) -> None: adjusts the weights to the first images, once, before training.
        init_images: how many training images `data_dependent_init` is given; 0: it isn't called.
        statistics: what norms over the batch work with in inference; see `statistics_for`.

    Raises: ValueError if `placement`, `init_images` or `statistics` is none of these.
    """

    name: str = "none"
    reparametrize: Callable[[nn.Module], nn.Module] = _as_it_is
    norm: Callable[[int], nn.Module] | None = None
    recurrent_norm: Callable[[int, int, str], nn.Module | None] | None = None
    activation: Callable[[], nn.Module] | None = None
    init_: Callable[..., Any] | None = None
    dropout: Callable[[float], nn.Module] = Dropout
    placement: Literal["before", "after"] = "before"
    data_dependent_init: Callable[[nn.Module, Tensor], None] | None = None
    init_images: int = 0
    statistics: Kind = "ema"

    def __post_init__(self) -> None:
        if self.placement not in ("before", "after"):
            raise ValueError(f"norm.placement must be before or after (the activation): got {self.placement}.")
        if self.init_images < 0 or self.init_images == 1:
            raise ValueError(
                f"norm.init_images must be 2 or more, for they must vary, or 0 for none: got {self.init_images}."
            )
        if self.statistics not in KINDS:
            raise ValueError(f"norm.statistics must be one of {', '.join(KINDS)}: got {self.statistics}.")

    def block(
        self,
        linear: nn.Linear | nn.Conv2d,
        activation: Callable[[], nn.Module] | None = None,
        dropout: float = 0.0,
        normalize: bool = True,
    ) -> Block:
        """The block around `linear`: re-parametrised, normalised, activated.

        Args:
            activation: the model's activation; None for an output layer, whatever the scheme's.
            dropout: rate; 0 for none.
            normalize: False leaves the layer plain (the output layer, by default).
        """
        features = linear.out_features if isinstance(linear, nn.Linear) else linear.out_channels
        norm = self.norm(features) if self.norm is not None and normalize else None
        adjacent = self.placement == "before" or activation is None  # is nothing between the bias and the norm?
        if norm is not None and adjacent and supplies_bias(norm):
            linear.register_parameter("bias", None)
        return Block(
            linear=self.reparametrize(linear) if normalize else linear,
            norm=norm,
            activation=(self.activation or activation)() if activation is not None else None,
            dropout=self.dropout(dropout) if dropout > 0 else None,
            placement=self.placement,
        )


def supplies_bias(norm: nn.Module) -> bool:
    """Would a bias before this norm be useless: has the norm its own, or does it subtract each unit's mean anyway?

    A norm that squashes each value says that it isn't (`keeps_bias = True`), whatever it has of its own.
    """
    if getattr(norm, "keeps_bias", False):
        return False
    return getattr(norm, "bias", None) is not None or "data shifted" in getattr(norm, "invariant_to", ())
