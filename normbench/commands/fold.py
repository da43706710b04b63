"""`normbench fold`: a trained network without its norms, proven equal, timed and written beside the run."""

from __future__ import annotations

import argparse
import hashlib
import io
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from normbench.commands import console
from normbench.commands.arguments import add_config_dir, path
from normbench.errors import UserError

if TYPE_CHECKING:
    from normbench.verify.folding import Comparison

WRITTEN = ("folded.pt", "folded.pt2", "folded.json")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config_dir(parser)
    parser.add_argument("folder", type=path, metavar="RUN", help="a finished run: results/<study>/<run>")


def run(options: argparse.Namespace) -> int:
    """Fold the run's network. Returns 1, and writes nothing, if it then isn't the same. Raises UserError."""
    from normbench.commands.trained import load_trained, require_complete

    folder = options.folder
    require_complete(folder)  # before torch is imported, which takes seconds
    import torch

    from normbench.norms import Unfoldable, fold
    from normbench.verify.folding import compare_in, exported, latencies

    trained = load_trained(folder, config_dirs=options.config_dir)
    name = trained.run.choices["norm"]
    if trained.statistics == "batch":
        raise UserError(
            f"{folder} ran with norm.statistics=batch, the statistics of each test batch: no fixed factor and "
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
    console.say(trained.run.folder.name)
    rows = [(merge.block, merge.what, merge.into) for merge in merges]
    console.print_table(("block", "folded", "into"), rows, right=())
    before, after = (sum(p.numel() for p in model.parameters()) for model in (trained.model, folded))
    console.say(f"{before:,} parameters before, {after:,} after\n")
    _print_comparisons(compared)
    if not all(comparison.equal for comparison in compared):
        console.say("The folded network is not the same. Nothing was written.")
        return 1
    timed, threads = latencies(trained.model, folded, images), torch.get_num_threads()
    numbers = [(t.batch_size, f"{t.before:.3f}", f"{t.after:.3f}", f"{t.before / t.after:.2f}") for t in timed]
    columns = ("batch size", "before, ms", "folded, ms", "times as fast")
    console.say("")
    console.print_table(columns, numbers, right=columns)
    console.say(f"medians of alternating turns, device={trained.device}, threads={threads}\n")
    facts = {
        "merged": [asdict(merge) for merge in merges],
        "comparisons": [asdict(comparison) for comparison in compared],
        "latencies_ms": [asdict(latency) for latency in timed],
        "device": trained.device,
        "threads": threads,
        "torch": torch.__version__,
    }
    program = exported(folded, images.batch(images.index.new_zeros(1))[0][0])
    _write(folder, folded, program, facts)
    return 0


def _write(folder: Path, folded: Any, program: bytes, facts: dict[str, Any]) -> None:
    import torch

    from normbench.files import write_atomically

    weights = io.BytesIO()
    torch.save(folded.state_dict(), weights)
    of = {"model.pt": (folder / "model.pt").read_bytes(), "folded.pt": weights.getvalue(), "folded.pt2": program}
    facts["sha256"] = {name: hashlib.sha256(data).hexdigest() for name, data in of.items()}
    contents = (weights.getvalue(), program, json.dumps(facts, indent=1).encode())
    try:
        for name, data in zip(WRITTEN, contents, strict=True):
            write_atomically(folder / name, data)
    except OSError as error:
        raise UserError(f"{folder} can't be written: {error}.") from error
    about = (
        "the weights, for the network of norm=none",
        'runs without normbench: torch.export.load("folded.pt2").module()',
        "these numbers, and the SHA-256 of the network that was folded",
    )
    for name, text in zip(WRITTEN, about, strict=True):
        console.say(f"{console.shortened(folder / name)}: {text}")


def _print_comparisons(compared: list[Comparison]) -> None:
    rows = []
    for c in compared:
        same = f"{c.images - len(c.changed):,} of {c.images:,} the same"
        rows.append((c.precision, f"{c.difference:.1e}", f"{c.limit:.1e}", same))
    console.print_table(("test set", "largest logit difference", "allowed", "predictions"), rows, right=())
    for c in compared:
        for changed in c.changed:
            verdict = "below" if changed.margin <= c.difference else "above"
            console.say(
                f"{c.precision}: test image {changed.image} was class {changed.before} and is {changed.after}; "
                f"its margin of {changed.margin:.1e} is {verdict} the logit difference"
            )
