"""Claims that need no study: their numbers are calculated on the spot, in float64 unless they are times.

A new one is a function that returns numbers by name (a list where it was measured several times) and a line at the end.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from normbench.data import prepare
from normbench.data.synthetic import synthetic
from normbench.errors import UserError
from normbench.models import MLP
from normbench.norms import BatchNorm, LayerNorm, NormScheme, fold
from normbench.training.optimizers import make_optimizer, update_parameters
from normbench.verify.folding import compare_in, latencies, milliseconds_in_turns

Numbers = dict[str, float | list[float]]
REPEATS, ROUNDS = 5, 60  # of a time; turns of each update in one


def calculate(name: str) -> Numbers:
    """The numbers of a calculation, from the same random numbers each time. Raises UserError."""
    if name not in CALCULATIONS:
        raise UserError(f"there is no calculation {name}. There are: {', '.join(CALCULATIONS)}.")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as runs do by default
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return CALCULATIONS[name]()
    finally:
        torch.set_num_threads(threads)


def ln_ignores_batch() -> Numbers:
    """The largest change of the outputs for four images when the other sixty of their batch are replaced.

    By layer and by batch norm in training, and by batch norm in evaluation; outputs are of the order of 1.
    """

    def change(norm: Any, training: bool = True) -> float:
        net = _network(norm).double().train(training)
        images, others = torch.randn(2, 64, 1, 8, 8, dtype=torch.float64)
        mixed = torch.cat([images[:4], others[4:]])
        return (net(images)[:4] - net(mixed)[:4]).abs().max().item()

    return {
        "layer": change(LayerNorm),
        "batch_in_training": change(BatchNorm),
        "batch_in_inference": change(BatchNorm, training=False),
    }


def bias_is_useless() -> Numbers:
    """What a bias does in front of batch norm: its largest gradient, and the change of the output when 5 is added.

    Beside them the same without a norm.
    """
    numbers: Numbers = {}
    for norm, name in ((BatchNorm(30), ""), (nn.Identity(), "_without_norm")):
        linear = nn.Linear(20, 30)
        net = nn.Sequential(linear, norm, nn.ReLU(), nn.Linear(30, 5)).double()
        x, y = torch.randn(64, 20, dtype=torch.float64), torch.arange(64) % 5
        before = net(x)
        [gradient] = torch.autograd.grad(nn.functional.cross_entropy(before, y), linear.bias, retain_graph=True)
        with torch.no_grad():
            linear.bias.add_(5)
            change = net(x) - before
        numbers |= {f"gradient{name}": gradient.abs().max().item(), f"change{name}": change.abs().max().item()}
    return numbers


def folds() -> Numbers:
    """A network with batch norm, trained for 200 steps on made-up images, and the same with its norms folded away.

    The largest difference of two logits in float64, the share of images with the same class, and how many times as
    fast it is at batch 1 (medians of turns that alternate between the two), measured five times.
    """
    data = prepare(synthetic(Path()), name="synthetic", validation=100)
    net = _network(BatchNorm, data.shape).train()
    optimizer = torch.optim.Adam(net.parameters())
    for _ in range(200):
        images, labels = data.train.batch(torch.randint(len(data.train), (64,)))
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(images), labels).backward()
        optimizer.step()
    found = compare_in("float64", net, data.test)
    folded = fold(net.eval())[0]
    times = [latencies(net, folded, data.test, sizes=(1,))[0] for _ in range(REPEATS)]
    return {
        "logit_difference": found.difference,
        "same_class": 1 - len(found.changed) / found.images,
        "times_as_fast": [time.before / time.after for time in times],
    }


def step_times() -> Numbers:
    """How many times as long as without a norm an update takes with batch and with layer norm, measured five times.

    With 64 images: medians of the CPU time of turns that alternate between the three.
    """
    times = _times_in_turns([_update(norm) for norm in (None, BatchNorm, LayerNorm)], 64, ROUNDS)
    return {"batch": [batch / none for none, batch, _ in times], "layer": [layer / none for none, _, layer in times]}


def throughput() -> Numbers:
    """How many times as many images per second of training at batch size 2,048 as at 64, measured five times.

    Without a norm: medians of the CPU time of turns that alternate between the two.
    """
    large, small = _update(None), _update(None)
    times = _times_in_turns([large, lambda images: small(images[:64])], 2048, ROUNDS // 3)
    return {"at_2048": [2048 / 64 * at_64 / at_2048 for at_2048, at_64 in times]}


def _times_in_turns(updates: list[Callable[[Tensor], None]], batch_size: int, rounds: int) -> list[list[float]]:
    images = torch.randn(batch_size, 1, 28, 28)
    return [milliseconds_in_turns(updates, images, rounds, time.process_time) for _ in range(REPEATS)]


def _update(norm: Any) -> Callable[[Tensor], None]:
    """One update, as runs train, of an MLP of 3 x 100 units with Adam, on images of 28 x 28."""
    net = MLP(NormScheme(norm=norm), (1, 28, 28), 10, hidden=[100, 100, 100]).train()
    optimizer, labels = make_optimizer("adam", net, lr=0.001), torch.arange(2048) % 10

    def update(images: Tensor) -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(images), labels[: len(images)]).backward()
        update_parameters(optimizer)

    return update


def _network(norm: Any, shape: tuple[int, int, int] = (1, 8, 8)) -> Any:
    return MLP(NormScheme(norm=norm), shape, 10, hidden=[100, 100, 100])


CALCULATIONS: dict[str, Callable[[], Numbers]] = {
    "ln_ignores_batch": ln_ignores_batch,
    "bias_is_useless": bias_is_useless,
    "folds": folds,
    "step_times": step_times,
    "throughput": throughput,
}
