"""Milliseconds per training step: normbench beside a plain PyTorch loop over the same network with torch's own norms.

Both run in this process, in turns, several times; what counts is their ratio, since the machine is rarely quiet.
Goal at batch 4 and 64: at most 1.23 and 1.08 without a norm, 1.32 and 1.13 for batch norm, 1.26 and 1.10 for layer
norm.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from normbench import seeding
from normbench.experiment import build, compose, load_dataset
from normbench.training.loop import mini_batches, steps
from normbench.training.optimizers import make_optimizer

PLAIN: dict[str, Callable[[int, int], list[nn.Module]]] = {
    "none": lambda a, b: [nn.Linear(a, b), nn.ReLU()],
    "batch": lambda a, b: [nn.Linear(a, b, bias=False), nn.BatchNorm1d(b), nn.ReLU()],
    "layer": lambda a, b: [nn.Linear(a, b, bias=False), nn.LayerNorm(b), nn.ReLU()],
    "weight": lambda a, b: [weight_norm(nn.Linear(a, b)), nn.ReLU()],
    "selu": lambda a, b: [nn.Linear(a, b), nn.SELU()],
}


def ours(norm: str, batch_size: int) -> Iterator[object]:
    """Steps of the default MLP on made-up images, through the library's own loop."""
    words = [f"norm={norm}", "dataset=synthetic", "dataset.examples=4000", f"batch_size={batch_size}"]
    config = compose(words).config
    parts = build(config)
    data = load_dataset(config, parts).train
    model = parts.model(parts.scheme, (1, 28, 28), 10).to(config["device"])
    batches = mini_batches(data, batch_size, lambda epoch: seeding.order(0, epoch, len(data)), 0, 10**9)
    return steps(model, batches, make_optimizer("adam", model, lr=0.001))


def plain(norm: str, batch_size: int) -> Iterator[object]:
    """The same, written as in a tutorial, with the images as one float tensor."""
    images, labels = torch.randn(3200, 784), torch.randint(0, 10, (3200,))
    widths = [784, 100, 100, 100]
    layers = [layer for a, b in pairwise(widths) for layer in PLAIN[norm](a, b)]
    model = nn.Sequential(*layers, nn.Linear(100, 10)).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.001, fused=True)
    while True:
        for chosen in torch.randperm(len(images)).split(batch_size):
            loss = F.cross_entropy(model(images[chosen]), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            yield loss


def milliseconds(loop: Iterator[object], count: int) -> float:
    start = time.perf_counter()
    for _ in range(count):
        next(loop)
    return 1000 * (time.perf_counter() - start) / count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300, help="per turn")
    parser.add_argument("--turns", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("norm    batch size  normbench ms  plain ms  ratio (median of turns, lowest to highest)")
    for norm in PLAIN:
        for batch_size in (4, 64):
            loops = ours(norm, batch_size), plain(norm, batch_size)
            for loop in loops:
                milliseconds(loop, 50)  # warm up
            turns = [[milliseconds(loop, options.steps) for loop in loops] for _ in range(options.turns)]
            a, b = (statistics.median(column) for column in zip(*turns, strict=True))
            ratios = sorted(x / y for x, y in turns)
            middle = statistics.median(ratios)
            print(f"{norm:7} {batch_size:10}  {a:12.3f}  {b:8.3f}  {middle:.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})")


if __name__ == "__main__":
    main()
