"""Every scheme x model x {28x28x1, 32x32x3} x batch {2, 8}: 20 Adam steps on one fixed mini-batch, without dropout.

A cell of the table is the loss after 20 steps over the loss before: below 1 it has fallen. A refusal is quoted below.
The images are made up (dataset=synthetic); models with a width factor are run at a quarter of their width, ghost batch
norm with ghost batches of 2 and group norm with 2 groups, so that both fit every batch and layer.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from normbench.config.options import choices

SHAPES = {"28x28x1": (28, 1), "32x32x3": (32, 3)}
BATCHES = (2, 8)
FITTING = {"ghost_batch": ["norm.virtual=2"], "group": ["norm.groups=2"]}  # options that fit every cell
RunConfig = tuple[str, str, str, int]  # norm, model, shape, batch size


def fall(cell: RunConfig, steps_to_do: int) -> float | str:
    """Loss after over loss before, or why there is none."""
    import torch
    import torch.nn.functional as F

    from normbench import seeding
    from normbench.errors import Unsupported, UserError
    from normbench.experiment import compose, prepare_run
    from normbench.models import initialize
    from normbench.training.loop import steps
    from normbench.training.optimizers import make_optimizer

    norm, model_name, shape, batch_size = cell
    size, channels = SHAPES[shape]
    words = [f"norm={norm}", f"model={model_name}", f"batch_size={batch_size}", "dataset=synthetic", "device=cpu"]
    words += FITTING.get(norm, [])
    words += [f"dataset.size={size}", f"dataset.channels={channels}", *QUIET.get(model_name, [])]
    torch.set_num_threads(1)
    torch.manual_seed(0)
    try:
        ready = prepare_run(compose(words))
    except (UserError, Unsupported) as error:
        return str(error)
    model = ready.parts.model(ready.parts.scheme, ready.dataset.shape, len(ready.dataset.classes))
    initialize(model, ready.parts.scheme, "auto", lambda name: seeding.generator(0, "weights", name))
    batch = ready.dataset.train.batch(torch.arange(batch_size))

    def loss() -> float:
        with torch.no_grad():
            return F.cross_entropy(model.train()(batch[0]), batch[1]).item()

    before = loss()
    for _ in steps(model, itertools.repeat(batch, steps_to_do), make_optimizer("adam", model, lr=0.001)):
        pass
    return loss() / before


def quiet() -> dict[str, list[str]]:
    """Options of each model that draw random numbers, off; widths of those that have a factor, a quarter."""
    import yaml

    from normbench.config.options import config_dir

    wanted = {"dropout": 0.0, "noise": 0.0, "initial_state_noise": 0.0}
    result = {}
    for name in choices("model"):
        options = yaml.safe_load((config_dir() / "model" / f"{name}.yaml").read_bytes())
        chosen = {key: value for key, value in wanted.items() if key in options}
        if isinstance(options.get("width"), float):
            chosen["width"] = 0.25
        result[name] = [f"model.{key}={value}" for key, value in chosen.items()]
    return result


QUIET = quiet()


def table(results: dict[RunConfig, float | str], norms: list[str], models: list[str], steps_done: int) -> str:
    """Markdown: a row per scheme, a column per model; in a cell the four numbers."""
    reasons: dict[str, int] = {}
    lines = ["# Every scheme in every model", "", (__doc__ or "").strip(), ""]
    order = ", ".join(f"{shape} batch {batch}" for shape in SHAPES for batch in BATCHES)
    lines += [f"Numbers after {steps_done} steps, in the order {order}. Made by `scripts/matrix`.", ""]
    lines += ["| norm | " + " | ".join(models) + " |", "|---" * (len(models) + 1) + "|"]
    for norm in norms:
        row = []
        for model in models:
            words = []
            for shape, batch in itertools.product(SHAPES, BATCHES):
                value = results[norm, model, shape, batch]
                if isinstance(value, str):
                    value = f"[{reasons.setdefault(value, len(reasons) + 1)}]"
                words.append(value if isinstance(value, str) else f"{value:.2g}")
            row.append(words[0] if len(set(words)) == 1 and words[0].startswith("[") else " ".join(words))
        lines.append(f"| {norm} | " + " | ".join(row) + " |")
    lines += ["", *(f"[{number}] {reason}  " for reason, number in reasons.items())]
    numbers = [value for value in results.values() if not isinstance(value, str)]
    risen = [" ".join(map(str, cell)) for cell, value in results.items() if not isinstance(value, str) and value >= 1]
    lines += ["", f"{len(results)} cells: {len(numbers)} trained, {len(results) - len(numbers)} refused; "
              f"the loss fell in {len(numbers) - len(risen)} of {len(numbers)}."]  # fmt: skip
    return "\n".join([*lines, *(f"It did not fall: {cell}" for cell in risen)]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--norms", default=",".join(choices("norm")))
    parser.add_argument("--models", default=",".join(choices("model")))
    parser.add_argument("--to", type=Path, default=Path("results/matrix/report/matrix.md"))
    options = parser.parse_args()
    norms, models = options.norms.split(","), options.models.split(",")
    cells = list(itertools.product(norms, models, SHAPES, BATCHES))
    start = time.perf_counter()
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("forkserver")) as pool:
        values = list(pool.map(fall, cells, itertools.repeat(options.steps)))
    options.to.parent.mkdir(parents=True, exist_ok=True)
    options.to.write_text(table(dict(zip(cells, values, strict=True)), norms, models, options.steps))
    print(f"{len(cells)} cells in {time.perf_counter() - start:.0f} s: {options.to}")


if __name__ == "__main__":
    main()
