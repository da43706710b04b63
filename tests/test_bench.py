"""`scripts/bench` measures, prints its tables and goals, and writes a page, a table and a picture."""

from __future__ import annotations

import runpy
from pathlib import Path

import pandas as pd
import pytest
import torch

BENCH = Path(__file__).parent.parent / "scripts" / "bench.py"


@pytest.fixture(scope="module")
def bench():
    return runpy.run_path(str(BENCH))


def test_a_quick_one_from_the_first_word_to_the_picture(bench, tmp_path, capsys):
    bench["main"](["--quick", "--device=cpu", "--parts=steps,schemes,runs", f"--to={tmp_path}"])
    printed, page = capsys.readouterr().out, (tmp_path / "cpu.md").read_text()
    found = pd.read_csv(tmp_path / "cpu.csv")
    assert (tmp_path / "cpu.png").read_bytes().startswith(b"\x89PNG")
    assert set(found["part"]) == {"steps", "milliseconds", "schemes", "runs"}
    assert ((found["low"] <= found["median"]) & (found["median"] <= found["high"]) & (found["low"] > 0)).all()
    for text in (printed, page):
        assert "steps mlp none 4 ours over bare loop" in text
        assert "at most 1.1" in text
    folded = found[(found["norm"] == "batch") & (found["what"] == "latency of 1, folded")]
    assert len(folded) == 1


@pytest.mark.parametrize("norm", ["none", "batch", "layer"])
@pytest.mark.parametrize("model", ["mlp", "cnn", "rnn"])
def test_the_plain_network_is_ours(bench, model, norm):
    """Of as many weights, or the comparison would be of two networks; in the LSTM a norm's bias is one more."""
    setting = bench["Setting"](model, norm, 4, "cpu")
    _, parts, data = bench["parts_of"](setting.words)
    ours = parts.model(parts.scheme, data.shape, len(data.classes))
    theirs = bench["network"](model, norm)

    def weights(network: torch.nn.Module) -> list[tuple[int, ...]]:
        return sorted(tuple(p.shape) for p in network.parameters() if p.dim() > 1)

    assert weights(ours) == weights(theirs)
    x = torch.randn(4, 1, 28, 28)
    assert ours(x).shape == theirs(x).shape


def test_a_stack_takes_steps(bench):
    assert bench["stacked"](bench["Setting"]("mlp", "batch", 4, "cpu"), members=2)(3) > 0


def test_the_limit_does_the_products_of_a_step(bench):
    """Forward, and backward for the weights and for all inputs but the images."""
    for model, products in (("mlp", 4 + 4 + 3), ("cnn", 3 + 3 + 3), ("rnn", 2 + 28 + 28 + 1 + 3)):
        layers = []
        network = bench["network"](model, "none")
        for module in network.modules():
            if isinstance(module, torch.nn.Linear | torch.nn.Conv2d | torch.nn.LSTM):
                module.register_forward_hook(lambda m, inputs, y, layers=layers: layers.append((m, inputs[0], y)))
        network(torch.randn(4, 1, 28, 28))
        assert sum(len(bench["products"](*layer, first=i == 0)) for i, layer in enumerate(layers)) == products, model


def test_sweeps_are_compared_with_an_older_checkout_or_with_two_cores(bench, tmp_path, monkeypatch):
    asked = []

    def seconds_of(*words, checkout=None):
        asked.append((words, checkout))
        return 30.0 if checkout or ("device=cpu" in words and len(asked) == 2) else 10.0

    monkeypatch.setitem(bench["measure_sweep"].__globals__, "seconds_of", seconds_of)
    found = pd.DataFrame(bench["measure_sweep"]("cpu", tmp_path)).set_index("what")["median"]
    assert found["the older checkout over this one"] == 3
    assert [checkout for _, checkout in asked] == [None, tmp_path] * bench["FEWEST"]
    asked.clear()
    rows = pd.DataFrame(bench["measure_sweep"]("cuda", None))
    assert rows.set_index("what")["median"]["two CPU cores over the GPU"] == 20 * 30 / 10
    assert bench["goals"](rows)[1] == [
        ["sweep on the GPU", "at most 40", "10", "yes"],
        ["sweep two CPU cores over the GPU", "at least 8", "60", "yes"],
    ]
