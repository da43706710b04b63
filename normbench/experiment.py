"""A `RunConfig` becomes a finished run folder: the one place that knows data, training, instruments and files."""

from __future__ import annotations

import json
import logging
import math
import os
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from scipy.special import bdtrc
from torch import Tensor, nn

from normbench import seeding
from normbench.config import compose as composing
from normbench.config.compose import COMMON, Expanded
from normbench.config.run_config import RunConfig, command, data_may_change, has_own_code
from normbench.config.schema import check_layers
from normbench.data import DataError, Dataset, Source, default_data_dir, prepare
from normbench.errors import ConfigError, Stopped, Unsupported
from normbench.instruments import Instrument, Instruments, evenly_spaced
from normbench.models import initialize
from normbench.noise import Key, key_of, seed_noise
from normbench.norms import NormScheme, blocks, uses_batch
from normbench.norms.schemes import make_scheme
from normbench.runs import Damaged, Locked, Run, RunFolder, Unwritable, is_finished
from normbench.training.callbacks import (
    Callback,
    Checkpoint,
    Diverged,
    LearningCurve,
    Log,
    LossLog,
    OnProgress,
    ReportProgress,
    Stop,
    to_bytes,
)
from normbench.training.device import calculate_exactly, device_name, resolve_device
from normbench.training.evaluation import evaluate_with_kind, sample_batches
from normbench.training.loop import Batch, Step, Update, mini_batches, steps
from normbench.training.memory import saved_for_backward, size
from normbench.training.optimizers import first_lr, lr_by_step, make_optimizer
from normbench.training.perturbation import Perturbation, PerturbWeights
from normbench.training.provenance import provenance
from normbench.training.stack import LARGEST, LONGEST, Member, Stack, why_not_stacked

logger = logging.getLogger("normbench")
Ended = Callable[[RunConfig, Exception | None], None]

KEPT = 2  # data sets stay loaded for the next run in this process: a sweep has few, and each start checks all bytes
SMALL = 2**20  # bytes of a batch, and of a network's weights, so that a step takes a few milliseconds
LUCK = 0.00135  # an accuracy that is likelier than this without learning is at chance
_datasets: dict[str, Dataset] = {}


@dataclass(frozen=True)
class Parts:
    """The objects that a configuration names, built."""

    scheme: NormScheme
    model: Callable[[NormScheme, tuple[int, int, int], int], nn.Module]
    source: Callable[[Path], Source]
    instruments: list[Instrument]


def compose(words: Iterable[str]) -> RunConfig:
    """The run that `normbench run WORDS` would train on this machine. Raises ConfigError."""
    return composing.compose(words, resolve_device)


def expand(words: Iterable[str], *, launchers: bool = False) -> Expanded:
    """The runs that `words` stand for on this machine: one, or those of a sweep. As `config.compose.expand`."""
    return composing.expand(words, resolve_device, launchers=launchers)


def build(config: Mapping[str, Any]) -> Parts:
    """The objects that a configuration names. Raises ConfigError if one can't be built."""
    found = composing.build(config)
    common = {key: value for key, value in config["norm"].items() if key in COMMON["norm"]}
    try:
        return Parts(
            scheme=make_scheme(found["norm"], **common),
            model=found["model"],
            source=found["dataset"],
            instruments=[make() for make in found["instruments"]],
        )
    except (TypeError, ValueError) as error:  # a scheme says itself what it does not accept
        raise ConfigError(str(error)) from error


def load_dataset(config: Mapping[str, Any], parts: Parts) -> Dataset:
    """The run's data, on its device. Raises ConfigError where they can't be had or the splits make no sense."""
    dataset = config["dataset"] | {"draw_seed": draw_seed(config)}
    key = json.dumps([dataset, config["data_dir"], config["device"]])
    if key not in _datasets or data_may_change(config):
        options = {key: value for key, value in dataset.items() if key in COMMON["dataset"]}
        folder, source = _data_dir(config), load_source(config, parts)
        if key not in _datasets or _datasets[key].checksum != source.checksum:
            try:
                _datasets[key] = prepare(source, **options, device=config["device"], data_dir=folder)
            except DataError as error:
                raise ConfigError(str(error)) from error
        if len(_datasets) > KEPT:
            del _datasets[next(iter(_datasets))]
    return _datasets[key]


def draw_seed(config: Mapping[str, Any]) -> int:
    """What draws the run's subset of the training images, and its wrong labels: its seed, unless the data set says.

    So runs of one seed share the draw, and an interval over seeds covers it. 0 where nothing is drawn: then the data
    are the same for all seeds.
    """
    dataset = config["dataset"]
    if dataset.get("train_fraction", 1) == 1 and not dataset.get("label_noise"):
        return 0
    return config["seed"] if dataset.get("draw_seed") is None else dataset["draw_seed"]


def load_source(config: Mapping[str, Any], parts: Parts) -> Source:
    """The images that the run's data set is cut from. Raises ConfigError where they can't be had."""
    try:
        return parts.source(_data_dir(config))
    except DataError as error:
        raise ConfigError(str(error)) from error


def _data_dir(config: Mapping[str, Any]) -> Path:
    try:
        return Path(config["data_dir"]).expanduser() if config["data_dir"] else default_data_dir()
    except RuntimeError as error:  # ~nobody
        raise ConfigError(
            f"the folder of data sets can't be had: {error} Check data_dir and $NORMBENCH_DATA."
        ) from error


def require_same_data(run_configs: Iterable[RunConfig]) -> None:
    """Raise ConfigError where the images of a finished run are no longer those that it has seen.

    What can't be loaded any more is passed over: a run that is over needs no images.
    """
    found: dict[str, str | None] = {}  # what each data set is now; one for all runs of a sweep
    for run_config in run_configs:
        if not data_may_change(run_config.config):
            continue
        key = json.dumps([run_config.config["dataset"], run_config.config["data_dir"]])
        if key not in found:
            try:
                found[key] = load_source(run_config.config, build(run_config.config)).checksum
            except ConfigError:
                found[key] = None
        if (now := found[key]) is not None:
            check_data(Run(run_config.folder), now)


def check_data(run: Run, checksum: str) -> None:
    """Raise ConfigError unless the images with this checksum are those that `run` was trained on."""
    try:
        seen = run.record.get("data_checksum")
    except Damaged:  # which is said where its files are looked at
        return
    if seen not in (None, checksum):
        raise ConfigError(
            f"the images have changed since {run.name} was trained (SHA-256 {checksum[:12]}..., then "
            f"{str(seen)[:12]}...). Put them back, or train anew with another study=..."
        )


def total_steps(config: Mapping[str, Any], examples: int) -> int:
    """How many updates the budget (steps, samples or epochs) comes to. Raises ConfigError if a batch is too large."""
    per_update = config["batch_size"] * config["accumulate"]
    if per_update > examples:
        parts = f" x accumulate={config['accumulate']}" if config["accumulate"] > 1 else ""
        raise ConfigError(
            f"batch_size must be at most the {examples:,} training images: got {config['batch_size']}{parts}."
        )
    if config["max_steps"] is not None:
        return config["max_steps"]
    if config["max_samples"] is not None:
        return config["max_samples"] // per_update
    return max(1, math.floor(config["epochs"] * (examples // per_update)))


# ---- before the run


@dataclass(frozen=True)
class Prepared:
    """A run that was checked and can be executed."""

    run_config: RunConfig
    parts: Parts
    dataset: Dataset
    total: int  # updates
    saved_bytes: int = 0  # that a step keeps for the backward pass, where it was checked
    fits: int = 0  # so many runs like it can be one stack; 0: it is not to be trained in one, be it of itself alone ...
    why_alone: str = ""  # ... because it can't: the reason


def prepare_run(run_config: RunConfig, checked: bool = False) -> Prepared:
    """Build the parts of `run_config`, load its data, and make sure that it can be trained. Writes nothing.

    Args:
        checked: the plan of its sweep has made sure of it. That takes as long as starting the run does (and the first
            time in a process 2 s more, in which torch imports its compiler for tensors without numbers).

    Raises:
        ConfigError: it can't be run as asked.
        Unsupported: its scheme can't train its network at its batch size.
    """
    config, parts = run_config.config, build(run_config.config)
    dataset = load_dataset(config, parts)
    total = total_steps(config, len(dataset.train))
    if checked:
        return Prepared(run_config, parts, dataset, total, fits=int(is_stacked(config)))
    model, saved = check_supported(config, parts, dataset.shape, len(dataset.classes))
    check_layers(config["instruments"].get("layers"), [name for name, _ in blocks(model)])
    if (perturbation := Perturbation.of(config)) is not None:
        perturbation.check(model, total)
    ready = Prepared(run_config, parts, dataset, total, saved)
    if not is_stacked(config):
        return ready
    if (why := why_alone(ready)) is not None:
        return replace(ready, why_alone=why)
    # Weights, gradients, averages of an optimizer and what is computed on the way; what the backward pass needs, and as
    # much again in it; order of the images. A fifth of the free memory, as several stacks are trained side by side.
    need = 6 * size(model.parameters()) + 2 * saved + 8 * len(dataset.train)
    return replace(ready, fits=max(1, min(LARGEST, int(0.2 * free_memory(config["device"]) / need))))


def is_stacked(config: Mapping[str, Any]) -> bool:
    """Is this run to be trained in a stack, be it one of itself alone?"""
    return config["execute"] == "stacked" or (config["execute"] == "auto" and config["device"] != "cpu")


def why_alone(ready: Prepared) -> str | None:
    """Why runs like this one can't be stacked, tried on a few images that are noise, on the CPU; None: they can."""
    config = ready.run_config.config
    for images in (min(8, config["batch_size"]), config["batch_size"]):
        models = [new_model({**config, "seed": k, "device": "cpu"}, ready.parts, ready.dataset) for k in range(2)]
        x = torch.randn(2, images, *ready.dataset.shape, generator=seeding.generator(0, "tried"))
        with suppress(Unsupported):  # by so few images
            return why_not_stacked(models, x, torch.arange(2 * images).view(2, -1) % len(ready.dataset.classes))
    return "it does not train on noise"


def check_supported(
    config: Mapping[str, Any], parts: Parts, shape: tuple[int, int, int], classes: int
) -> tuple[nn.Module, int]:
    """Can this network be built and trained at this batch size? Runs one batch, of zeros. Where that is large, or the
    code is the user's own, it runs without numbers, for which torch imports its compiler: 2 s.

    Returns: the network, of no use any more, and the bytes that a training step keeps for the backward pass.

    Raises:
        Unsupported: the scheme can't do it.
        ConfigError: it can't be built at all, a norm changes the shape of its input, or memory would not suffice.
    """
    try:
        with torch.device("meta"):
            model = parts.model(parts.scheme, shape, classes).train()
        is_small = max(size(model.parameters()), 4 * config["batch_size"] * math.prod(shape)) < SMALL
        is_small = is_small and not has_own_code(config)
        with torch.device("cpu" if is_small else "meta"), torch.random.fork_rng(devices=[]):
            if is_small:
                model = parts.model(parts.scheme, shape, classes).train()
            for name, block in blocks(model):
                norm = getattr(block, "norm", None)
                if norm is not None:
                    norm.register_forward_hook(partial(_require_same_shape, f"norm={parts.scheme.name}", name))
            images, labels = torch.zeros(config["batch_size"], *shape), torch.zeros(config["batch_size"]).long()
            saved = saved_for_backward(model, images, labels)
    except Unsupported:
        raise
    except (ValueError, TypeError, RuntimeError) as error:
        raise ConfigError(str(error)) from error
    need, free = size(model.parameters()) + saved, free_memory(config["device"])
    if need > free:
        raise ConfigError(
            f"one batch must fit into memory: it needs {need / 2**30:,.1f} GiB, and {free / 2**30:,.1f} GiB are free. "
            "Use a smaller batch_size (with accumulate=, if the update shall stay the same), network or image."
        )
    return model, saved


def _require_same_shape(scheme: str, block: str, norm: object, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    if output.shape != inputs[0].shape:
        before, after = list(inputs[0].shape), list(output.shape)
        raise ValueError(f"{scheme}: a norm must keep the shape of its input: in {block}, {before} became {after}.")


def free_memory(device: str) -> int:
    """Bytes that could be had now: of the GPU, or of the machine; a great many where nobody tells."""
    if device.startswith("cuda"):
        return torch.cuda.mem_get_info(device)[0]
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):  # macOS
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


# ---- the run


def execute(
    run_config: RunConfig,
    on_progress: OnProgress = lambda progress: None,
    stop: Stop = lambda: False,
    checked: bool = False,
) -> Run:
    """Train `run_config` to its end, or continue it, or find it finished.

    Args:
        checked: as for `prepare_run`.

    Raises:
        ConfigError, Unsupported: as `prepare_run`; nothing was written.
        Locked: another process is at it.
        Stopped: `stop` said so.
        Exception: whatever went wrong in training; it is in `error.json`, too.
    """
    if is_finished(run_config.folder, run_config.identity):
        require_same_data([run_config])
        return Run(run_config.folder)
    return train(prepare_run(run_config, checked), on_progress, stop)


def train(ready: Prepared, on_progress: OnProgress = lambda progress: None, stop: Stop = lambda: False) -> Run:
    """As `execute`, for a run that was prepared."""
    if not ready.fits:
        return train_alone(ready, on_progress, stop)
    errors: list[Exception | None] = []
    train_stacked([ready], lambda run_config, error: errors.append(error), on_progress, stop)
    if errors[0] is not None:
        raise errors[0]
    return Run(ready.run_config.folder)


def train_alone(ready: Prepared, on_progress: OnProgress, stop: Stop) -> Run:
    """As `train`, update by update."""
    set_up_torch(ready.run_config.config)
    with run_folder(ready) as folder, recorded_failure(folder):
        if not is_finished(folder.path, folder.identity):  # another process may have finished it meanwhile
            run = Training(ready, folder, on_progress, stop)
            run.begin()
            run.log.clock.start()
            start, config = run.step.index, ready.run_config.config
            examples = batches(config, ready.dataset, start, ready.total)
            for step in steps(run.model, examples, run.optimizer, start, run.update):
                if not run.after(step):
                    break
            run.finish()
    return Run(folder.path)


def set_up_torch(config: Mapping[str, Any]) -> None:
    """The settings of the whole process that a run is calculated with."""
    torch.set_num_threads(config["threads"])
    calculate_exactly()


def run_folder(ready: Prepared) -> RunFolder:
    columns = {instrument.name: instrument.columns for instrument in ready.parts.instruments}
    return RunFolder(ready.run_config.folder, columns, ready.dataset.checksum, ready.run_config.identity)


@contextmanager
def recorded_failure(folder: RunFolder) -> Iterator[None]:
    """What goes wrong inside is in the run's `error.json`, too."""
    try:
        yield
    except Stopped:
        raise
    except Exception as error:
        with suppress(OSError):  # a full disk: what went wrong must be said all the same
            folder.fail(f"{type(error).__name__}: {error}", traceback.format_exc())
        raise


class Training:
    """A run in training, alone or in a stack: its network, what happens between updates, and its files.

    It is where its checkpoint left it, if there is one. Then: `begin`, `after` each update, `finish`.
    """

    def __init__(self, ready: Prepared, folder: RunFolder, on_progress: OnProgress, stop: Stop) -> None:
        self.ready, self.folder = ready, folder
        config, parts, dataset, total = ready.run_config.config, ready.parts, ready.dataset, ready.total
        self.model = model = new_model(config, parts, dataset)
        shared = {name: config[name] for name in ("weight_decay", "momentum", "decay_norm_parameters")}
        self.optimizer = make_optimizer(config["optimizer"], model, lr=first_lr(config), **shared)
        self.update = Update(lr_by_step(config, total), config["clip_norm"], config["accumulate"])
        self.per_update = config["batch_size"] * config["accumulate"]
        self.log = log = Log(folder, total, self.per_update, len(dataset.train) // self.per_update, config["log_every"])
        validation = dataset.validation
        curve = replace(validation, index=validation.index[: config["curve_images"]])  # stratified
        self.splits = {"curve": curve, "validation": validation, "test": dataset.test}
        self.instruments = Instruments(parts.instruments, config, model, dataset, self.optimizer, self.update, log)
        evaluations = frozenset(evenly_spaced(total, config["evaluations"] + 1))
        callbacks: dict[str, Callback] = {
            "loss": LossLog(log),
            "curve": LearningCurve(log, lambda: self.evaluate("curve"), evaluations),
            "instruments": self.instruments,
        }
        if (perturbation := Perturbation.of(config)) is not None:
            callbacks["perturbation"] = PerturbWeights(log, model, perturbation)
        callbacks["progress"] = ReportProgress(log, on_progress)
        checkpoint = Checkpoint(log, model, self.optimizer, callbacks, config["checkpoint_seconds"], stop)
        self.callbacks = [*callbacks.values(), checkpoint]
        self.done = checkpoint.restore()  # updates
        self.step = Step(self.done or 0, None, None)
        self.order, self.key = draws(config, dataset)
        self.diverged: int | None = None

    def begin(self, stack: int | None = None) -> None:
        """Start its files and adjust its weights to the data, unless it continues. `stack`: of how many runs."""
        if self.done is not None:
            return
        ready, config, train = self.ready, self.ready.run_config.config, self.ready.dataset.train
        about = {"total_steps": ready.total, "executed": {"device": device_name(config["device"]), "stack": stack}}
        self.folder.start(record(ready.run_config) | {"classes": list(ready.dataset.classes), **about})
        scheme, count = ready.parts.scheme, min(ready.parts.scheme.init_images, len(train))
        if scheme.data_dependent_init is not None and count > 0:
            ((images, _),) = sample_batches(train, count, count, train.images.device, ready.run_config.config["seed"])
            scheme.data_dependent_init(self.model, images)

    def evaluate(self, split: str) -> tuple[float, float]:
        config, train = self.ready.run_config.config, self.ready.dataset.train
        kind, size, seed = self.ready.parts.scheme.statistics, config["batch_size"], config["seed"]
        return evaluate_with_kind(self.model, kind, train, self.splits[split], size, seed)

    def due(self, index: int) -> bool:
        """Must `after` be called after `index` updates?"""
        return any(callback.due(index) for callback in self.callbacks)

    def after(self, step: Step) -> bool:
        """What happens between two updates, and after the last. Returns whether training goes on; raises Stopped."""
        self.step = step
        if step.loss is None and self.done is not None:
            return True  # what is due here was done before the checkpoint
        try:
            for callback in self.callbacks:
                callback.after(step)
        except Diverged as error:
            self.diverged = error.step
        return self.diverged is None

    def finish(self) -> None:
        """Write what came out: from here on the run is over."""
        log, step, config, dataset = self.log, self.step, self.ready.run_config.config, self.ready.dataset
        if self.diverged is None:
            with log.clock.timed("evaluating"):
                validation, test = self.evaluate("validation"), self.evaluate("test")
            weights_are_finite = all(parameter.isfinite().all() for parameter in self.model.parameters())
            if weights_are_finite and math.isfinite(validation[0]) and math.isfinite(test[0]):
                log.results |= {"validation_loss": validation[0], "validation_accuracy": validation[1]}
                log.results |= {
                    "test_loss": test[0],
                    "test_accuracy": test[1],
                    "at_chance": at_chance(test[1], dataset),
                }
            else:
                self.diverged = step.index

        summary: dict[str, Any] = {
            "status": "complete" if self.diverged is None else "diverged",
            "steps": step.index,
            "samples": step.index * self.per_update,
            "epoch": log.position(step.index)["epoch"],
            "diverged_step": self.diverged,
            "train_loss": None, "validation_loss": None, "validation_accuracy": None,
            "test_loss": None, "test_accuracy": None, "at_chance": None,
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "dataset": dataset_facts(dataset),
        }  # fmt: skip
        summary.update(log.results)
        remarks = [text] if (text := remark(self.model, config["batch_size"])) is not None else []
        if self.diverged is None and summary["at_chance"] is None:
            remarks.append("too few test images to tell from chance")
        if remarks:
            summary["remark"] = "; ".join(remarks)
        seconds = log.clock.read()
        summary["seconds"] = {**seconds, "total": sum(seconds.values())}
        summary.update(self.instruments.results())
        if config["save_model"]:
            self.folder.write_model(to_bytes(self.model.state_dict()))
        self.folder.finish(finite(summary))


# ---- stacks: runs that train together


def execute_stacked(run_configs: Sequence[RunConfig], ended: Ended, stop: Stop = lambda: False) -> None:
    """As `execute`, several runs that can be stacked, see `sweep.plan`.

    Args:
        ended: called for each run when it is over, or failed, with what `execute` would have raised.
    """
    over = [one for one in run_configs if is_finished(one.folder, one.identity)]
    for run_config in over:
        ended(run_config, None)
    if len(over) == len(run_configs):
        return
    first, *others = (one for one in run_configs if one not in over)
    readies = [ready := prepare_run(first, checked=True)]
    for run_config in others:  # which differ in what needs no check
        parts = replace(ready.parts, instruments=build(run_config.config).instruments)
        dataset = load_dataset(run_config.config, parts).sharing_images(ready.dataset)
        readies.append(replace(ready, run_config=run_config, parts=parts, dataset=dataset))
    train_stacked(readies, ended, stop=stop)


def train_stacked(
    readies: Sequence[Prepared],
    ended: Ended,
    on_progress: OnProgress = lambda progress: None,
    stop: Stop = lambda: False,
) -> None:
    """As `execute_stacked`, for runs that were prepared. On a lack of memory in two halves, one after the other."""
    left = {ready.run_config.name: ready for ready in readies}

    def ended_once(run_config: RunConfig, error: Exception | None) -> None:
        del left[run_config.name]
        ended(run_config, error)

    why: Exception | None = None
    try:
        _train_stacked(readies, ended_once, on_progress, stop)
    except Exception as error:
        why = error.with_traceback(None)  # whose frames hold the tensors
    if why is None:
        return
    rest = list(left.values())
    if isinstance(why, torch.OutOfMemoryError) and len(rest) > 1:
        torch.cuda.empty_cache()
        for half in (rest[: len(rest) // 2], rest[len(rest) // 2 :]):
            train_stacked(half, ended_once, on_progress, stop)
        return
    logger.warning("%d runs can't be stacked and are trained one by one: %s: %s", len(rest), type(why).__name__, why)
    for ready in rest:
        try:
            train_alone(ready, on_progress, stop)
        except Exception as error:
            ended_once(ready.run_config, error)
        else:
            ended_once(ready.run_config, None)


def _train_stacked(readies: Sequence[Prepared], ended: Ended, on_progress: OnProgress, stop: Stop) -> None:
    set_up_torch(readies[0].run_config.config)
    by_start: dict[int, list[Training]] = {}
    with ExitStack() as folders:
        for ready in readies:
            try:
                folder = folders.enter_context(run_folder(ready))
                if is_finished(folder.path, folder.identity):
                    ended(ready.run_config, None)
                    continue
                with recorded_failure(folder):
                    run = Training(ready, folder, on_progress, stop)
                by_start.setdefault(run.step.index, []).append(run)
            except torch.OutOfMemoryError:
                raise
            except Exception as error:
                ended(ready.run_config, error)
        for runs in by_start.values():
            _Together(runs, ended).train()


class _Together:
    """Runs in one stack, after equally many updates."""

    def __init__(self, runs: Sequence[Training], ended: Ended) -> None:
        self.runs, self.ended, self.open = runs, ended, dict(enumerate(runs))
        for run in runs:
            run.begin(len(runs))
        members = [Member(r.model, r.optimizer, r.update, r.ready.dataset.train, r.order, r.key) for r in runs]
        self.stack = Stack(members, runs[0].ready.run_config.config["batch_size"], runs[0].step.index)
        self.evaluated: dict[tuple[int, str], list[tuple[float, float]]] = {}
        if all(run.ready.parts.scheme.statistics == "ema" for run in runs):
            for k, run in enumerate(runs):
                run.evaluate = partial(self.evaluate, k)  # type: ignore[method-assign]

    def train(self) -> None:
        losses, total, stack = None, self.runs[0].ready.total, self.stack
        while self.open:
            x, y = stack.batch() if stack.index < total else (None, None)
            for k, run in list(self.open.items()):
                batch = None if x is None or y is None else (x[k], y[k])
                self._after(k, run, Step(stack.index, batch, None if losses is None else losses[:, k]))
            if not self.open:
                return
            begin, updates = time.perf_counter(), 1
            while updates < LONGEST and not self.runs[0].due(stack.index + updates):
                updates += 1
            losses = stack.advance(updates).cpu()  # waits for the device
            self._share("training", time.perf_counter() - begin)

    def _after(self, k: int, run: Training, step: Step) -> None:
        """What happens in one of the runs between two updates; what goes wrong there concerns no other."""
        run.log.clock.start()
        error: Exception | None = None
        try:
            with recorded_failure(run.folder):
                if run.after(step) and step.index < run.ready.total:
                    return
                run.finish()
        except torch.OutOfMemoryError:
            raise
        except Exception as why:
            error = why
        finally:
            run.log.clock.stop()
        del self.open[k]
        self.ended(run.ready.run_config, error)

    def evaluate(self, k: int, split: str) -> tuple[float, float]:
        """Of run k; all are evaluated when the first of them asks."""
        key = self.stack.index, split
        if key not in self.evaluated:
            begin = time.perf_counter()
            self.evaluated = {key: self.stack.evaluate([run.splits[split] for run in self.runs])}
            self._share("evaluating", seconds := time.perf_counter() - begin)
            self.runs[k].log.clock.add("evaluating", -seconds)  # its own clock is running
        return self.evaluated[key][k]

    def _share(self, activity: str, seconds: float) -> None:
        for run in self.runs:
            run.log.clock.add(activity, seconds / len(self.runs))


def new_model(config: Mapping[str, Any], parts: Parts, dataset: Dataset) -> nn.Module:
    """The network before training, its weights drawn, on its device; torch's own generators start anew, too."""
    seed, options = config["seed"], config["model"]
    seeding.seed_everything_else(seed)
    model: nn.Module = parts.model(parts.scheme, dataset.shape, len(dataset.classes))
    drawn = {name: options[f"init_{name}"] for name in ("std", "scale") if f"init_{name}" in options}
    initialize(model, parts.scheme, options["init"], lambda name: seeding.generator(seed, "weights", name), **drawn)
    model.to(config["device"])
    if config["device"] == "cpu":
        # Features innermost, as torch's kernels on a CPU like it: max pooling takes a twelfth of the time, a step of
        # the CNN on CIFAR-10 0.72, evaluating it 0.6 (one core of an AMD EPYC, torch 2.14).
        model.to(memory_format=torch.channels_last)
    seed_noise(model, seeding.derive(seed, "noise"))
    return model


def batches(config: Mapping[str, Any], dataset: Dataset, start: int, total: int) -> Iterator[Batch]:
    """The batches of the run's updates `start` to `total`, by its seed."""
    per_update = config["batch_size"] * config["accumulate"]
    order, key = draws(config, dataset)
    return mini_batches(dataset.train, per_update, order, start, total, key)


def draws(config: Mapping[str, Any], dataset: Dataset) -> tuple[Callable[[int], Tensor], Callable[[int], Key] | None]:
    """What `mini_batches` asks for: the order of an epoch, and what the augmentation of a batch draws, if any."""
    seed, count, device = config["seed"], len(dataset.train), dataset.train.images.device
    augment = seeding.derive(seed, "augment")

    def order(epoch: int) -> Tensor:
        return seeding.order(seed, epoch, count).to(device)

    def key(index: int) -> Key:
        return key_of(augment, index, "augment", device)

    return order, None if dataset.train.augment is None else key


# ---- what is written about it


def dataset_facts(dataset: Dataset) -> dict[str, Any]:
    return {
        "name": dataset.name, "checksum": dataset.checksum, "synthetic": dataset.synthetic,
        "classes": len(dataset.classes), "train": len(dataset.train), "validation": len(dataset.validation),
        "test": len(dataset.test),
    }  # fmt: skip


def at_chance(accuracy: float, dataset: Dataset) -> bool | None:
    """Is `accuracy` no more than luck? None: on so few test images not even 100% would be more.

    Luck is to have as many right with a chance above 0.00135 (three standard errors of a normal distribution) when each
    image is right with the share of the commonest class: the upper tail of the binomial distribution, exactly.
    """
    labels = dataset.test.labels[dataset.test.index]
    n = len(labels)
    commonest = labels.bincount().max().item() / n
    by_luck = [float(bdtrc(right - 1, n, commonest)) if right else 1.0 for right in (round(accuracy * n), n)]
    return None if by_luck[1] > LUCK else by_luck[0] > LUCK


def remark(model: nn.Module, batch_size: int) -> str | None:
    """What a reader of the results must know of this network at this batch size; None: nothing."""
    if batch_size > 1 or not any(uses_batch(module) for module in model.modules()):
        return None
    return "batches of one: each image is normalised alone, over its positions"


def finite(value: Any) -> Any:
    """JSON has no NaN: null stands for it."""
    if isinstance(value, Mapping):
        return {k: finite(v) for k, v in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def record_failure(run_config: RunConfig, message: str, trace: str = "") -> None:
    """Give a run that left none its `error.json`: it was killed, or failed before its folder was made."""
    with suppress(OSError, Locked, Unwritable), RunFolder(run_config.folder, identity=run_config.identity) as folder:
        if is_finished(run_config.folder, run_config.identity):
            return
        if not (run_config.folder / "config.yaml").exists():
            folder.start(record(run_config))
        folder.fail(message, trace)


def forget(run_config: RunConfig) -> None:
    """Let a finished run be run again. Raises Locked."""
    with RunFolder(run_config.folder) as folder:
        folder.clear()


def record_unsupported(run_config: RunConfig, reason: str) -> None:
    """Give a run of a study that can't be run its folder, so that no table passes over it in silence."""
    # Locked: another sweep is writing the same
    with suppress(Locked), RunFolder(run_config.folder, identity=run_config.identity) as folder:
        folder.start(record(run_config))
        folder.finish({"status": "unsupported", "reason": reason})


def record(run_config: RunConfig) -> dict[str, Any]:
    """What a run's config.yaml says of it, besides what `RunFolder` itself writes there."""
    return {
        "name": run_config.name,
        "command": command("run", *run_config.flags, *run_config.words),
        "overrides": run_config.words,
        "written": run_config.written,
        "choices": run_config.choices,
        "identity": run_config.identity,
        "config": run_config.config,
        **provenance(),
    }
