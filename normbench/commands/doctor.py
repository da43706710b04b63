"""`normbench doctor`: is this machine ready? Versions, devices, threads, data sets, extras, and room for results."""

from __future__ import annotations

import argparse
import fcntl
import platform
import shutil
import tempfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from normbench.commands import console
from normbench.errors import UserError

if TYPE_CHECKING:
    from normbench.config.run_config import RunConfig

PACKAGES = ("torch", "torchvision", "numpy", "hydra-core", "omegaconf", "pandas", "scipy", "matplotlib", "pydantic")
EXTRAS = {  # of pip install 'normbench[...]': the module that comes with it
    "ray": "hydra_plugins.hydra_ray_launcher",
    "slurm": "hydra_plugins.hydra_submitit_launcher",
    "optuna": "hydra_plugins.hydra_optuna_sweeper",
    "parquet": "pyarrow",
    "tensorboard": "tensorboard",
    "bench": "lightning",
}
LEAST_ROOM = 2**30  # bytes on the disk of the results
Row = tuple[str, str, bool]  # what it is about, what there is, and whether a run can be trained with it


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "normbench doctor [results_dir=... data_dir=... device=... threads=... jobs=...]"
    parser.description = "Is this machine ready? The words are those of normbench run. Nothing is written."


def run(options: argparse.Namespace) -> int:
    """Print what there is, and what to type for what is missing. Returns 1 where runs can't be trained, else 0.

    Raises: ConfigError.
    """
    from normbench.config.compose import compose

    run_config = compose(options.words, str)  # the device is looked for below
    problems = 0
    for part in (_versions(), _machine(run_config), _data(run_config), _extras(), _results(run_config)):
        for about, text, is_right in part:
            console.say(f"{' ' if is_right else '!'} {about:<15}  {text}")
            problems += not is_right
    console.say(f"{problems} problem{'s' * (problems > 1)}, marked with !" if problems else "no problem was found")
    return min(problems, 1)


def _versions() -> Iterator[Row]:
    def found(package: str) -> str | None:
        try:
            return version(package)
        except PackageNotFoundError:
            return None

    yield "normbench", f"{found('normbench') or 'from a folder'}, Python {platform.python_version()}", True
    versions = {package: found(package) for package in PACKAGES}
    yield "packages", ", ".join(f"{name} {number}" for name, number in versions.items() if number), True
    if missing := [name for name, number in versions.items() if number is None]:
        yield "missing", f"pip install {' '.join(missing)}", False


def _machine(run_config: RunConfig) -> Iterator[Row]:
    """CPU, GPUs, and how many runs go side by side."""
    from dataclasses import replace

    from normbench.sweep.plan import jobs_of, usable_cores

    config = run_config.config
    try:
        import torch

        from normbench.experiment.prepare import free_memory
        from normbench.training.device import resolve_device
        from normbench.training.provenance import provenance
    except (ImportError, OSError) as error:
        yield "torch", f"it can't be imported: {' '.join(str(error).split())}", False
        return
    machine, free = provenance()["machine"], free_memory("cpu") / 2**30
    cores = f"{usable_cores()} of {machine['cores']} cores"
    yield "CPU", f"{machine['cpu']}, {cores}, {free:,.1f} GiB of memory free", True
    gpus = [torch.cuda.get_device_properties(k) for k in range(torch.cuda.device_count())]
    for k, gpu in enumerate(gpus):
        yield f"cuda:{k}", f"{gpu.name}, {gpu.total_memory / 2**30:,.0f} GiB", True
    if not gpus:
        built = "this torch is built without CUDA" if torch.version.cuda is None else "torch finds no CUDA device"
        yield "GPU", f"none: {built}; GPUs of Apple (MPS) are not used", True
    try:
        config = {**config, "device": resolve_device(config["device"])}
    except UserError as error:
        yield "device", str(error), False
        return
    jobs = jobs_of(replace(run_config, config=config))
    yield "runs", f"on {config['device']}, {jobs} side by side (jobs), threads={config['threads']} each", True


def _data(run_config: RunConfig) -> Iterator[Row]:
    from normbench.data import PUBLISHED, default_data_dir, state_of

    chosen = run_config.config["data_dir"]
    folder = Path(chosen).expanduser() if chosen else default_data_dir()
    yield "data", f"{folder} ($NORMBENCH_DATA, or data_dir=)", True
    for published in PUBLISHED.values():
        try:
            state, _ = state_of(published, folder)
        except OSError as error:
            state = f"can't be read: {error}"
        hint = {"ready": "its checksum is right", "files, not decoded": "the first run decodes them"}
        text = f"{state}: {hint.get(state, f'normbench data {published.name}')}"
        yield f"  {published.name}", text, state in (*hint, "not here")


def _extras() -> Iterator[Row]:
    def is_there(module: str) -> bool:
        try:
            return find_spec(module) is not None
        except ModuleNotFoundError:  # the package that it would lie in
            return False

    there = [extra for extra, module in EXTRAS.items() if is_there(module)]
    missing = ",".join(extra for extra in EXTRAS if extra not in there)
    here = ", ".join(there) or "none"
    yield "extras", here + (f"; for others: pip install 'normbench[{missing}]'" if missing else ""), True
    latex = "is here" if shutil.which("pdflatex") else "is not here"
    yield "pdflatex", f"{latex}; it compiles what normbench export --to latex writes", True


def _results(run_config: RunConfig) -> Iterator[Row]:
    """Tries a file with a lock, as each run has, where the results will be; it is gone afterwards."""
    wanted = Path(run_config.config["results_dir"]).expanduser().absolute()
    there = next(path for path in (wanted, *wanted.parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=there) as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        free = shutil.disk_usage(there).free
    except OSError as error:
        yield "results", f"{wanted} can't be written: {error.strerror}. Choose another folder: results_dir=", False
        return
    yield "results", f"{wanted} can be written, {free / 2**30:,.1f} GiB free", free >= LEAST_ROOM
