"""Sweeps under fire. A round is one disturbance, at a random moment, of a sweep of short runs on made-up images:

kill-worker     SIGKILL to the process of a run
kill-sweep      SIGKILL to the sweep itself; its other processes must be gone within seconds
interrupt       SIGINT to all of its processes, as a terminal sends it; it must end with 130
interrupt-twice the same, and again
terminate       SIGTERM to the sweep, as a scheduler sends it; it must end with 130
fill-disk       no space left (a small tmpfs; left out where it can't be mounted: needs root)
delete          the folder of a run in progress is removed
damage          a byte of a finished run's file is flipped
second-sweep    the same command, at the same time
report          a report and a status, at the same time

Whatever came of it, the command is repeated until it ends with 0. Then all tables and weights must equal those of an
undisturbed sweep, bit for bit (times aside), and there must be no folder more or less.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

WORDS = ["dataset=synthetic", "dataset.size=8", "dataset.examples=600", "dataset.validation=100", "device=cpu"]
WORDS += ["norm=none,batch,weight_mean_only", "seed=0,1", "batch_size=8", "model.hidden=[16,16]"]
WORDS += ["checkpoint_seconds=0.1", "evaluations=20", "jobs=2", "study=s", "model.dropout=0.1", "instruments=quick"]
CELLS = 6
KINDS = ("kill-worker", "kill-sweep", "interrupt", "interrupt-twice", "terminate", "fill-disk", "delete", "damage",
         "second-sweep", "report")  # fmt: skip
TIMES = {"train_seconds", "training_ms", "evaluating_ms", "measuring_ms"}
STEPS = 1500  # of each run: about two seconds
PATIENCE = 600.0  # seconds that a sweep may take to end: the machine may be busy


class Lost(AssertionError):
    """Something that may never happen, happened."""


def sweep(results: Path, log: Path) -> subprocess.Popen[bytes]:
    return normbench(log, "run", "-m", *WORDS, f"results_dir={results}")


def normbench(log: Path, *words: str) -> subprocess.Popen[bytes]:
    """A command, in a process group of its own."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with log.open("ab") as file:
        command = [sys.executable, "-m", "normbench", *words]
        return subprocess.Popen(command, stdout=file, stderr=file, start_new_session=True, env=environment)


def processes() -> dict[int, int]:
    """Parents of all processes, without those that have ended and were not waited for."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, parent = path.read_text().rpartition(") ")[2].split()[:2]
            if state != "Z":
                found[int(path.parent.name)] = int(parent)
    return found


def below(pid: int) -> set[int]:
    """Children of a process, and theirs."""
    parents, found = processes(), {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {pid}


def runs_of(pid: int) -> list[int]:
    """The processes of runs: the children of the server that is a child of the sweep."""
    parents = processes()
    return [child for child, parent in parents.items() if parents.get(parent) == pid]


def unfinished(results: Path) -> list[Path]:
    return [path.parent for path in results.glob("s/*/.lock") if not (path.parent / "summary.json").exists()]


def disturb(kind: str, one: subprocess.Popen[bytes], results: Path, log: Path, dice: random.Random) -> bool:
    """Do it. Returns whether there was something to do it to."""
    if kind == "kill-worker":
        if runs := runs_of(one.pid):
            os.kill(dice.choice(runs), signal.SIGKILL)
        return bool(runs)
    if kind == "kill-sweep":
        family = below(one.pid)
        one.kill()
        one.wait()
        wait_until(lambda: not family & processes().keys(), 10, "orphans are left after the sweep was killed")
    elif kind == "terminate":
        one.terminate()
        end(one, {0, 1, 130, -signal.SIGTERM})  # at once, where it has not started to run anything
    elif kind.startswith("interrupt"):
        os.killpg(one.pid, signal.SIGINT)
        if kind == "interrupt-twice":
            time.sleep(dice.uniform(0.0, 0.2))
            with suppress(ProcessLookupError):
                os.killpg(one.pid, signal.SIGINT)
        end(one, {0, 1, 130, -2})  # 0 or 1: it had just ended
    elif kind == "fill-disk":
        filler = results / "filler"
        with suppress(OSError), filler.open("wb") as file:
            while True:
                file.write(bytes(4096))
                file.flush()
        time.sleep(dice.uniform(0.1, 2.0))
        filler.unlink()
    elif kind == "delete":
        if not (folders := unfinished(results)):
            return False
        shutil.rmtree(dice.choice(folders), ignore_errors=True)
    elif kind == "damage":
        finished = [path.parent for path in results.glob("s/*/summary.json")]
        if not finished:
            return False
        files = [path for path in dice.choice(finished).rglob("*") if path.is_file() and path.name != ".lock"]
        path = dice.choice(sorted(files))
        with suppress(OSError):  # another sweep is doing it again
            data = bytearray(path.read_bytes())
            data[dice.randrange(len(data))] ^= 1
            path.write_bytes(data)
    elif kind == "report":
        for words in (["report"], ["status"]):
            end(normbench(log, *words, str(results / "s")), {0, 2})  # 2: there is no run yet
    elif kind == "second-sweep":
        other = sweep(results, log)
        end(other, {0, 1})
    return True


def wait_until(condition, seconds: float, otherwise: str) -> None:  # type: ignore[no-untyped-def]
    limit = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > limit:
            raise Lost(otherwise)
        time.sleep(0.05)


def end(process: subprocess.Popen[bytes], codes: set[int]) -> int:
    """Wait for it. Raises Lost if it hangs, ends in another way, or leaves a process behind."""
    family = below(process.pid)
    try:
        code = process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise Lost(f"a sweep has not ended within {PATIENCE:g} s") from None
    wait_until(lambda: not family & processes().keys(), 10, f"orphans are left after exit code {code}")
    if code not in codes:
        raise Lost(f"exit code {code}, not one of {sorted(codes)}")
    return code


def contents(results: Path) -> dict[str, object]:
    """All that a sweep leaves in the folders of its runs, without times."""
    import torch

    from normbench.runs import EVERYTHING, Run

    found: dict[str, object] = {}
    for folder in sorted((results / "s").iterdir()):
        if folder.name in ("report", ".damaged"):
            continue
        try:
            Run(folder).check_seal(EVERYTHING)
        except ValueError as error:
            raise Lost(f"{folder.name}: its files are not those that its summary was written for: {error}") from error
        summary = json.loads((folder / "summary.json").read_text())
        kept = {key: value for key, value in summary.items() if key not in ("seconds", "measuring_seconds", "seal")}
        found[f"{folder.name}/summary"] = kept
        for path in sorted(folder.rglob("*.csv")):
            with path.open(newline="") as file:
                rows = [[v for k, v in row.items() if k not in TIMES] for row in csv.DictReader(file)]
            found[f"{folder.name}/{path.name}"] = rows
        weights = torch.load(folder / "model.pt", weights_only=True)
        found[f"{folder.name}/weights"] = {name: value.numpy().tobytes() for name, value in weights.items()}
        strays = [path.name for path in folder.iterdir() if path.name in ("checkpoint", "error.json")]
        if strays:
            raise Lost(f"{folder.name} is finished and has {', '.join(strays)}")
    return found


@contextmanager
def place(mounted: bool) -> Iterator[Path]:
    """A folder on a disk of its own, small enough to be filled."""
    folder = Path(tempfile.mkdtemp())
    if mounted:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        if mounted:
            subprocess.run(["umount", "-l", folder], check=True)
        shutil.rmtree(folder, ignore_errors=True)


def can_mount() -> bool:
    if sys.platform != "linux" or os.geteuid() != 0:
        return False
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder], capture_output=True, check=False)
        if done.returncode == 0:
            subprocess.run(["umount", folder], check=True)
        return done.returncode == 0


def torture(rounds: int, seed: int, log: Path, only: list[str]) -> Counter[str]:
    """Returns how often each disturbance was made. Raises Lost."""
    dice, done, mounted = random.Random(seed), Counter[str](), can_mount()
    kinds = [kind for kind in only or KINDS if mounted or kind != "fill-disk"]
    with tempfile.TemporaryDirectory() as folder:
        end(sweep(Path(folder), log), {0})
        expected = contents(Path(folder))
    if sum(name.endswith("/summary") for name in expected) != CELLS:
        raise Lost("the undisturbed sweep is not complete")
    while done.total() < rounds:
        with place(mounted) as results:
            made = _until_done(results, log, dice, kinds, min(6, rounds - done.total()))
            done += made
            found = contents(results)
            if wrong := [name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name)]:
                raise Lost(f"these differ from an undisturbed sweep: {', '.join(sorted(wrong))}")
        print(f"{done.total()} of {rounds} rounds: {dict(made)}: all equal", flush=True)
    return done


def _until_done(results: Path, log: Path, dice: random.Random, kinds: list[str], most: int) -> Counter[str]:
    """Sweep, disturb, repeat, until the command ends with 0; disturbs `most` times, then lets it go on."""
    made: Counter[str] = Counter()
    checked = 0  # so many damages were there before the command began, which does those runs again
    for _ in range(40):
        damages = made["damage"]
        one = sweep(results, log)
        try:
            with suppress(subprocess.TimeoutExpired):  # mostly while runs are on, now and then before that
                limit = time.monotonic() + (dice.uniform(0, 5) if dice.random() < 0.15 else 60)
                while not runs_of(one.pid) and time.monotonic() < limit:
                    one.wait(0.05)
            while made.total() < most and one.poll() is None:
                with suppress(subprocess.TimeoutExpired):
                    one.wait(dice.uniform(0.05, 2.0))
                    break
                kind = dice.choice(kinds)
                made[kind] += disturb(kind, one, results, log, dice)
            code = end(one, {0, 1, 130, -signal.SIGINT, -signal.SIGTERM, -signal.SIGKILL})
        finally:
            if one.poll() is None:
                os.killpg(one.pid, signal.SIGKILL)
        checked = damages if code == 0 else checked
        if code == 0 and checked == made["damage"]:
            return +made
    raise Lost("after 40 repetitions the sweep has not ended with 0")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0, help="of the random moments; timing is never the same twice")
    parser.add_argument("--only", nargs="+", choices=KINDS, default=[], help="these disturbances alone")
    parser.add_argument("--log", type=Path, default=Path(tempfile.gettempdir()) / "torture.log")
    parser.add_argument("--steps", type=int, default=STEPS, help="of each run; fewer where the machine is busy")
    options = parser.parse_args()
    WORDS.append(f"max_steps={options.steps}")
    begun = time.monotonic()
    try:
        done = torture(options.rounds, options.seed, options.log, options.only)
    except Lost as error:
        print(f"LOST: {error}. What the sweeps said: {options.log}", file=sys.stderr)
        return 1
    print(f"{done.total()} rounds in {time.monotonic() - begun:,.0f} s: {dict(done)}. Nothing lost, nothing twice.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
