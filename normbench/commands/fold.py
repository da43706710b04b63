"""`normbench fold`: a trained network without its norms, proven equal, timed and written beside the run."""

from __future__ import annotations

import argparse
import io
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from normbench.norms import Merge
    from normbench.verify.folding import Comparison, Latency

WRITTEN = ("folded.pt", "folded.pt2", "folded.json")


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="RUN", help="a finished run: results/<study>/<run>")


def run(asked: argparse.Namespace) -> int:
    """Fold the run's network. Returns 1, and writes nothing, if it then isn't the same. Raises UserError."""
    from normbench.commands.trained import load_trained, require_complete
    from normbench.errors import UserError

    require_complete(asked.folder)  # before torch is imported, which takes seconds
    import torch

    from normbench.commands import console
    from normbench.files import write_atomically
    from normbench.norms import Unfoldable, fold
    from normbench.verify.folding import compare_in, exported, latencies

    trained = load_trained(asked.folder)
    name = trained.run.choices["norm"]
    if trained.statistics == "batch":
        raise UserError(
            f"{asked.folder} ran with norm.statistics=batch, the statistics of each test batch: no fixed factor and "
            "shift can replace the norm. Do the run again with another kind."
        )
    try:
        folded, merges = fold(trained.model)
    except Unfoldable as error:
        raise UserError(f"norm={name}: {error}") from error
    if not merges:
        console.say(f"norm={name}: there is nothing to fold. The network has no norm and no re-parametrised weight.")
        return 0
    images = trained.dataset.test
    compared = [compare_in(precision, trained.model, images) for precision in ("float32", "float64")]
    _print_merges(trained.run.folder.name, merges, _count(trained.model), _count(folded))
    _print_comparisons(compared)
    if not all(comparison.equal for comparison in compared):
        console.say("The folded network is not the same. Nothing was written.")
        return 1
    timed = latencies(trained.model, folded, images)
    _print_latencies(timed, trained.device, torch.get_num_threads())
    weights = io.BytesIO()
    torch.save(folded.state_dict(), weights)
    program = exported(folded, images.batch(images.index.new_zeros(1))[0][0])
    facts = {
        "merged": [asdict(merge) for merge in merges],
        "comparisons": [asdict(comparison) for comparison in compared],
        "latencies_ms": [asdict(latency) for latency in timed],
        "device": trained.device,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    try:
        for file, data in zip(
            WRITTEN, (weights.getvalue(), program, json.dumps(facts, indent=1).encode()), strict=True
        ):
            write_atomically(asked.folder / file, data)
    except OSError as error:
        raise UserError(f"{asked.folder} can't be written: {error}.") from error
    _print_written(asked.folder)
    return 0


def _count(model: Any) -> int:
    return sum(p.numel() for p in model.parameters())


def _print_merges(run: str, merges: list[Merge], before: int, after: int) -> None:
    from normbench.commands import console

    console.say(run)
    table = console.plain_table()
    for column in ("block", "folded", "into"):
        table.add_column(column)
    for merge in merges:
        table.add_row(merge.block, merge.what, merge.into)
    console.out.print(table)
    console.say(f"{before:,} parameters before, {after:,} after\n")


def _print_comparisons(compared: list[Comparison]) -> None:
    from normbench.commands import console

    table = console.plain_table()
    for column in ("test set", "largest logit difference", "allowed", "predictions"):
        table.add_column(column)
    for c in compared:
        same = f"{c.images - len(c.changed):,} of {c.images:,} the same"
        table.add_row(c.precision, f"{c.difference:.1e}", f"{c.limit:.1e}", same)
    console.out.print(table)
    for c in compared:
        for changed in c.changed:
            verdict = "below" if changed.margin <= c.difference else "above"
            console.say(
                f"{c.precision}: test image {changed.image} was class {changed.before} and is {changed.after}; "
                f"its margin of {changed.margin:.1e} is {verdict} the logit difference"
            )


def _print_latencies(timed: list[Latency], device: str, threads: int) -> None:
    from normbench.commands import console

    table = console.plain_table()
    for column in ("batch size", "before, ms", "folded, ms", "times as fast"):
        table.add_column(column, justify="right")
    for row in timed:
        table.add_row(str(row.batch_size), f"{row.before:.3f}", f"{row.after:.3f}", f"{row.before / row.after:.2f}")
    console.say("")
    console.out.print(table)
    console.say(f"medians of alternating turns, device={device}, threads={threads}\n")


def _print_written(folder: Path) -> None:
    from normbench.commands import console

    weights, program, facts = WRITTEN
    console.say(f"{console.shortened(folder / weights)}: the weights, for the network of norm=none")
    console.say(
        f'{console.shortened(folder / program)}: runs without normbench: torch.export.load("{program}").module()'
    )
    console.say(f"{console.shortened(folder / facts)}: these numbers")
