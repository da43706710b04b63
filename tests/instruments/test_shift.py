"""`shift` in every scheme and model, and what its rows compare."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from short_run import Images, ShortRun, Shown, few_pairs, short_run, through_a_checkpoint
from torch import Tensor, nn

from normbench.instruments import BN_MODES, Shift
from normbench.instruments.distances import NUMBERS, Values, distances
from normbench.instruments.probe import ascending, by_unit

Rows = dict[tuple[str, str, str, str], dict[str, Any]]  # (bn_mode, layer, tensor, since) -> row
MOVED = {name for name in NUMBERS if name.startswith("moved")}
SUMMED = {name for name in NUMBERS if name.startswith(("w1", "moved"))}


def perturb(model: nn.Module, seed: int = 1) -> None:
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=g).to(parameter.device)


def table(instrument: Shift, index: int, run: ShortRun) -> Rows:
    rows = run.measure(instrument, index, fresh=False)
    found = {(row["bn_mode"], row["layer"], row["tensor"], row["since"]): row for row in rows}
    assert len(found) == len(rows)
    return found


def shown(images: Tensor) -> ShortRun:
    return short_run(Shown(), updates=None, validation=Images(images, torch.zeros(len(images), dtype=torch.long)))


@few_pairs
def test_every_number_is_a_distance_between_snapshots(norm, network, network_of, device):
    run = short_run(network_of(norm, network), device=device)
    instrument, snapshots, tables = Shift(bn_modes=("probe", "batch"), sample=None), [], []
    for index in (0, 3, 10):
        tables.append(table(instrument, index, run))
        bn_modes = [bn_mode for bn_mode in run.probe.bn_modes if bn_mode != "running"]
        snapshots.append({(m, *key): z for m in bn_modes for key, z in run.probe.tensors(m).items()})
        perturb(run.model, index)
    start, now = {"previous": 1, "start": 0}, snapshots[2]
    assert set(tables[0]) == {(*key, "halves") for key in now}
    assert set(tables[2]) == {(*key, s) for key in now for s in (*start, "path", "halves")}
    own = {"layer", "tensor", "bn_mode", "since", "since_step", "units", "constant"}
    numbers = {"previous": set(NUMBERS), "start": set(NUMBERS), "path": {"snapshots", *SUMMED},
               "halves": set(NUMBERS) - MOVED}  # fmt: skip
    for (bn_mode, layer, tensor, since), row in tables[2].items():
        assert set(row) == own | numbers[since]
        assert all(math.isfinite(row[name]) for name in numbers[since])
        assert 0 <= row["constant"] < row["units"]
        assert row["since_step"] == {"previous": 3, "start": 0, "path": 0, "halves": 10}[since]
        if since in start:
            z, then = now[bn_mode, layer, tensor], snapshots[start[since]][bn_mode, layer, tensor]
            pair = tuple(Values.of(values, ascending(by_unit(values))) for values in (z, then))
            [wanted] = distances([pair], [1])
            assert row["units"] == z.shape[1]
            assert {name: row[name] for name in wanted} == pytest.approx(wanted, rel=1e-5, abs=1e-6)
            assert row["w1_scaled_mean"] > 0.001


def test_the_path_is_the_sum_of_its_steps(network_of):
    model = network_of("batch", "mlp")
    run, instrument, sums = short_run(model), Shift(), {}
    for i in range(5):
        rows = table(instrument, 10 * i, run)
        for (*key, since), row in rows.items():
            if since == "previous":
                assert row["since_step"] == 10 * (i - 1)
                path = rows[(*key, "path")]
                for name in SUMMED:
                    sums[(*key, name)] = sums.get((*key, name), 0.0) + row[name]
                    assert path[name] == sums[(*key, name)]
                assert path["snapshots"] == i
                assert path["since_step"] == 0
                # the straight line is the shortest: of means over units
                assert rows[(*key, "start")]["w1_mean"] <= path["w1_mean"] * (1 + 1e-6)
        perturb(model, i)
    assert sums


def test_a_step_in_which_no_unit_varies_adds_nothing_to_the_path():
    instrument, run = Shift(), shown(torch.randn(32, 3))
    for index, gain in enumerate((1.0, 0.0, 0.0, 2.0)):
        run.model.gain = gain
        rows = table(instrument, index, run)
        if index == 2:
            assert rows["probe", "", "linear", "previous"]["constant"] == 3
            assert math.isnan(rows["probe", "", "linear", "previous"]["w1_mean"])
    mean_size = run.probe.images.abs().mean().item()
    assert rows["probe", "", "linear", "path"]["w1_mean"] == pytest.approx((1 + 0 + 2) * mean_size, rel=1e-5)


def test_a_diverged_layer_stays_unknown_along_the_path():
    instrument, run = Shift(), shown(torch.randn(32, 3))
    for index, bias in enumerate((0.0, torch.tensor([0.0, math.nan, 0.0]), 0.0)):
        run.model.bias = bias
        rows = table(instrument, index, run)
    assert all(math.isnan(rows["probe", "", "linear", "path"][name]) for name in SUMMED)
    assert rows["probe", "", "linear", "start"]["w1_mean"] == 0
    assert math.isnan(rows["probe", "", "linear", "previous"]["w1_mean"])


def test_running_averages_are_looked_at_on_request_only(network_of):
    run = short_run(network_of("batch", "mlp"))
    assert {bn_mode for bn_mode, *_ in table(Shift(), 0, run)} == {"probe"}
    assert {bn_mode for bn_mode, *_ in table(Shift(bn_modes=BN_MODES), 0, run)} == set(BN_MODES)
    with pytest.raises(ValueError, match=r"Shift.bn_modes are of probe, batch, running: got batches\."):
        Shift(bn_modes=["batches"])
    with pytest.raises(ValueError, match=r"Shift.sample must be 1 or more, or null: got 0"):
        Shift(sample=0)


def test_halves_say_what_another_choice_of_images_would_change():
    # W1 of two samples of one distribution falls as 1 / sqrt(images).
    floors = []
    for images in (100, 400, 1600):
        run = shown(torch.randn(images, 64, generator=torch.Generator().manual_seed(0)))
        row = table(Shift(sample=None), 7, run)["probe", "", "linear", "halves"]
        assert row["units"] == 64
        assert row["since_step"] == 7
        assert not MOVED & set(row)
        floors.append(row["w1_scaled_mean"])
    assert floors[0] / floors[1] == pytest.approx(2, rel=0.15)
    assert floors[1] / floors[2] == pytest.approx(2, rel=0.15)


def test_halves_are_of_images_and_all_their_positions():
    values = torch.zeros(8, 2, 3)
    values[:4], values[4:] = 1.0, torch.tensor([3.0, 4.0, 5.0])
    row = table(Shift(), 0, shown(values))["probe", "", "linear", "halves"]
    assert row["w1_mean"] == pytest.approx(3)


def test_sampled_units_are_evenly_spaced(network_of):
    images = torch.randn(200, 40, generator=torch.Generator().manual_seed(0))
    for sample, units in ((16, 14), (None, 40), (40, 40), (1, 1)):
        instrument, run = Shift(sample=sample), shown(images)
        assert table(instrument, 0, run)["probe", "", "linear", "halves"]["units"] == units
        run.model.gain = torch.arange(1.0, 41)
        row = table(instrument, 1, run)["probe", "", "linear", "start"]
        assert row["units"] == 40
        pair = [Values.of(z[..., None], ascending(z.T)) for z in (images * run.model.gain, images)]
        assert row["js_mean"] == pytest.approx(distances([pair], [math.ceil(40 / units)])[0]["js_mean"])


def test_the_result_is_how_far_the_input_of_each_block_has_moved(network_of):
    for norm, passed_on in (("batch", "activation"), ("none", "activation")):
        run, instrument = short_run(network_of(norm, "mlp")), Shift(bn_modes=("batch", "probe"))
        table(instrument, 0, run)
        assert instrument.result == {}
        perturb(run.model)
        rows = table(instrument, 5, run)
        wanted = {after: rows["probe", before, passed_on, "start"]["w1_scaled_mean"]
                  for before, after in (("hidden1", "hidden2"), ("hidden2", "output"))}  # fmt: skip
        assert instrument.result == wanted


@pytest.mark.parametrize("network", ["mlp", "rnn"])
def test_a_resumed_run_goes_on_as_if_undisturbed(network, network_of, device):
    run = short_run(network_of("batch", network), device=device)
    undisturbed, sizes = Shift(bn_modes=("probe", "batch")), []
    for index in range(5):
        table(undisturbed, index, run)
        perturb(run.model, index)
        sizes.append(sum(z.nbytes for then in undisturbed.state_dict()["values"].values() for z in then.values()))
    assert sizes[4] == sizes[1]  # what is kept does not grow
    resumed = through_a_checkpoint(undisturbed, Shift(bn_modes=("probe", "batch")))
    assert resumed.result == undisturbed.result
    for index in (9, 12):
        assert table(resumed, index, run) == table(undisturbed, index, run)
        perturb(run.model, index)
    assert resumed.result == undisturbed.result
