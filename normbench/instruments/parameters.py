"""What a network has learned, layer by layer: gains, biases, lengths of weights; and what its norms remember."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from normbench.instruments.instrument import Instrument, Row
from normbench.instruments.probe import Probe, ascending
from normbench.instruments.weights import inside, weights
from normbench.norms import blocks, preserve_state
from normbench.training.loop import Step

QUANTILES = {"min": 0.0, "q25": 0.25, "median": 0.5, "q75": 0.75, "max": 1.0}


class Parameters(Instrument):
    """Of each parameter of each block, over its units: count, mean and quantiles. The column `tensor` says of what:

        w, v                        |w_j|, |v_j|: the norm of each row, of the effective weight w = g v / |v| and of v
        g, gamma, beta, bias        the values
        running_mean, running_var   the values; of statistics per time step, those of all steps

    gamma and beta are the parameters `weight` and `bias` of a norm; others have their own names, as "alpha". In a
    recurrent cell the place comes first: "hidden.w", "input_norm.gamma".
    """

    name = "parameters"
    columns: Sequence[str] = ("count", "mean", *QUANTILES)

    def measure(self, step: Step, model: nn.Module, probe: Probe) -> Iterator[Row]:
        with preserve_state(model):
            found = [(layer, name, values) for layer, block in blocks(model) for name, values in per_unit(block)]
            if not found:
                return
            alike = defaultdict(list)  # tensors of one length are summed up together
            for i, (_, _, values) in enumerate(found):
                alike[len(values)].append(i)
            numbers = torch.cat([summary(torch.stack([found[i][2] for i in its])) for its in alike.values()]).tolist()
        at = dict(zip((i for its in alike.values() for i in its), numbers, strict=True))
        for i, (layer, name, values) in enumerate(found):
            row: Row = {"layer": layer, "tensor": name, "count": len(values)}
            yield row | dict(zip(self.columns[1:], at[i], strict=True))


def per_unit(block: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """(name, values [units]) of all parameters and running statistics of a block."""
    for weight in weights(block):
        yield weight.name, rows(weight.effective())
        for symbol, parameter in weight.made_of.items():
            yield weight.named(symbol), rows(parameter) if symbol == "v" else parameter.flatten()
    for path, module, in_norm in inside(block):
        for name, parameter in module.named_parameters(recurse=False):
            if in_norm:
                yield path + {"weight": "gamma", "bias": "beta"}.get(name, name), parameter.flatten()
            elif parameter.dim() == 1:
                yield path + name, parameter
        for name in ("running_mean", "running_var"):
            statistic = getattr(module, name, None)
            if statistic is not None:
                yield path + name, statistic.flatten()


def rows(weight: Tensor) -> Tensor:
    """The norm of each row of a matrix or kernel."""
    return torch.linalg.vector_norm(weight.flatten(1), dim=1)


def summary(values: Tensor) -> Tensor:
    """Mean and quantiles (interpolated linearly) of each row [K, C] -> [K, 6], NaN where a value is NaN."""
    ordered = ascending(values).double()
    places = torch.tensor(list(QUANTILES.values()), dtype=torch.float64, device=values.device) * (values.shape[1] - 1)
    low, high = ordered[:, places.floor().long()], ordered[:, places.ceil().long()]
    between = torch.lerp(low, high, (places - places.floor()).expand_as(low))
    quantiles = torch.where(low == high, low, between)  # infinity is itself
    unknown = ordered[:, -1:].isnan()  # NaN sorts last
    return torch.cat((ordered.mean(1, keepdim=True), quantiles.masked_fill(unknown, torch.nan)), dim=1)
