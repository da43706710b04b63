"""Seconds, memory and size of a report of many runs: a study made of copies of a few real runs.

Each of five schemes trains once for 60 updates on made-up images, with the instruments of `instruments=standard`. Its
folder is copied for every lr, batch size and seed, with the configuration, the accuracies and the losses changed.
Goal for 1,000 runs on 2 cores: under 30 s, a page under 5 MB.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

SCHEMES = ("none", "batch", "layer", "weight_mean_only", "selu")
SIZES, LRS = (2, 4, 8, 32, 128), (0.01, 0.1, 1.0, 3.0)
INSTRUMENTS = "standard"


def make(folder: Path, runs: int, instruments: str) -> None:
    """Write a study of `runs` runs."""
    seeds = range(-(-runs // (len(SCHEMES) * len(SIZES) * len(LRS))))
    words = ["-m", f"norm={','.join(SCHEMES)}", "dataset=synthetic", "max_steps=60", f"instruments={instruments}"]
    place = [f"results_dir={folder.parent}", "study=templates"]
    subprocess.run([sys.executable, "-m", "normbench", "run", *words, *place], check=True, capture_output=True)
    templates = {yaml.safe_load(path.read_text())["choices"]["norm"]: path.parent
                 for path in (folder.parent / "templates").glob("*/config.yaml")}  # fmt: skip
    everything = itertools.product(seeds, SIZES, LRS, SCHEMES)
    for seed, batch_size, lr, scheme in itertools.islice(everything, runs):
        copy(templates[scheme], folder, {"norm": scheme}, {"batch_size": batch_size, "lr": lr, "seed": seed})


def copy(template: Path, study: Path, choices: dict[str, str], values: dict[str, Any]) -> None:
    """One run: its numbers differ from the template's, and one in twelve has diverged."""
    path = study / "-".join([*choices.values(), *(f"{key}{value}" for key, value in values.items())])
    draw = random.Random(path.name)
    shutil.copytree(template, path, ignore=shutil.ignore_patterns("model.pt", ".lock"))
    record = yaml.load((path / "config.yaml").read_text(), Loader=yaml.CSafeLoader)
    record["config"] |= {**values, "study": study.name}
    record["overrides"] = [f"{key}={value}" for key, value in {**choices, **values}.items()]
    (path / "config.yaml").write_text(yaml.dump(record, Dumper=yaml.CSafeDumper, sort_keys=False))
    summary = json.loads((path / "summary.json").read_text())
    del summary["seal"]  # over files that are changed here
    summary |= {f"{part}_accuracy": draw.uniform(0.85, 0.97) for part in ("test", "validation")}
    if draw.random() < 1 / 12:
        numbers = ("test_accuracy", "validation_accuracy", "test_loss", "validation_loss", "train_loss")
        summary |= {"status": "diverged", "diverged_step": 40, **dict.fromkeys(numbers)}
    (path / "summary.json").write_text(json.dumps(summary))
    for name in ("steps", "epochs"):
        head, *rows = (path / f"{name}.csv").read_text().splitlines()
        last = [f"{row.rpartition(',')[0]},{draw.uniform(0.1, 0.9):.17g}" for row in rows]
        (path / f"{name}.csv").write_text("\n".join([head, *last]) + "\n")


def build(folder: Path) -> None:
    """In this process, which has done nothing else."""
    from normbench.report.build import build

    start = time.perf_counter()
    report = build(folder)
    seconds = time.perf_counter() - start
    page, files = report.page.stat().st_size, sum(path.stat().st_size for path in report.files)
    print(f"{len(report.content.groups.members):,} runs: {seconds:.1f} s, page {page / 1e6:.2f} MB, "
          f"all files {files / 1e6:.2f} MB")  # fmt: skip


def watch(command: list[str]) -> float:
    """Run a command; the most memory that it and its children had at one time, in MiB (Linux alone)."""
    process, peak = subprocess.Popen(command, start_new_session=True), 0.0
    while process.poll() is None:
        peak = max(peak, sum(map(memory, Path("/proc").glob("[0-9]*"), itertools.repeat(process.pid))))
        time.sleep(0.5)
    return peak


def memory(path: Path, session: int) -> float:
    """MiB of a process of that session, with what it shares divided among those who share it; 0 for any other."""
    try:
        if int((path / "stat").read_text().rpartition(")")[2].split()[3]) != session:
            return 0.0
        lines = (path / "smaps_rollup").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024
    except (OSError, StopIteration):  # it is gone
        return 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--instruments", default=INSTRUMENTS)
    parser.add_argument(
        "--keep", type=Path, metavar="DIR", help="make or reuse the study there; default: a temporary one"
    )
    parser.add_argument("--build", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.build:
        build(options.build)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.keep or Path(temporary)).absolute() / "many"
        if not folder.exists():
            make(folder, options.runs, options.instruments)
        peak = watch([sys.executable, __file__, "--build", str(folder)])
        print(f"at most {peak:,.0f} MiB, all processes together")


if __name__ == "__main__":
    main()
