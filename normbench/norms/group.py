"""Group and instance normalization: each example standardised over groups of its channels, or over each by itself."""

from __future__ import annotations

from torch import Tensor, nn

from normbench.errors import Unsupported

OF_CHANNELS = ("matrix scaled", "vector scaled", "data scaled", "data shifted", "one case scaled")


class GroupNorm(nn.GroupNorm):
    """y = gamma (x - mean) / sqrt(var + eps) + beta, mean and (biased) var over a group of channels (and space) of
    one example.

    One group is layer norm, as many groups as channels is instance norm. The batch plays no part.

    Args:
        features: C, the size of axis 1.
        groups: how many groups; must divide C.
        channels_per_group: instead of `groups`, how many channels are in each; must divide C.
        affine: learn gamma (`weight`, starts at 1) and beta (`bias`, starts at 0), per channel.

    Shape: [N, C] or [N, C, H, W], unchanged.
    Raises:
        ValueError: the groups do not divide the channels.
        Unsupported: a group has one value: its deviation from the mean is 0.
    Source: Wu & He 2018, arXiv:1803.08494, section 3.
    """

    def __init__(
        self,
        features: int,
        *,
        groups: int,
        channels_per_group: int | None = None,
        eps: float = 1e-5,
        affine: bool = True,
    ) -> None:
        option, size = ("groups", groups) if channels_per_group is None else ("channels_per_group", channels_per_group)
        if not isinstance(size, int) or size < 1 or features % size:
            possible = ", ".join(str(n) for n in range(1, features + 1) if features % n == 0)
            raise ValueError(
                f"norm.{option} must divide the features of each normalised layer: got {size} for {features} features. "
                f"Use one of {possible}, or another width; model.normalize_output=false leaves the classes alone."
            )
        super().__init__(groups if channels_per_group is None else features // size, features, eps, affine)

    @property
    def invariant_to(self) -> tuple[str, ...]:
        by_channel = self.num_groups == self.num_channels
        return OF_CHANNELS if by_channel else ("matrix scaled", "matrix shifted", "data scaled", "one case scaled")

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1:].numel() == self.num_groups:
            raise Unsupported(
                f"GroupNorm needs two values in a group to normalise over: got 1 ({self.num_groups} groups, "
                f"{self.num_channels} features). Use fewer norm.groups, more norm.channels_per_group, or norm=batch."
            )
        return super().forward(x)


class InstanceNorm(nn.InstanceNorm2d):
    """y = gamma (x - mean) / sqrt(var + eps) + beta, mean and (biased) var over H, W of one channel of one example.

    The batch plays no part: training and evaluation are the same.

    Args:
        features: C, the size of axis 1.
        affine: learn gamma (`weight`, starts at 1) and beta (`bias`, starts at 0), per channel.

    Shape: [N, C, H, W], unchanged.
    Raises: Unsupported with one position, as in fully connected layers and recurrent cells: x - mean is 0.
    Source: Ulyanov, Vedaldi & Lempitsky 2016, arXiv:1607.08022, section 2.
    """

    over = ("height", "width")
    invariant_to = OF_CHANNELS

    def __init__(self, features: int, *, eps: float = 1e-5, affine: bool = True) -> None:
        super().__init__(features, eps=eps, affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[2:].numel() == 1:
            raise Unsupported(
                "InstanceNorm needs two positions to normalise over: got one value per unit, as everywhere but in "
                "convolutions over more than one pixel. Use norm=layer or norm=group, or a convolutional model."
            )
        return super().forward(x)
