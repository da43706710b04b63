"""One update of many networks at once: torch's optimizers over tensors [K, ...], each network with its own options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn, optim

AVERAGES: dict[type[optim.Optimizer], tuple[str, ...]] = {
    optim.SGD: ("momentum_buffer",),
    optim.Adam: ("exp_avg", "exp_avg_sq"),
    optim.AdamW: ("exp_avg", "exp_avg_sq"),
    optim.RMSprop: ("square_avg",),
}  # what each keeps per parameter, besides a count of its steps


class StackedOptimizer:
    """What `optimizers[k].step()` does to the parameters of network k, for all K of them in the same few operations.

    The state is stacked, too, and becomes that of `optimizers`: each network's own optimizer holds views `state[k]`, so
    its `state_dict()` is at any time what it would be alone.

    Args:
        parameters: by name, [K, ...]; the memory of each network's own parameters.
        models, optimizers: of the K networks, as `make_optimizer` makes them: of one kind, after equally many steps.
    """

    def __init__(
        self,
        parameters: Mapping[str, Tensor],
        models: Sequence[nn.Module],
        optimizers: Sequence[optim.Optimizer],
    ) -> None:
        self.kind, self.parameters = type(optimizers[0]), list(parameters.values())
        self.options = optimizers[0].param_groups[0]  # those that all of them share
        groups = [{p: group for group in one.param_groups for p in group["params"]} for one in optimizers]
        own = [dict(model.named_parameters()) for model in models]
        self.averages: list[list[Tensor]] = []  # for each of AVERAGES, of each parameter [K, ...]
        self.counts: list[Tensor] = []  # of steps, for each parameter [K]
        self.decay: list[Tensor | None] = []  # of each parameter [K, 1, ...]; None: of no network
        self.momentum: list[Tensor] = []  # of each parameter [K, 1, ...]
        keys = AVERAGES[self.kind]
        if self.kind is optim.SGD and not any(one.defaults["momentum"] for one in optimizers):
            keys = ()
        states: dict[str, list[Tensor]] = {key: [] for key in keys}
        if self.kind is not optim.SGD:
            states["step"] = []
        for name, stacked in parameters.items():
            mine = [(one, group[p]) for one, group, p in zip(optimizers, groups, (o[name] for o in own), strict=True)]
            decays = [group["weight_decay"] for _, group in mine]
            self.decay.append(_over_networks(decays, stacked) if any(decays) else None)
            self.momentum.append(_over_networks([group.get("momentum", 0.0) for _, group in mine], stacked))
            for key, tensors in states.items():
                zero = stacked.new_zeros((), dtype=torch.float32) if key == "step" else torch.zeros_like(stacked[0])
                kept = [one.state[network[name]].get(key) for one, network in zip(optimizers, own, strict=True)]
                tensors.append(torch.stack([zero if value is None else value.to(zero.device) for value in kept]))
                for one, network, view in zip(optimizers, own, tensors[-1], strict=True):
                    one.state[network[name]][key] = view
        self.counts = states.pop("step", [])
        self.averages = list(states.values())

    @property
    def tensors(self) -> list[Tensor]:
        """All that `step` changes, besides the parameters."""
        return [*self.counts, *(average for averages in self.averages for average in averages)]

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor | None], lr: Tensor) -> None:
        """Change the parameters by these gradients; one without a gradient stays as it is.

        Args:
            lr: of each network [K], float64.
        """
        used = [i for i, gradient in enumerate(gradients) if gradient is not None]
        p, g = [self.parameters[i] for i in used], [gradient for gradient in gradients if gradient is not None]
        decay, averages = [self.decay[i] for i in used], [[a[i] for i in used] for a in self.averages]
        if self.kind is optim.AdamW:
            for weights, d in zip(p, decay, strict=True):
                if d is not None:
                    weights.mul_(1 - (_shaped(lr, weights) * d).to(weights.dtype))
        else:
            g = [one if d is None else torch.addcmul(one, weights, d.to(one.dtype))
                 for one, weights, d in zip(g, p, decay, strict=True)]  # fmt: skip
        if self.kind is optim.SGD:
            if averages:
                (buffers,) = averages
                factors = [self.momentum[i].to(b.dtype) for i, b in zip(used, buffers, strict=True)]
                for buffer, factor, one in zip(buffers, factors, g, strict=True):
                    buffer.mul_(factor).add_(one)
                nesterov = self.options["nesterov"]
                g = [torch.addcmul(one, b, f) if nesterov else b for one, b, f in zip(g, buffers, factors, strict=True)]
        else:
            torch._foreach_add_([self.counts[i] for i in used], 1)
            squares = averages[-1]
            beta = self.options["alpha"] if self.kind is optim.RMSprop else self.options["betas"][1]
            torch._foreach_mul_(squares, beta)
            torch._foreach_addcmul_(squares, g, g, 1 - beta)
            lengths = list(torch._foreach_sqrt(squares))
            if self.kind is optim.RMSprop:
                torch._foreach_add_(lengths, self.options["eps"])
            else:
                # m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps), with r = sqrt(1 - b2^t): r m / (sqrt(v) + r eps)
                first, steps = self.options["betas"][0], self.counts[used[0]].double()
                root = (1 - beta**steps).sqrt()
                torch._foreach_lerp_(averages[0], g, 1 - first)
                for length in lengths:  # not _foreach_add_, which would wait for the device to see the number
                    length.add_(root[0] * self.options["eps"])
                g, lr = averages[0], lr * root / (1 - first**steps)
            g = list(torch._foreach_div(g, lengths))
        for weights, one in zip(p, g, strict=True):
            weights.addcmul_(one, _shaped(lr, weights).to(weights.dtype), value=-1)


def _shaped(numbers: Tensor, like: Tensor) -> Tensor:
    """[K] -> [K, 1, ...], to be multiplied with [K, ...]."""
    return numbers.view(-1, *[1] * (like.dim() - 1))


def _over_networks(numbers: Sequence[float], like: Tensor) -> Tensor:
    return _shaped(torch.tensor(numbers, dtype=torch.float64, device=like.device), like)
