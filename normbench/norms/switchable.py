"""Switchable normalization: a learned mixture of the statistics of instance, layer and batch normalization."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from normbench.norms.batch import RunningStatistics, of_instances


class SwitchableNorm(RunningStatistics):
    """y = gamma (x - sum_k w_k mean_k) / sqrt(sum_k v_k var_k + eps) + beta, k in instance, layer, batch.

    mean_k and var_k (biased) are those that instance norm (over H, W), layer norm (over C, H, W) and batch norm (over
    N, H, W) would use. w = softmax(mean_logits), v = softmax(var_logits): each layer learns them; they start equal. In
    evaluation the batch's are the running averages, of the variance m/(m-1) times it, and those of the example are its
    own.

    In fully connected layers an example has one value per unit, and so no statistics of an instance: w and v are over
    layer and batch alone, and the first logit plays no part. Not in recurrent cells: no paper gives a recipe.

    Args: as RunningStatistics.
    Shape: [N, C] or [N, C, H, W], unchanged.
    Raises: Unsupported in training with one value per feature: the batch has no variance.
    Source: Luo et al. 2018, arXiv:1806.10779, section 3 (equations 3 to 5); over layer and batch alone: its authors'
        code for one value per unit.
    """

    over = ("examples", "features", "height", "width")
    parts: ClassVar[dict[str, tuple[str, ...]]] = {
        "instance": ("height", "width"),
        "layer": ("features", "height", "width"),
        "batch": ("examples", "height", "width"),
    }
    invariant_to = ("matrix scaled", "data scaled")
    called = "Switchable norm"

    def __init__(self, features: int, **options: Any) -> None:
        super().__init__(features, **options)
        self.mean_logits, self.var_logits = nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(3))

    def shares(self, space: bool) -> dict[str, tuple[Tensor, Tensor]]:
        """{part: its weight in the mean, and in the variance}; without `space`, of layer and batch alone."""
        names = [*self.parts][0 if space else 1 :]
        w, v = (logits[-len(names) :].softmax(0) for logits in (self.mean_logits, self.var_logits))
        return {name: (w[i], v[i]) for i, name in enumerate(names)}

    def by_averages(self, x: Tensor, mean: Tensor, var: Tensor | None) -> Tensor:
        assert var is not None
        return self.mixed(x, *of_instances(x), mean, var)

    def by_batch(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = x.to(self.running_mean.dtype)  # float32, where autocast gives bfloat16
        own_mean, own_var = of_instances(x)
        var, mean = torch.var_mean(own_mean, 0, correction=0)
        var, m = var + own_var.mean(0), x.numel() // x.shape[1]
        return self.mixed(x, own_mean, own_var, mean, var), mean.detach(), var.detach() * (m / (m - 1))

    def mixed(self, x: Tensor, own_mean: Tensor, own_var: Tensor, mean: Tensor, var: Tensor) -> Tensor:
        """y, given mean and variance of the instances [N, C] and of the batch [C]."""
        layer_var, layer_mean = torch.var_mean(own_mean, 1, correction=0, keepdim=True)  # [N, 1]
        layer_var = layer_var + own_var.mean(1, keepdim=True)  # the variance of means, and the mean of variances
        of = {"instance": (own_mean, own_var), "layer": (layer_mean, layer_var), "batch": (mean, var)}
        shares = self.shares(x.dim() > 2).items()
        mean, var = sum(w * of[part][0] for part, (w, _) in shares), sum(v * of[part][1] for part, (_, v) in shares)  # type: ignore[assignment]
        return super().by_averages(x, mean, var)
