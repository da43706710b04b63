"""A `RunConfig` becomes a finished run folder: the one place that knows data, training, instruments and files."""

from __future__ import annotations

import json
import math
import os
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
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
from normbench.config.run_config import RunConfig, command, data_may_change
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
from normbench.training.evaluation import evaluate_with_kind
from normbench.training.loop import Batch, Examples, Update, mini_batches, steps
from normbench.training.memory import saved_for_backward, size
from normbench.training.optimizers import first_lr, lr_by_step, make_optimizer
from normbench.training.perturbation import Perturbation, PerturbWeights
from normbench.training.provenance import provenance

KEPT = 2  # data sets stay loaded for the next run in this process: a sweep has few, and each start checks all bytes
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
        return Prepared(run_config, parts, dataset, total)
    model, saved = check_supported(config, parts, dataset.shape, len(dataset.classes))
    check_layers(config["instruments"].get("layers"), [name for name, _ in blocks(model)])
    if (perturbation := Perturbation.of(config)) is not None:
        perturbation.check(model, total)
    return Prepared(run_config, parts, dataset, total, saved)


def check_supported(
    config: Mapping[str, Any], parts: Parts, shape: tuple[int, int, int], classes: int
) -> tuple[nn.Module, int]:
    """Can this network be built and trained at this batch size? Runs one batch without numbers, in milliseconds.

    Returns: the network on the device "meta", and the bytes that a training step keeps for the backward pass.

    Raises:
        Unsupported: the scheme can't do it.
        ConfigError: it can't be built at all, a norm changes the shape of its input, or memory would not suffice.
    """
    with torch.device("meta"):
        try:
            model = parts.model(parts.scheme, shape, classes).train()
            for name, block in blocks(model):
                norm = getattr(block, "norm", None)
                if norm is not None:
                    norm.register_forward_hook(partial(_require_same_shape, f"norm={parts.scheme.name}", name))
            images, labels = torch.empty(config["batch_size"], *shape), torch.zeros(config["batch_size"]).long()
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
    run_config = ready.run_config
    torch.set_num_threads(run_config.config["threads"])
    calculate_exactly()
    columns = {instrument.name: instrument.columns for instrument in ready.parts.instruments}
    with RunFolder(run_config.folder, columns, ready.dataset.checksum, run_config.identity) as folder:
        if not is_finished(run_config.folder, run_config.identity):  # another process may have finished it meanwhile
            try:
                _train(ready, folder, on_progress, stop)
            except Stopped:
                raise
            except Exception as error:
                with suppress(OSError):  # a full disk: what went wrong must be said all the same
                    folder.fail(f"{type(error).__name__}: {error}", traceback.format_exc())
                raise
    return Run(run_config.folder)


def _train(ready: Prepared, folder: RunFolder, on_progress: OnProgress, stop: Stop) -> None:
    config, parts, dataset, total = ready.run_config.config, ready.parts, ready.dataset, ready.total
    model = new_model(config, parts, dataset)
    shared = {name: config[name] for name in ("weight_decay", "momentum", "decay_norm_parameters")}
    optimizer = make_optimizer(config["optimizer"], model, lr=first_lr(config), **shared)
    update = Update(lr_by_step(config, total), config["clip_norm"], config["accumulate"])
    per_update = config["batch_size"] * config["accumulate"]
    log = Log(folder, total, per_update, len(dataset.train) // per_update, config["log_every"])

    def evaluate(examples: Examples) -> tuple[float, float]:
        kind, size = parts.scheme.statistics, config["batch_size"]
        return evaluate_with_kind(model, kind, dataset.train, examples, size, config["seed"])

    instruments = Instruments(parts.instruments, config, model, dataset, optimizer, update, log)
    curve = replace(dataset.validation, index=dataset.validation.index[: config["curve_images"]])  # stratified
    evaluations = frozenset(evenly_spaced(total, config["evaluations"] + 1))
    callbacks: dict[str, Callback] = {
        "loss": LossLog(log, torch.device(config["device"])),
        "curve": LearningCurve(log, lambda: evaluate(curve), evaluations),
        "instruments": instruments,
    }
    if (perturbation := Perturbation.of(config)) is not None:
        callbacks["perturbation"] = PerturbWeights(log, model, perturbation)
    callbacks["progress"] = ReportProgress(log, on_progress)
    checkpoint = Checkpoint(log, model, optimizer, callbacks, config["checkpoint_seconds"], stop)

    done = checkpoint.restore()
    if done is None:
        about = {"total_steps": total, "executed": {"device": device_name(config["device"]), "stack": None}}
        folder.start(record(ready.run_config) | {"classes": list(dataset.classes), **about})
        scheme, count = parts.scheme, min(parts.scheme.init_images, len(dataset.train))
        if scheme.data_dependent_init is not None and count > 0:
            places = torch.arange(count, device=dataset.train.images.device)
            scheme.data_dependent_init(model, dataset.train.batch(places)[0])
    diverged = None
    log.clock.start()
    for step in steps(model, batches(config, dataset, done or 0, total), optimizer, done or 0, update):
        if step.loss is None and done is not None:
            continue  # what is due here was done before the checkpoint
        try:
            for callback in (*callbacks.values(), checkpoint):
                callback.after(step)
        except Diverged as error:
            diverged = error.step
            break
    if diverged is None:
        with log.clock.timed("evaluating"):
            validation, test = evaluate(dataset.validation), evaluate(dataset.test)
        weights_are_finite = all(parameter.isfinite().all() for parameter in model.parameters())
        if weights_are_finite and math.isfinite(validation[0]) and math.isfinite(test[0]):
            log.results |= {"validation_loss": validation[0], "validation_accuracy": validation[1]}
            log.results |= {"test_loss": test[0], "test_accuracy": test[1], "at_chance": at_chance(test[1], dataset)}
        else:
            diverged = step.index

    summary: dict[str, Any] = {
        "status": "complete" if diverged is None else "diverged",
        "steps": step.index,
        "samples": step.index * per_update,
        "epoch": log.position(step.index)["epoch"],
        "diverged_step": diverged,
        "train_loss": None, "validation_loss": None, "validation_accuracy": None,
        "test_loss": None, "test_accuracy": None, "at_chance": None,
        "parameters": sum(p.numel() for p in model.parameters()),
        "dataset": dataset_facts(dataset),
    }  # fmt: skip
    summary.update(log.results)
    remarks = [text] if (text := remark(model, config["batch_size"])) is not None else []
    if diverged is None and summary["at_chance"] is None:
        remarks.append("too few test images to tell from chance")
    if remarks:
        summary["remark"] = "; ".join(remarks)
    seconds = log.clock.read()
    summary["seconds"] = {**seconds, "total": sum(seconds.values())}
    summary.update(instruments.results())
    if config["save_model"]:
        folder.write_model(to_bytes(model.state_dict()))
    folder.finish(finite(summary))


def new_model(config: Mapping[str, Any], parts: Parts, dataset: Dataset) -> nn.Module:
    """The network before training, its weights drawn, on its device; torch's own generators start anew, too."""
    seed, options = config["seed"], config["model"]
    seeding.seed_everything_else(seed)
    model: nn.Module = parts.model(parts.scheme, dataset.shape, len(dataset.classes))
    drawn = {name: options[f"init_{name}"] for name in ("std", "scale") if f"init_{name}" in options}
    initialize(model, parts.scheme, options["init"], lambda name: seeding.generator(seed, "weights", name), **drawn)
    model.to(config["device"])
    seed_noise(model, seeding.derive(seed, "noise"))
    return model


def batches(config: Mapping[str, Any], dataset: Dataset, start: int, total: int) -> Iterator[Batch]:
    """The batches of the run's updates `start` to `total`, by its seed."""
    seed, train, device = config["seed"], dataset.train, torch.device(config["device"])

    def order(epoch: int) -> Tensor:
        return seeding.order(seed, epoch, len(train)).to(device)

    def key(index: int) -> Key:
        return key_of(seeding.derive(seed, "augment"), index, "augment", device)

    augmented = config["dataset"].get("augment", "none") != "none"
    per_update = config["batch_size"] * config["accumulate"]
    return mini_batches(train, per_update, order, start, total, key if augmented else None)


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
