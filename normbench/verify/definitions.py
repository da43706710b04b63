"""What each scheme is: closed forms from the papers, written without the code that they judge.

A scheme is looked up by the `name` in its YAML: a file of yours that says `name: batch` is held to batch norm.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Options = Mapping[str, Any]  # of the scheme's YAML
Kept = tuple[Tensor, Tensor] | None
Form = Callable[[Tensor, Tensor, Tensor, float], Tensor]  # (x, mean, biased var, eps) -> normalised x

# Six changes that a normalised layer may or may not notice: the columns of Ba et al. 2016 and three of the same kind.
# Source: Ba, Kiros & Hinton 2016, arXiv:1607.06450, table 1
COLUMNS = ("matrix scaled", "matrix shifted", "vector scaled", "data scaled", "data shifted", "one case scaled")


def standardise(x: Tensor, mean: Tensor, var: Tensor, eps: float) -> Tensor:
    return (x - mean) / (var + eps).sqrt()


def centre(x: Tensor, mean: Tensor, var: Tensor, eps: float) -> Tensor:
    return x - mean


def scale(x: Tensor, mean: Tensor, var: Tensor, eps: float) -> Tensor:
    return x / (var + eps).sqrt()


def divide_by_rms(x: Tensor, mean: Tensor, var: Tensor, eps: float) -> Tensor:
    return x / (var + mean * mean + eps).sqrt()  # mean(x^2) = var + mean^2


def over(x: Tensor, where: str, options: Options, form: Form) -> Tensor:
    """`form` with the statistics of the values of x [N, C, ...] that belong together."""
    if where == "ghost batch":
        return torch.cat([over(part, "batch", options, form) for part in x.split(options["virtual"])])
    if where == "group":
        size = options.get("channels_per_group") or x.shape[1] // options["groups"]
        x = x.unflatten(1, (-1, size))  # [N, C, ...] -> [N, groups, C / groups, ...]
    space = tuple(range(2, x.dim()))
    dims = {"batch": (0, *space), "example": (1, *space), "pixel": (1,), "channel": space, "group": space}[where]
    mean = x.mean(dims, keepdim=True)
    var = (x - mean).square().mean(dims, keepdim=True)
    y = form(x, mean, var, options.get("eps", 1e-5))
    return y.flatten(1, 2) if where == "group" else y


def switch(x: Tensor, norm: Any, options: Options, kept: Kept) -> Tensor:
    """(x - mean) / sqrt(var + eps), sums over instance, layer and batch by their shares exp(l) / sum exp(l)."""
    values = x.flatten(2) if x.dim() > 2 else x.unsqueeze(2)  # [N, C, positions]
    dims = {0: (2,), 1: (1, 2), 2: (0, 2)}
    used = [k for k in dims if x.dim() > 2 or k > 0]  # one value per unit is no instance
    means = {k: values.mean(dims[k], keepdim=True) for k in used}
    variances = {k: values.square().mean(dims[k], keepdim=True) - means[k].square() for k in used}
    if kept is not None:
        means[2], variances[2] = (tensor.view(1, -1, 1) for tensor in kept)
    mean, var = torch.zeros_like(values), torch.zeros_like(values)
    for k in used:
        mean = mean + norm.mean_logits[k].exp() / norm.mean_logits[used].exp().sum() * means[k]
        var = var + norm.var_logits[k].exp() / norm.var_logits[used].exp().sum() * variances[k]
    return ((values - mean) / (var + options["eps"]).sqrt()).view_as(x)


def of_its_own(linear: Any, options: Options) -> Tensor:
    return linear.weight


def length_and_direction(linear: Any, options: Options) -> Tensor:
    """w = g v / |v|, for each unit."""
    g, v = linear.parametrizations.weight.original0, linear.parametrizations.weight.original1
    return g * v / v.flatten(1).square().sum(1).sqrt().view_as(g)


def centred_and_scaled(linear: Any, options: Options) -> Tensor:
    """w = g gain (v - mean(v)) / |v - mean(v)|: sigma sqrt(fan_in) is the length of v - mean(v)."""
    g, v = linear.parametrizations.weight.original0, linear.parametrizations.weight.original1
    centred = v - v.flatten(1).mean(1).view_as(g)
    return options["gain"] * g * centred / centred.flatten(1).square().sum(1).sqrt().view_as(g)


def selu(x: Tensor) -> Tensor:
    alpha, scale = 1.6732632423543772, 1.0507009873554805  # Klambauer et al. 2017, section 2
    return scale * torch.where(x > 0, x, alpha * (x.exp() - 1))


def torch_layer_norm(x: Tensor, options: Options) -> Tensor:
    """torch's LayerNorm over everything but the examples; it has no form with one gain per channel."""
    return F.layer_norm(x, x.shape[1:], eps=options["eps"])


def torch_layer_norm_of_pixels(x: Tensor, options: Options) -> Tensor:
    return F.layer_norm(x.movedim(1, -1), x.shape[1:2], eps=options["eps"]).movedim(-1, 1)  # [N, C, H, W]


def torch_batch_norm(x: Tensor, options: Options) -> Tensor:
    return F.batch_norm(x, None, None, training=True, eps=options["eps"])


def torch_group_norm(x: Tensor, options: Options) -> Tensor:
    of_size = options.get("channels_per_group")
    return F.group_norm(x, x.shape[1] // of_size if of_size else options["groups"], eps=options["eps"])


@dataclass(frozen=True)
class Definition:
    """What is expected of a scheme.

    Args:
        weight: (linear layer, options) -> the weight that it works with.
        form: what is done with mean and variance, None for nothing ...
        where: ... of which values, in training.
        keeps: running "mean", running "mean and variance", or "" for no statistics: evaluation then is as training.
        noisy: training is shaken by noise, so that evaluation alone has a closed form.
        bend: instead of `form`, of a norm with parameters of its own: (x, norm, options, running mean and variance in
            evaluation) -> what gamma scales and beta shifts.
        activation: that the scheme brings.
        torch: the same as `form`, from torch.
        torch_weight: the same as `weight`, from torch.
        folds: "yes", "no", or "nothing" where there is nothing to fold.
        unmoved: for each of COLUMNS, does a dense layer not notice it? "-": the scheme is not for dense layers.
        unmoved_conv: the same of a convolution, where it is another.
    """

    weight: Callable[[Any, Options], Tensor] = of_its_own
    form: Form | None = None
    where: str = "batch"
    keeps: str = ""
    noisy: bool = False
    bend: Callable[[Tensor, Any, Options, Kept], Tensor] | None = None
    activation: Callable[[Tensor], Tensor] | None = None
    torch: Callable[[Tensor, Options], Tensor] | None = None
    torch_weight: Callable[[Any], Tensor] | None = None
    folds: str = "no"
    unmoved: str = "no no no no no no"
    unmoved_conv: str | None = None

    @property
    def mixes(self) -> bool:
        """Does training let the examples of a batch depend on one another?"""
        return self.form is not None and self.where in ("batch", "ghost batch")

    def unmoved_in(self, place: str) -> set[str]:
        """Those of COLUMNS that a layer does not notice; `place` is "dense" or "convolution"."""
        answers = (place == "convolution" and self.unmoved_conv) or self.unmoved
        return {column for column, answer in zip(COLUMNS, answers.split(), strict=False) if answer == "yes"}

    def linear(self, linear: Any, x: Tensor, options: Options) -> Tensor:
        weight, bias = self.weight(linear, options), linear.bias
        return F.linear(x, weight, bias) if x.dim() == 2 else F.conv2d(x, weight, bias)

    def normalised(self, z: Tensor, norm: Any, options: Options) -> Tensor:
        """Of z [N, C, ...] in training, before gamma and beta."""
        if self.bend is not None:
            return self.bend(z, norm, options, None)
        return z if self.form is None else over(z, self.where, options, self.form)

    def evaluated(self, z: Tensor, norm: Any, options: Options) -> Tensor:
        """Of z [N, C, ...] in evaluation."""
        if not self.keeps or self.form is None:
            return self.normalised(z, norm, options)
        if self.bend is not None:
            return self.bend(z, norm, options, (norm.running_mean, norm.running_var))
        shape = (1, -1, *[1] * (z.dim() - 2))
        var = norm.running_var.view(shape) if self.keeps == "mean and variance" else torch.ones_like(z)
        return self.form(z, norm.running_mean.view(shape), var, options.get("eps", 1e-5))

    def finished(self, y: Tensor, norm: Any) -> Tensor:
        """gamma y + beta, and the activation."""
        shape = (1, -1, *[1] * (y.dim() - 2))
        for name, join in (("weight", torch.mul), ("bias", torch.add)):
            if getattr(norm, name, None) is not None:
                y = join(y, getattr(norm, name).view(shape))
        return y if self.activation is None else self.activation(y)


_BATCH: dict[str, Any] = {
    "form": standardise, "keeps": "mean and variance", "folds": "yes", "unmoved": "yes no yes yes yes no",
}  # fmt: skip
_LAYER: dict[str, Any] = {"form": standardise, "unmoved": "yes yes no yes no yes"}
# A shift of all kernels by one moves all channels alike, but each position differently: where one mean is taken over
# positions, the "yes" for a shifted matrix holds for dense layers alone.
_LAYER_CONV = "yes no no yes no yes"
DEFINITIONS = {
    "none": Definition(folds="nothing"),
    "selu": Definition(folds="nothing", activation=selu),
    "batch": Definition(**_BATCH, torch=torch_batch_norm),
    "ghost_batch": Definition(**_BATCH, where="ghost batch"),
    "batch_renorm": Definition(**_BATCH),  # before its corrections start
    "noisy_batch": Definition(**_BATCH, noisy=True),
    "variance_only": Definition(**_BATCH | {"form": scale, "unmoved": "yes no yes yes no no"}),
    "mean_only": Definition(form=centre, keeps="mean", folds="yes", unmoved="no no no no yes no"),
    "layer": Definition(**_LAYER, where="example", unmoved_conv=_LAYER_CONV, torch=torch_layer_norm),
    "group": Definition(**_LAYER, where="group", unmoved_conv=_LAYER_CONV, torch=torch_group_norm),
    "layer2d": Definition(**_LAYER, where="pixel", torch=torch_layer_norm_of_pixels),
    "instance": Definition(
        form=standardise, where="channel", unmoved="-", unmoved_conv="yes no yes yes yes yes",
        torch=lambda x, o: F.instance_norm(x, eps=o["eps"]),
    ),
    "rms": Definition(
        form=divide_by_rms, where="example", unmoved="yes no no yes no yes",
        torch=lambda x, o: F.rms_norm(x, x.shape[1:], eps=o["eps"]),
    ),
    "switchable": Definition(**_BATCH | {"folds": "no", "unmoved": "yes no no yes no no"}, bend=switch),
    "dynamic_tanh": Definition(bend=lambda z, norm, *_: torch.tanh(norm.alpha * z)),
    # erf(u) = 2 Phi(sqrt(2) u) - 1, with Phi the standard normal distribution function
    "dynamic_erf": Definition(bend=lambda z, n, *_: 2 * torch.special.ndtr((n.alpha * z + n.shift) * 2**0.5) - 1),
    "weight": Definition(
        weight=length_and_direction, folds="yes", unmoved="yes no yes no no no",
        torch_weight=lambda linear: torch._weight_norm(
            linear.parametrizations.weight.original1, linear.parametrizations.weight.original0, 0
        ),
    ),
    "weight_mean_only": Definition(
        weight=length_and_direction, form=centre, keeps="mean", folds="yes", unmoved="yes no yes no yes no",
    ),
    "weight_standardization": Definition(weight=centred_and_scaled, folds="yes", unmoved="yes no yes no no no"),
}  # fmt: skip
