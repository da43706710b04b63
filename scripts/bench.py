"""How fast normbench is, beside what one would write without it. About a quarter of an hour on two quiet cores.

    steps    a training step: ours; a bare loop over images in memory; a loop with PyTorch's DataLoader; Lightning with
             that DataLoader; and the limit: its matrix products or convolutions alone, forward and backward.
             On CUDA also a network as a CUDA graph, and each of those in a stack
    runs     whole runs of 60,000 images, with evaluations, instruments and files
    starts   from a command to the end of a first step, and what two cores make of a sweep
    schemes  in inference, folded and not, and the memory that a training step keeps, of every scheme
    sweep    if asked for: a sweep here and in another checkout (--against), or on the GPU and on two cores

The contenders of a setting take turns in one process, on one thread, on images that are made up. Numbers are medians of
turns, in brackets the lowest and the highest; what counts are ratios, since a machine is rarely quiet. Milliseconds
of a step on a CPU are processor time.
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import logging
import os
import shlex
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import pandas as pd
import torch
import torch.nn.functional as F
from matplotlib.lines import Line2D
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from normbench import seeding
from normbench.analysis.tables import line
from normbench.commands import console
from normbench.config.options import choices
from normbench.data import Dataset
from normbench.errors import Unsupported
from normbench.experiment import (
    Parts,
    batches,
    build,
    check_supported,
    compose,
    execute,
    load_dataset,
    new_model,
)
from normbench.norms import Unfoldable, fold
from normbench.plots.drawing import finish, legend, look, panels, plain_ticks
from normbench.plots.palette import Style
from normbench.training.device import calculate_exactly, device_name, resolve_device
from normbench.training.loop import Update, steps
from normbench.training.optimizers import make_optimizer
from normbench.training.provenance import provenance
from normbench.verify.folding import latencies

PARTS = ("steps", "runs", "starts", "schemes")
MODELS, NORMS, BATCHES = ("mlp", "cnn", "rnn"), ("none", "batch", "layer"), (4, 64, 128, 1024)
STACKS = (1, 16, 32, 64, 256)  # on CUDA, as far as their images fit
IMAGES_OF_A_STACK = {"mlp": 2**18, "cnn": 2**13, "rnn": 2**15}  # of one step, at most
EXAMPLES = 20_000
RUNS = (("mlp", "none", 64), ("mlp", "batch", 64), ("mlp", "batch", 4), ("rnn", "layer", 64), ("cnn", "batch", 64))
TURNS, FEWEST = 7, 3
FOREVER = 10**9
Timer = Callable[[int], float]  # how many steps -> milliseconds of each
Row = dict[str, str | float]

OVER_OURS = ("DataLoader", "Lightning", "limit")  # contenders whose ratio is theirs over ours, not ours over theirs
TITLES = {
    "steps": "Training steps: ours, and how many times as long; of a stack, for each of its networks",
    "milliseconds": "Training steps, milliseconds",
    "runs": "Whole runs, seconds; share: evaluating and measuring over training",
    "starts": "Starts and sweeps, seconds",
    "schemes": "Inference and memory, how many times that of norm=none",
    "sweep": "A sweep, seconds",
}
# part, model, norm, batch size, what, whether it must be at most or at least this
GOALS: list[tuple[str, str, str, str, str, str, float]] = [
    *(("steps", "mlp", norm, size, "ours over bare loop", "most", goal)
      for norm, *goals in (("none", 1.10, 1.03), ("batch", 1.15, 1.06), ("layer", 1.15, 1.06))
      for size, goal in zip(("4", "64"), goals, strict=True)),
    *(("steps", "mlp", norm, size, "Lightning over ours", "least", goal)
      for norm in ("none", "batch") for size, goal in (("4", 4.0), ("128", 7.0))),
    ("steps", "mlp", "none", "128", "limit over ours", "least", 0.7),
    ("steps", "mlp", "none", "1024", "limit over ours", "least", 0.85),
    ("steps", "mlp", "none", "4", "ours over graph", "least", 6.0),
    *(("steps", model, norm, "64", f"ours over stack of {k}", "least", goal)
      for norm in NORMS for model, k, goal in (("mlp", 64, 100.0), ("rnn", 32, 30.0), ("cnn", 32, 6.0))),
    *(("runs", model, norm, "64", "share", "most", 0.3) for model, norm in (("mlp", "batch"), ("cnn", "batch"))),
    ("starts", "", "", "", "a run of one step over import torch", "most", 1.3),
    ("starts", "", "", "", "each further cell of one step", "most", 0.05),
    ("starts", "", "", "", "one core over two", "least", 1.8),
    ("sweep", "", "", "", "the older checkout over this one", "least", 2.0),
    ("sweep", "", "", "", "on the GPU", "most", 40.0),
    ("sweep", "", "", "", "two CPU cores over the GPU", "least", 8.0),
]  # fmt: skip


@dataclass(frozen=True)
class Setting:
    model: str
    norm: str
    batch_size: int
    device: str

    @property
    def words(self) -> tuple[str, ...]:
        return (f"model={self.model}", f"norm={self.norm}", f"batch_size={self.batch_size}", f"device={self.device}",
                "dataset=synthetic", f"dataset.examples={EXAMPLES}", "lr=0.0001")  # fmt: skip


@cache
def parts_of(words: tuple[str, ...]) -> tuple[dict[str, Any], Parts, Dataset]:
    config = compose(words).config
    parts = build(config)
    return config, parts, load_dataset(config, parts)


# ---- contenders


def ours(setting: Setting) -> Iterator[object]:
    """Steps through the library's own loop."""
    config, parts, data = parts_of(setting.words)
    model = new_model(config, parts, data)
    optimizer = make_optimizer(config["optimizer"], model, lr=config["lr"])
    return steps(model, batches(config, data, 0, FOREVER), optimizer)


def stacked(setting: Setting, members: int) -> Timer:
    """A step of each network, of so many that train as one program."""
    from normbench.training.stack import LONGEST, Member, Stack

    config, parts, data = parts_of(setting.words)

    def member(seed: int) -> Member:
        model = new_model({**config, "seed": seed}, parts, data)
        optimizer = make_optimizer(config["optimizer"], model, lr=config["lr"])
        order = lambda epoch: seeding.order(seed, epoch, len(data.train)).to(setting.device)  # noqa: E731
        return Member(model, optimizer, Update(), data.train, order)

    stack = Stack([member(seed) for seed in range(members)], setting.batch_size, 0)

    def measure(count: int) -> float:
        whole, rest = divmod(count, LONGEST)
        start = now(setting.device)
        for updates in [LONGEST] * whole + [rest] * (rest > 0):
            stack.advance(updates)
        return 1000 * (now(setting.device) - start) / count / members

    return measure


def bare(setting: Setting) -> Iterator[object]:
    """As in a tutorial, with the images as one float tensor in memory."""
    (images, labels), (model, optimizer) = images_of(setting), plain(setting)
    inputs = parts_of(setting.words)[2].train.scaled(images)
    while True:
        order = torch.randperm(len(inputs), device=inputs.device).split(setting.batch_size)
        for chosen in order[: len(inputs) // setting.batch_size]:
            yield update(model, optimizer, inputs[chosen], labels[chosen])


def by_loader(setting: Setting) -> Iterator[object]:
    (model, optimizer), loader = plain(setting), data_loader(setting)
    while True:
        for x, y in loader:
            yield update(model, optimizer, x.to(setting.device), y.to(setting.device))


def by_lightning(setting: Setting) -> Timer | None:
    """None where Lightning is not installed."""
    try:
        lightning: Any = importlib.import_module("lightning")
    except ImportError:
        return None
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    model, optimizer = plain(setting)

    class Module(lightning.LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.network = model

        def training_step(self, batch: list[Tensor], index: int) -> Tensor:
            return F.cross_entropy(self.network(batch[0]), batch[1])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return optimizer

    class Watch(lightning.Callback):  # type: ignore[misc]
        """The time after the first step and after the last: what comes before and after is no step."""

        def __init__(self, last: int) -> None:
            self.last = last
            self.times: list[float] = []

        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            if trainer.global_step in (1, self.last):
                self.times.append(now(setting.device))

    loader = data_loader(setting)

    def measure(count: int) -> float:
        watch = Watch(count + 1)
        with warnings.catch_warnings(action="ignore"):
            trainer = lightning.Trainer(
                max_steps=count + 1, max_epochs=-1, accelerator=setting.device.split(":")[0], devices=1, logger=False,
                enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, callbacks=[watch],
            )  # fmt: skip
            trainer.fit(Module(), loader)
        return 1000 * (watch.times[1] - watch.times[0]) / count

    return measure


@torch.no_grad()
def limit(setting: Setting) -> Iterator[object]:
    """The step's products alone."""
    shapes: list[tuple[nn.Module, Tensor, Tensor]] = []
    model = network(setting.model, "none").to(setting.device)
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.LSTM):
            module.register_forward_hook(lambda module, inputs, output: shapes.append((module, inputs[0], output)))
    model(parts_of(setting.words)[2].train.scaled(images_of(setting)[0][: setting.batch_size]))
    work = [product for i, shape in enumerate(shapes) for product in products(*shape, first=i == 0)]
    while True:
        for product in work:
            product()
        yield None


def products(module: Any, x: Tensor, y: Any, first: bool) -> list[Callable[[], object]]:
    """Of a layer: forward, the gradient of its weight and, but for the first layer, that of its input."""
    if isinstance(module, nn.Conv2d):
        up, asked = torch.randn_like(y), [not first, True, False]
        backward = torch.ops.aten.convolution_backward
        return [
            lambda: F.conv2d(x, module.weight, padding=1),
            lambda: backward(up, x, module.weight, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1, asked),
        ]
    if isinstance(module, nn.LSTM):  # x [T, N, inputs]; the product with W_x is one for all time steps
        w, w_x = cast(Tensor, module.weight_hh_l0), cast(Tensor, module.weight_ih_l0)
        h = torch.randn(*x.shape[:2], module.hidden_size, device=x.device)
        up = torch.randn(*x.shape[:2], len(w), device=x.device)
        return [
            *of_matrices(x.flatten(0, 1), w_x, up.flatten(0, 1), True),
            *(partial(torch.mm, h_t, w.T) for h_t in h),
            *(partial(torch.mm, up_t, w) for up_t in up),
            lambda: up.flatten(0, 1).T @ h.flatten(0, 1),
        ]
    return of_matrices(x, module.weight, torch.randn_like(y), first)


def of_matrices(x: Tensor, w: Tensor, up: Tensor, first: bool) -> list[Callable[[], object]]:
    return [partial(torch.mm, x, w.T), partial(torch.mm, up.T, x), *([] if first else [partial(torch.mm, up, w)])]


# ---- the network and its data without normbench


def network(model: str, norm: str) -> nn.Module:
    """The same as ours, of torch's own layers."""

    def block(layer: nn.Module, features: int) -> list[nn.Module]:
        image = isinstance(layer, nn.Conv2d)
        if norm == "weight":
            layer = weight_norm(layer)
        between: dict[str, Callable[[], nn.Module]] = {
            "batch": lambda: nn.BatchNorm2d(features) if image else nn.BatchNorm1d(features),
            "layer": lambda: nn.GroupNorm(1, features) if image else nn.LayerNorm(features),
        }
        return [layer, *([between[norm]()] if norm in between else []), nn.SELU() if norm == "selu" else nn.ReLU()]

    bias = norm not in ("batch", "layer")
    if model == "rnn":
        return LSTM(norm)
    if model == "mlp":
        layers = [layer for a, b in pairwise([784, 100, 100, 100]) for layer in block(nn.Linear(a, b, bias=bias), b)]
        return nn.Sequential(nn.Flatten(), *layers, nn.Linear(100, 10))
    layers = []
    for a, b in pairwise([1, 32, 64, 128]):
        layers += [*block(nn.Conv2d(a, b, 3, padding=1, bias=bias), b), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(128 * 3 * 3, 10))


class LSTM(nn.Module):
    """Over the rows of an image: torch's own, or with norms written out as in a tutorial."""

    def __init__(self, norm: str, units: int = 100) -> None:
        super().__init__()
        self.norm, self.output = norm, nn.Linear(units, 10)
        if norm == "none":
            self.lstm = nn.LSTM(28, units)
            return
        kind: Callable[[int], nn.Module] = {"layer": nn.LayerNorm, "batch": nn.BatchNorm1d}[norm]
        self.w_x, self.w_h = nn.Linear(28, 4 * units), nn.Linear(units, 4 * units, bias=False)
        self.norm_x, self.norm_h, self.norm_c = kind(4 * units), kind(4 * units), kind(units)

    def forward(self, images: Tensor) -> Tensor:
        rows = images.squeeze(1).transpose(0, 1)  # [N, 1, T, 28] -> [T, N, 28]
        if self.norm == "none":
            return self.output(self.lstm(rows)[0][-1])
        h = c = rows.new_zeros(rows.shape[1], self.output.in_features)
        for from_x in self.w_x(rows):
            i, f, g, o = (self.norm_x(from_x) + self.norm_h(self.w_h(h))).chunk(4, dim=1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * self.norm_c(c).tanh()
        return self.output(h)


def plain(setting: Setting) -> tuple[nn.Module, torch.optim.Optimizer]:
    model = network(setting.model, setting.norm).to(setting.device).train()
    return model, torch.optim.Adam(model.parameters(), lr=0.0001, fused=True)


def update(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor) -> Tensor:
    loss = F.cross_entropy(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss


def images_of(setting: Setting) -> tuple[Tensor, Tensor]:
    """Training images [M, C, H, W] in uint8, and their labels."""
    train = parts_of(setting.words)[2].train
    return train.images[train.index], train.labels[train.index]


class Images(TorchDataset[tuple[Tensor, Tensor]]):
    """Images in memory that are scaled one by one: less work than torchvision's data sets, which hand on PIL images."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images, self.labels = images.cpu(), labels.cpu()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.images[index].float().div(255).sub(0.5).div(0.3), self.labels[index]


def data_loader(setting: Setting) -> DataLoader[tuple[Tensor, Tensor]]:
    return DataLoader(Images(*images_of(setting)), setting.batch_size, shuffle=True, drop_last=True)


# ---- measuring


def now(device: str) -> float:
    """Seconds: of this process's own work on a CPU, which other programs disturb less; on a GPU, once it is done."""
    if device == "cpu":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


def timer(loop: Iterator[object], device: str) -> Timer:
    def measure(count: int) -> float:
        start = now(device)
        for _ in range(count):
            next(loop)
        return 1000 * (now(device) - start) / count

    return measure


def take_turns(timers: Mapping[str, Timer], seconds: float) -> pd.DataFrame:
    """Milliseconds of a step: a row per turn, a column per contender. Slow steps get fewer turns, of one step."""
    counts = {}
    for name, measure in timers.items():
        measure(1)  # warm up
        counts[name] = max(1, round(1000 * seconds / len(timers) / TURNS / measure(1)))
    turns = TURNS if min(counts.values()) > 1 else FEWEST
    return pd.DataFrame([{name: measure(counts[name]) for name, measure in timers.items()} for _ in range(turns)])


def row(part: str, what: str, values: Any, model: str = "", norm: str = "", batch_size: int | str = "") -> Row:
    """Median, lowest and highest of the values of several turns, or one value."""
    turns = pd.Series(values, dtype=float)
    return {"part": part, "model": model, "norm": norm, "batch_size": str(batch_size), "what": what,
            "median": turns.median(), "low": turns.min(), "high": turns.max()}  # fmt: skip


def measure_steps(settings: Sequence[Setting], seconds: float) -> Iterator[Row]:
    for setting in settings:
        device, key = setting.device, (setting.model, setting.norm, setting.batch_size)
        loops = {"ours": ours, "bare loop": bare, "DataLoader": by_loader, "limit": limit}
        timers = {name: timer(make(setting), device) for name, make in loops.items()}
        if device == "cpu":
            if (measure := by_lightning(setting)) is not None:
                timers["Lightning"] = measure
        else:  # without Lightning: where a fit ends it frees cuBLAS's workspaces, in which captured graphs calculate
            fit = [k for k in STACKS if k * setting.batch_size <= IMAGES_OF_A_STACK[setting.model]]
            timers |= {"graph" if k == 1 else f"stack of {k}": stacked(setting, k) for k in fit}
        turns = take_turns(timers, seconds / len(settings))
        yield row("steps", "our step, ms", turns["ours"], *key)
        for name in turns:
            yield row("milliseconds", name, turns[name], *key)
            if name in OVER_OURS:
                yield row("steps", f"{name} over ours", turns[name] / turns["ours"], *key)
            elif name != "ours":
                yield row("steps", f"ours over {name}", turns["ours"] / turns[name], *key)


def measure_runs(device: str, models: Sequence[str], images: int) -> Iterator[Row]:
    """Seconds of whole runs, and of each activity; images as in MNIST and, for the CNN, as in CIFAR-10."""
    for model, norm, batch_size in RUNS:
        if model not in models:
            continue
        with tempfile.TemporaryDirectory() as folder:
            words = [f"model={model}", f"norm={norm}", f"batch_size={batch_size}", f"max_samples={images}",
                     "dataset=synthetic", f"dataset.examples={images}", f"dataset.validation={images // 12}",
                     f"device={device}", f"results_dir={folder}"]  # fmt: skip
            run_config = compose(words + ["dataset.size=32", "dataset.channels=3"] * (model == "cnn"))
            load_dataset(run_config.config, build(run_config.config))  # made up, once
            start = time.perf_counter()
            seconds = execute(run_config).summary["seconds"]
            found = {"whole": time.perf_counter() - start, **seconds}
        found["share"] = (found["evaluating"] + found["measuring"]) / found["training"]
        for what, value in found.items():
            yield row("runs", what, value, model, norm, batch_size)


def seconds_of(*words: str, checkout: Path | None = None) -> float:
    """Of `python WORDS`, in a folder of its own."""
    environment = os.environ | {"PYTHONPATH": str(checkout or Path(__file__).resolve().parent.parent)}
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        done = subprocess.run([sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True)
        seconds = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(f"{shlex.join(words)}: exit code {done.returncode}\n{done.stderr[-2000:]}")
    return seconds


RUN = ("-m", "normbench", "run")
TINY = (*RUN, "dataset=synthetic", "dataset.examples=500", "dataset.validation=100", "instruments=none", "max_steps=1")
SWEEP = (*RUN, "-m", "dataset=synthetic", f"dataset.examples={EXAMPLES}", "dataset.validation=5000",
         "instruments=quick")  # fmt: skip


def measure_starts(device: str, turns: int, cells: int, images: int) -> Iterator[Row]:
    """Seconds of a process with a single run, of each cell of a sweep, and of a sweep on one core and on two."""

    def seeds(count: int) -> str:
        return "seed=" + ",".join(map(str, range(count)))

    commands: dict[str, Sequence[str]] = {"import torch": ("-c", "import torch")}
    commands["a run of one step"] = (*TINY, f"device={device}")
    for count in (1, cells):
        name = f"a sweep of {count}, of one step"
        commands[name] = (*TINY, "-m", f"device={device}", seeds(count), "jobs=1")
    if device == "cpu" and (os.cpu_count() or 1) > 1:
        for jobs in (1, 2):
            words = (*SWEEP, "device=cpu", f"max_samples={images}", seeds(2 * cells), f"jobs={jobs}")
            commands[f"a sweep of {2 * cells}, jobs={jobs}"] = words
    found = pd.DataFrame([{name: seconds_of(*words) for name, words in commands.items()} for _ in range(turns)])
    for name in found:
        yield row("starts", str(name), found[name])
    torch_alone, single, one, many, *both = (found[name] for name in found)
    yield row("starts", "a run of one step over import torch", single / torch_alone)
    yield row("starts", "each further cell of one step", (many - one) / (cells - 1))
    if both:
        yield row("starts", "one core over two", both[0] / both[1])


def measure_sweep(device: str, against: Path | None) -> Iterator[Row]:
    """MLPs of several schemes and lrs, here and in an older checkout; on a GPU, beside two CPU cores."""
    lrs = "lr=0.001,0.003,0.01,0.03"
    if device == "cpu":
        words = [*SWEEP, "device=cpu", "norm=none,batch,layer,weight", lrs, "seed=0,1", "max_samples=30000"]
        places = {"here": None} | ({} if against is None else {"in the older checkout": against.resolve()})
        turns = [{name: seconds_of(*words, checkout=place) for name, place in places.items()} for _ in range(FEWEST)]
        what = "the older checkout over this one"
    else:
        words = [*SWEEP, "norm=" + ",".join(choices("norm")), "max_samples=30000"]
        on_gpu = seconds_of(*words, lrs, "seed=0,1,2,3,4", f"device={device}")
        one_lr_and_seed = seconds_of(*words, "device=cpu", "jobs=2")
        turns = [{"on the GPU": on_gpu, "on two cores, 20 times a twentieth": 20 * one_lr_and_seed}]
        what = "two CPU cores over the GPU"
    here, *other = (row("sweep", name, [turn[name] for turn in turns]) for name in turns[0])
    yield from (here, *other)
    if other:
        first, second = turns[0]
        yield row("sweep", what, [turn[second] / turn[first] for turn in turns])


def measure_schemes(device: str, norms: Sequence[str], models: Sequence[str]) -> Iterator[Row]:
    """Latency of one image and of 256, folded and not, and the memory that a step keeps at batch 64, over none's."""
    for model in models:
        of_none: tuple[nn.Module, int] | None = None
        for norm in ("none", *(norm for norm in norms if norm != "none")):
            config, parts, data = parts_of(Setting(model, norm, 64, device).words)
            try:
                _, kept = check_supported(config, parts, data.shape, len(data.classes))
            except Unsupported:
                continue
            net = new_model(config, parts, data).eval()
            of_none = of_none or (net, kept)
            yield row("schemes", "memory", kept / of_none[1], model, norm)
            networks = {"": net}
            with suppress(Unfoldable):
                networks[", folded"] = fold(net)[0]
            for state, network in networks.items():
                for found in latencies(of_none[0], network, data.test, sizes=(1, 256)):
                    what = f"latency of {found.batch_size}{state}"
                    yield row("schemes", what, found.after / found.before, model, norm)


# ---- what is shown


def show(numbers: Mapping[str, float]) -> str:
    """1.08 (1.05 to 1.13)"""
    median, low, high = (f"{numbers[name]:.3g}" for name in ("median", "low", "high"))
    return median if low == high else f"{median} ({low} to {high})"


def table(found: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of a part: a row per setting and a column for everything that was measured in it."""
    keys = [key for key in ("model", "norm", "batch_size") if found[key].any()]
    if not keys:
        return ["what", ""], [[numbers["what"], show(numbers)] for _, numbers in found.iterrows()]
    whats, rows = list(dict.fromkeys(found["what"])), []
    for names, of_setting in found.groupby(keys, sort=False):
        shown = {numbers["what"]: show(numbers) for _, numbers in of_setting.iterrows()}
        rows.append([*names, *(shown.get(what, "-") for what in whats)])
    return [*keys, *whats], rows


def goals(found: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    """Those that were measured here."""
    numbers, rows = found.set_index(["part", "model", "norm", "batch_size", "what"]), []
    for *key, kind, goal in GOALS:
        if (place := tuple(key)) in numbers.index:
            here = numbers.loc[place]
            reached = here["median"] <= goal if kind == "most" else here["median"] >= goal
            what = " ".join(filter(None, key))
            rows.append([what, f"at {kind} {goal:g}", show(here), "yes" if reached else "no"])
    return ["what", "goal", "here", "reached"], rows


COLORS = {"limit": "#7F7F7F", "bare loop": "#000000", "DataLoader": "#E69F00", "Lightning": "#D55E00",
          "graph": "#56B4E9", "stack of 16": "#0072B2", "stack of 32": "#332288", "stack of 64": "#44AA99",
          "stack of 256": "#009E73"}  # fmt: skip
OURS = "#CC79A7"


def picture(found: pd.DataFrame, about: str) -> bytes:
    """PNG: how many times as long as ours, by batch size; lines are medians over schemes, dots are schemes."""
    wide = found.pivot_table("median", ["model", "norm", "batch_size"], "what", sort=False)
    wide = wide.div(wide["ours"], axis=0).reset_index()
    styles = {name: Style(COLORS[name], "", "--" if name == "limit" else "-") for name in COLORS if name in wide}
    models, sizes = list(dict.fromkeys(wide["model"])), sorted(set(wide["batch_size"]), key=int)
    with look():
        canvas, [axes] = panels(1, len(models), 2.6, 2.8, sharey=True)
        for ax, model in zip(axes, models, strict=True):
            rows = wide[wide["model"] == model]
            at = rows["batch_size"].map(sizes.index)
            for name, style in styles.items():
                middle = rows.groupby(at)[name].median()
                ax.plot(middle.index, middle, **style.drawn)
                ax.plot(at, rows[name], color=style.color, marker="o", markersize=2.5, linestyle="")
            ax.axhline(1, color=OURS, linewidth=1)
            ax.set(title=model, xlabel="batch size", yscale="log")
            ax.set_xticks(range(len(sizes)), sizes)
        axes[0].set_ylabel("times as long as our step")
        plain_ticks(axes[0].yaxis)
        legend(canvas, styles, [Line2D([], [], color=OURS, label="our step")])
        title = "A training step beside others (lines: medians over norms; dots: norms)"
        return finish("bench", title, "", canvas, synthetic=False, line=about).png


def about(device: str) -> str:
    """Machine, versions and date."""
    made = provenance()
    versions = {name: made["versions"][name] for name in ("python", "torch", "normbench")}
    with suppress(PackageNotFoundError):
        versions["lightning"] = version("lightning")
    machine = [made["machine"]["cpu"], f"{os.cpu_count()} cores", "one thread"]
    parts = machine if device == "cpu" else [device_name(device), *machine]
    parts += [f"{name} {number}" for name, number in versions.items()]
    return ", ".join([*parts, f"commit {made['git_commit'] or 'unknown':.12}", f"{datetime.now(UTC):%Y-%m-%d}"])


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default, what in (
        ("parts", PARTS, f"of {','.join([*PARTS, 'sweep'])}"), ("models", MODELS, ""),
        ("norms", NORMS, "of steps: also weight, selu"), ("batches", BATCHES, "sizes"),
    ):  # fmt: skip
        parser.add_argument(f"--{name}", type=lambda text: text.split(","), default=list(default), help=what)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--seconds", type=float, default=90, help="for steps, all settings together")
    parser.add_argument("--images", type=int, default=60_000, help="of a whole run")
    parser.add_argument("--against", type=Path, metavar="CHECKOUT", help="of sweep: an older one")
    parser.add_argument("--quick", action="store_true", help="does it work? few settings, few steps")
    parser.add_argument("--to", type=Path, metavar="DIR", default=Path("results/bench/report"))
    options = parser.parse_args(words)
    device, models, schemes, cells = resolve_device(options.device), options.models, list(choices("norm")), 24
    turns = 1 if options.quick else 2
    torch.set_num_threads(1)
    calculate_exactly()
    if options.quick:
        options.seconds, options.images, cells = 0.01, 2400, 2
        options.norms, options.batches = options.norms[:2], options.batches[:2]
        models, schemes = models[:1], options.norms
    settings = [Setting(*key, device) for key in itertools.product(models, options.norms, map(int, options.batches))]
    parts: dict[str, Callable[[], Iterator[Row]]] = {
        "steps": lambda: measure_steps(settings, options.seconds),
        "runs": lambda: measure_runs(device, models, options.images),
        "starts": lambda: measure_starts(device, turns, cells, options.images // 24),
        "schemes": lambda: measure_schemes(device, schemes, models),
        "sweep": lambda: measure_sweep(device, options.against),
    }
    command = shlex.join(["scripts/bench", *(sys.argv[1:] if words is None else words)])
    place, machine = options.to / device.split(":")[0], about(device)
    found: list[Row] = []
    for part in options.parts:  # a table as soon as it is measured: who stops a long bench keeps what it has
        found += (rows := list(parts[part]()))
        for title, (columns, cells_of) in tables_of(rows).items():
            console.say(f"\n{title}")
            console.print_table(columns, cells_of)
        write(place, command, machine, pd.DataFrame(found))
    console.say("\nGoals")
    console.print_table(*goals(pd.DataFrame(found)))
    console.say(f"\n{machine}\n{place}.md .csv .png")


def tables_of(rows: Sequence[Row]) -> dict[str, tuple[list[str], list[list[str]]]]:
    return {TITLES[str(part)]: table(own) for part, own in pd.DataFrame(rows).groupby("part", sort=False)}


def write(place: Path, command: str, machine: str, found: pd.DataFrame) -> None:
    """The tables as .md and .csv, and the picture of the steps."""
    page = ["# Bench", "", f"`{command}` on {machine}.", "", "```", (__doc__ or "").strip(), "```"]
    for title, (columns, rows) in (tables_of(found.to_dict("records")) | {"Goals": goals(found)}).items():
        page += ["", f"## {title}", "", line(columns), line(["---"] * len(columns)), *map(line, rows)]
    place.parent.mkdir(parents=True, exist_ok=True)
    place.with_suffix(".md").write_text("\n".join(page) + "\n", encoding="utf-8")
    found.to_csv(place.with_suffix(".csv"), index=False)
    if (of_steps := found[found["part"] == "milliseconds"]).size:
        place.with_suffix(".png").write_bytes(picture(of_steps, machine))


if __name__ == "__main__":
    main()
