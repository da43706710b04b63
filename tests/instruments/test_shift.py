"""`shift` in every scheme and model, and what its rows compare."""

from __future__ import annotations

import io
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from normbench.instruments import BN_MODES, Probe, Shift
from normbench.instruments.distances import NUMBERS, Values, distances
from normbench.instruments.probe import ascending, by_unit
from normbench.norms import Block, Recorded
from normbench.training.loop import Step

Rows = dict[tuple[str, str, str, str], dict[str, Any]]  # (bn_mode, layer, tensor, since) -> row
MOVED = {name for name in NUMBERS if name.startswith("moved")}
SUMMED = {name for name in NUMBERS if name.startswith(("w1", "moved"))}


class Showing(Recorded):
    """A layer that shows each unit's input times `gain` plus `bias`."""

    def __init__(self, gain: Any = 1.0, bias: Any = 0.0) -> None:
        super().__init__()
        self.gain, self.bias = gain, bias

    def forward(self, x: Tensor) -> Tensor:
        y = x * self.gain + self.bias
        self.show("linear", y)
        return y


def perturb(model: nn.Module, seed: int = 1) -> None:
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=g).to(parameter.device)


def probe_of(model: nn.Module, images: Tensor, batch_size: int = 8, **options: Any) -> Probe:
    return Probe(model, images, torch.zeros(len(images), dtype=torch.long), batch_size, **options)


def measured(instrument: Shift, index: int, model: nn.Module, probe: Probe) -> Rows:
    probe.forget()
    rows = list(instrument.measure(Step(index, None, None), model, probe))
    found = {(row["bn_mode"], row["layer"], row["tensor"], row["since"]): row for row in rows}
    assert len(found) == len(rows)
    return found


def everything(model: nn.Module) -> list[Any]:
    tensors = [*model.state_dict().values(), *(p.grad for p in model.parameters()), torch.get_rng_state()]
    return [None if t is None else t.clone() for t in tensors] + [module.training for module in model.modules()]


def same(a: list[Any], b: list[Any]) -> bool:
    return all(torch.equal(x, y) if isinstance(x, Tensor) else x == y for x, y in zip(a, b, strict=True))


def test_every_scheme_in_every_model(norm_name, model_name, network_of, batch_of, device):
    model = network_of(norm_name, model_name, dropout=0.25).to(device)
    probe = probe_of(model, batch_of(48)[0].to(device))
    instrument, snapshots, tables = Shift(bn_modes=("probe", "batch"), sample=None), [], []
    for index in (0, 3, 10):
        before = everything(model)
        tables.append(measured(instrument, index, model, probe))
        assert same(before, everything(model))
        snapshots.append(
            {(bn_mode, *key): value for bn_mode in probe.bn_modes for key, value in probe.tensors(bn_mode).items()}
        )
        perturb(model, index)
    start, now = {"previous": 1, "start": 0}, snapshots[2]
    bn_modes = {"probe", "batch"} & set(probe.bn_modes)
    assert set(tables[0]) == {(*key, "halves") for key in now if key[0] in bn_modes}
    assert set(tables[2]) == {(*key, s) for key in now if key[0] in bn_modes for s in (*start, "path", "halves")}
    own = {"layer", "tensor", "bn_mode", "since", "since_step", "units", "constant"}
    numbers = {"previous": set(NUMBERS), "start": set(NUMBERS), "path": {"snapshots", *SUMMED},
               "halves": set(NUMBERS) - MOVED}  # fmt: skip
    assert set(Shift.columns) == (own | numbers["previous"] | numbers["path"]) - {"layer", "tensor"}
    for (bn_mode, layer, tensor, since), row in tables[2].items():
        assert set(row) == own | numbers[since]
        assert all(math.isfinite(row[name]) for name in numbers[since])
        assert 0 <= row["constant"] < row["units"]
        assert row["since_step"] == {"previous": 3, "start": 0, "path": 0, "halves": 10}[since]
        if since in start:
            z, then = now[bn_mode, layer, tensor], snapshots[start[since]][bn_mode, layer, tensor]
            pair = tuple(Values.of(values, ascending(by_unit(values))) for values in (z, then))
            ((constant, wanted),) = distances([pair], [1])
            assert row["units"] == z.shape[1]
            assert row["constant"] == constant
            assert {name: row[name] for name in NUMBERS} == pytest.approx(wanted, rel=1e-5, abs=1e-6)
            assert row["w1_scaled_mean"] > 0.001


def test_the_path_is_the_sum_of_its_steps(network_of, batch_of):
    model = network_of("batch", "mlp")
    probe, instrument, sums = probe_of(model, batch_of(40)[0]), Shift(), {}
    for i in range(5):
        table = measured(instrument, 10 * i, model, probe)
        for (*key, since), row in table.items():
            if since == "previous":
                assert row["since_step"] == 10 * (i - 1)
                path = table[(*key, "path")]
                for name in SUMMED:
                    sums[(*key, name)] = sums.get((*key, name), 0.0) + row[name]
                    assert path[name] == sums[(*key, name)]
                assert path["snapshots"] == i
                assert path["since_step"] == 0
                # the straight line is the shortest: of means over units
                assert table[(*key, "start")]["w1_mean"] <= path["w1_mean"] * (1 + 1e-6)
        perturb(model, i)
    assert sums


def test_a_step_in_which_no_unit_varies_adds_nothing_to_the_path():
    model = Showing()
    instrument, probe = Shift(), probe_of(model, torch.randn(32, 3))
    for index, gain in enumerate((1.0, 0.0, 0.0, 2.0)):
        model.gain = gain
        rows = measured(instrument, index, model, probe)
        if index == 2:
            assert rows["probe", "", "linear", "previous"]["constant"] == 3
            assert math.isnan(rows["probe", "", "linear", "previous"]["w1_mean"])
    mean_size = probe.images.abs().mean().item()
    assert rows["probe", "", "linear", "path"]["w1_mean"] == pytest.approx((1 + 0 + 2) * mean_size, rel=1e-5)


def test_a_diverged_layer_stays_unknown_along_the_path():
    model = Showing()
    instrument, probe = Shift(), probe_of(model, torch.randn(32, 3))
    for index, bias in enumerate((0.0, torch.tensor([0.0, math.nan, 0.0]), 0.0)):
        model.bias = bias
        rows = measured(instrument, index, model, probe)
    assert all(math.isnan(rows["probe", "", "linear", "path"][name]) for name in SUMMED)
    assert rows["probe", "", "linear", "start"]["w1_mean"] == 0
    assert math.isnan(rows["probe", "", "linear", "previous"]["w1_mean"])


def test_running_averages_are_looked_at_on_request_only(network_of, batch_of):
    model = network_of("batch", "mlp")
    probe = probe_of(model, batch_of(40)[0])
    assert {bn_mode for bn_mode, *_ in measured(Shift(), 0, model, probe)} == {"probe"}
    assert {bn_mode for bn_mode, *_ in measured(Shift(bn_modes=BN_MODES), 0, model, probe)} == set(BN_MODES)
    with pytest.raises(ValueError, match=r"Shift.bn_modes are of probe, batch, running: got batches\."):
        Shift(bn_modes=["batches"])
    with pytest.raises(ValueError, match=r"Shift.sample must be 1 or more, or null: got 0"):
        Shift(sample=0)


def test_halves_say_what_another_choice_of_images_would_change():
    # W1 of two samples of one distribution falls as 1 / sqrt(images).
    floors = []
    for images in (100, 400, 1600):
        model = Showing()
        probe = probe_of(model, torch.randn(images, 64, generator=torch.Generator().manual_seed(0)))
        row = measured(Shift(sample=None), 7, model, probe)["probe", "", "linear", "halves"]
        assert row["units"] == 64
        assert row["since_step"] == 7
        assert not MOVED & set(row)
        floors.append(row["w1_scaled_mean"])
    assert floors[0] / floors[1] == pytest.approx(2, rel=0.15)
    assert floors[1] / floors[2] == pytest.approx(2, rel=0.15)


def test_halves_are_of_images_and_all_their_positions():
    values = torch.zeros(8, 2, 3)
    values[:4], values[4:] = 1.0, torch.tensor([3.0, 4.0, 5.0])
    model = Showing()
    row = measured(Shift(), 0, model, probe_of(model, values))["probe", "", "linear", "halves"]
    assert row["w1_mean"] == pytest.approx(3)


def test_sampled_units_are_evenly_spaced(network_of):
    images = torch.randn(200, 40, generator=torch.Generator().manual_seed(0))
    for sample, units in ((16, 14), (None, 40), (40, 40), (1, 1)):
        model = Showing()
        instrument, probe = Shift(sample=sample), probe_of(model, images)
        assert measured(instrument, 0, model, probe)["probe", "", "linear", "halves"]["units"] == units
        model.gain = torch.arange(1.0, 41)
        row = measured(instrument, 1, model, probe)["probe", "", "linear", "start"]
        assert row["units"] == 40
        pair = [Values.of(z[..., None], ascending(z.T)) for z in (images * model.gain, images)]
        assert row["js_mean"] == pytest.approx(distances([tuple(pair)], [math.ceil(40 / units)])[0][1]["js_mean"])


def test_the_result_is_how_far_the_input_of_each_block_has_moved(network_of, batch_of):
    for norm, passed_on in (("batch", "activation"), ("none", "activation"), ("selu", "activation")):
        model = network_of(norm, "mlp")
        instrument, probe = Shift(bn_modes=("batch", "probe")), probe_of(model, batch_of(40)[0])
        measured(instrument, 0, model, probe)
        assert instrument.result() == {}
        perturb(model)
        rows = measured(instrument, 5, model, probe)
        wanted = {after: rows["probe", before, passed_on, "start"]["w1_scaled_mean"]
                  for before, after in (("hidden1", "hidden2"), ("hidden2", "output"))}  # fmt: skip
        assert instrument.result() == wanted
        assert list(instrument.result()) == ["hidden2", "output"]


def test_the_result_of_a_block_without_an_activation_is_what_it_has():
    norm = nn.BatchNorm1d(4)
    model = nn.Sequential(Block(nn.Linear(3, 4), norm), Block(nn.Linear(4, 2)))
    instrument, probe = Shift(), probe_of(model, torch.randn(20, 3))
    measured(instrument, 0, model, probe)
    with torch.no_grad():
        norm.weight.fill_(2.0)
    rows = measured(instrument, 1, model, probe)
    assert instrument.result() == {"1": rows["probe", "0", "normalized", "start"]["w1_scaled_mean"]}
    assert instrument.result()["1"] > 0.1


@pytest.mark.parametrize("network", ["mlp", "cnn", "rnn"])
def test_state_goes_through_a_checkpoint(network, network_of, batch_of, device):
    model = network_of("batch", network).to(device)
    probe = probe_of(model, batch_of(40)[0].to(device))
    undisturbed, resumed = Shift(bn_modes=("probe", "batch")), Shift(bn_modes=("probe", "batch"))
    for index in (0, 2, 5):
        measured(undisturbed, index, model, probe)
        perturb(model, index)
    buffer = io.BytesIO()
    torch.save(undisturbed.state_dict(), buffer)
    buffer.seek(0)
    resumed.load_state_dict(torch.load(buffer, weights_only=True, map_location=device))
    assert resumed.result() == undisturbed.result()
    for index in (9, 12):
        assert measured(resumed, index, model, probe) == measured(undisturbed, index, model, probe)
        perturb(model, index)
    assert resumed.result() == undisturbed.result()


def test_what_is_kept_does_not_grow(network_of, batch_of):
    model = network_of("batch", "mlp")
    instrument, probe, sizes = Shift(), probe_of(model, batch_of(40)[0]), []
    for index in range(6):
        measured(instrument, index, model, probe)
        perturb(model, index)
        buffer = io.BytesIO()
        torch.save(instrument.state_dict(), buffer)
        sizes.append(buffer.tell())
    assert sizes[5] <= sizes[2] * 1.05
