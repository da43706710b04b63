"""What a probe shows, against plain forward hooks: which positions, in which bn_mode, and that one pass serves all."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from normbench.instruments import Probe
from normbench.noise import seed_noise, set_draw
from normbench.norms import BatchNorm, Block, NormScheme, blocks, uses_batch

LABELS = torch.zeros(50, dtype=torch.long)
BLOCK = ["linear", "normalized", "activation"]


# As a probe: torch multiplies a sequence by a weight that has a gradient in another way (mm, not bmm).
@torch.no_grad()
def by_hooks(model: nn.Module, images: Tensor) -> dict[tuple[str, str], Tensor]:
    """The same tensors a second way: forward hooks on a copy whose norms over the batch are in training mode."""
    model = copy.deepcopy(model).eval()
    for module in model.modules():
        if uses_batch(module):
            module.train()
    set_draw(model, -1)  # the probe's noise
    found: dict[tuple[str, str], list[Tensor]] = {}

    def record(key: tuple[str, str]) -> Any:
        return lambda module, args, output: found.setdefault(key, []).append(output.detach())

    for layer, block in blocks(model):
        for name, module in zip(BLOCK, ("linear", "norm", "activation"), strict=True):
            if isinstance(block, Block) and getattr(block, module) is not None:
                getattr(block, module).register_forward_hook(record((layer, name)))
    model(images)
    return {key: torch.cat(parts) for key, parts in found.items()}


def test_blocks_show_what_forward_hooks_see(norm_name, model_name, network_of, batch_of, device, tensors_of):
    model, x = network_of(norm_name, model_name, dropout=0.5).to(device), batch_of(8)[0].to(device)
    seed_noise(model, 0)
    model(x)
    seen, wanted = tensors_of(model, x), by_hooks(model, x)
    assert wanted
    for key, tensor in wanted.items():
        flat = tensor.flatten(2) if tensor.dim() > 2 else tensor[..., None]
        assert torch.equal(seen[key], flat), key
    cells = {name for name, block in blocks(model) if not isinstance(block, Block)}
    assert {key for key in seen if key not in wanted} == {key for key in seen if key[0] in cells}
    again = tensors_of(model, x)
    assert all(torch.equal(again[key], tensor) and not tensor.requires_grad for key, tensor in seen.items())


def test_noise_moves_what_the_next_layer_sees_and_not_what_the_weights_do(network_of, batch_of):
    """At the same weights: with the statistics of the probe the noise stays, with those of batches it is drawn anew."""
    model, (images, labels) = network_of("noisy_batch", "mlp"), batch_of(32)
    seed_noise(model, 0)
    probe, key, found = Probe(model, images, labels, 8), ("hidden1", "normalized"), {}
    for step in (0, 1, 100, 100):
        probe.forget(step)
        found.setdefault(step, []).append([probe.tensors(bn_mode)[key] for bn_mode in ("probe", "batch")])
    [[whole, first]], [[same, moved]], (one, again) = found.values()
    assert torch.equal(whole, same)
    assert not torch.equal(first, moved)
    assert not torch.equal(first, one[1])
    assert torch.equal(one[1], again[1])


def test_layers_come_in_the_order_of_the_forward_pass(network_of, batch_of, tensors_of):
    x = batch_of(4)[0]
    mlp = [(layer, t) for layer in ("hidden1", "hidden2") for t in BLOCK] + [("output", "linear")]
    assert list(tensors_of(network_of("batch", "mlp"), x)) == mlp
    cell = [("cell", "linear"), ("cell", "activation"), ("output", "linear")]
    assert list(tensors_of(network_of("none", "rnn"), x)) == cell
    after = NormScheme(norm=BatchNorm, placement="after")
    model = nn.Sequential(after.block(nn.Linear(4, 3), nn.ReLU))
    assert [key[1] for key in tensors_of(model, torch.randn(5, 4))] == ["linear", "activation", "normalized"]
    assert tensors_of(nn.Linear(3, 2), torch.randn(4, 3)) == {}


def test_a_cells_tensors_are_stacked_over_time(network_of, batch_of, tensors_of):
    model, x = network_of("none", "rnn").eval(), batch_of(4)[0]
    seen, cell, reference = tensors_of(model, x), model.cell, nn.LSTM(8, 7)
    rows = x[:, 0].permute(1, 0, 2)  # [T, N, C]
    with torch.no_grad():
        reference.weight_ih_l0.copy_(cell.input.weight)
        reference.weight_hh_l0.copy_(cell.hidden.weight)
        reference.bias_ih_l0.copy_(cell.bias)
        reference.bias_hh_l0.zero_()
        every_h = reference(rows)[0]
        before = torch.cat([torch.zeros(1, 4, 7), every_h[:-1]])
        gates = rows @ cell.input.weight.T + before @ cell.hidden.weight.T + cell.bias
    torch.testing.assert_close(seen["cell", "activation"], every_h.permute(1, 2, 0), rtol=1e-4, atol=1e-6)  # [N, C, T]
    torch.testing.assert_close(seen["cell", "linear"], gates.permute(1, 2, 0), rtol=1e-4, atol=1e-6)


def test_an_activation_in_place_does_not_change_what_was_seen(tensors_of):
    scheme = NormScheme(activation=lambda: nn.ReLU(inplace=True))
    model, x = nn.Sequential(scheme.block(nn.Linear(4, 3), nn.ReLU)), torch.randn(50, 4)
    assert torch.equal(tensors_of(model, x)["0", "linear"][..., 0], model[0].linear(x))


# ---- bn_mode


@pytest.mark.parametrize("norm", [nn.BatchNorm1d, BatchNorm])
def test_norms_work_with_the_probes_statistics_its_batches_or_the_running_ones(norm):
    torch.manual_seed(0)
    model = nn.Sequential(Block(nn.Linear(4, 3, bias=False), norm(3)))
    for _ in range(3):
        model(torch.randn(6, 4) + 2)
    images = torch.randn(50, 4)
    probe, linear, bn = Probe(model, images, LABELS, 8), model[0].linear(images).detach(), model[0].norm

    def standardised(z: Tensor, mean: Tensor, var: Tensor) -> Tensor:
        return (z - mean) / (var + 1e-5).sqrt()

    wanted = {
        "probe": standardised(linear, linear.mean(0), linear.var(0, correction=0)),
        "batch": torch.cat([standardised(z, z.mean(0), z.var(0, correction=0)) for z in linear[:48].split(8)]),
        "running": standardised(linear, bn.running_mean, bn.running_var),
    }
    assert probe.bn_modes == tuple(wanted)
    for bn_mode, values in wanted.items():
        seen = probe.tensors(bn_mode)["0", "normalized"][..., 0]
        torch.testing.assert_close(seen, values, rtol=1e-4, atol=1e-5)
    for batch_size in (50, 999):
        whole = Probe(model, images, LABELS, batch_size)
        assert torch.equal(whole.tensors("batch")["0", "normalized"], probe.tensors()["0", "normalized"])


def test_there_are_three_bn_modes_where_other_images_matter(norm_name, model_name, network_of, batch_of):
    model, (images, labels) = network_of(norm_name, model_name, quiet=True), batch_of(20)
    probe = Probe(model, images, labels, 8)
    others = torch.cat((images[:2], images[:2].repeat(9, 1, 1, 1)))
    mixed = not torch.allclose(model(images)[:2], model(others)[:2], atol=1e-4)
    assert probe.bn_modes == (("probe", "batch", "running") if mixed else ("probe",))


# ---- one pass, and what of it


class Counted(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.passes = model, 0

    def forward(self, x: Tensor) -> Tensor:
        self.passes += len(x)
        return self.model(x)


def test_one_pass_serves_all_until_the_model_changes():
    model = Counted(Block(nn.Linear(4, 3)))
    probe, key = Probe(model, torch.randn(50, 4), LABELS, 8), ("model", "linear")
    first = probe.tensors()[key]
    assert probe.tensors()[key] is first
    assert torch.equal(probe.ordered(key), first[..., 0].T.sort().values)
    assert torch.equal(probe.pool(key), first.flatten().sort().values)
    assert model.passes == 50
    with torch.no_grad():
        model.model.linear.weight.zero_()
    probe.forget()
    assert torch.equal(probe.ordered(key), probe.tensors()[key][..., 0].T)
    assert not torch.equal(probe.tensors()[key], first)
    assert model.passes == 100


def test_few_positions_of_many_always_the_same(batch_of):
    model, images = nn.Sequential(Block(nn.Conv2d(1, 2, 1))), batch_of(6)[0]
    few, again, every = (Probe(model, images, LABELS, 2, positions=p).tensors()["0", "linear"] for p in (5, 5, 64))
    assert (few.shape, every.shape) == ((6, 2, 5), (6, 2, 64))
    assert torch.equal(few, again)
    places = (every[0, 0, :, None] == few[0, 0]).nonzero()[:, 0]
    assert torch.equal(every[:, :, places], few)


def test_few_time_steps_of_many_the_first_and_the_last_among_them(network_of, batch_of):
    model, (images, labels) = network_of("batch", "rnn"), batch_of(6)
    one, few, every = (Probe(model, images, labels, 2, positions=count) for count in (1, 3, 8))
    assert (one.times("cell"), few.times("cell"), few.times("output")) == ([0], [0, 4, 7], [])
    for probe in (one, few):
        taken = every.tensors()["cell", "normalized"][..., probe.times("cell")]
        assert torch.equal(probe.tensors()["cell", "normalized"], taken)


def test_only_what_is_asked_for(network_of, batch_of):
    model, (images, labels) = network_of("batch", "mlp"), batch_of(6)
    some = Probe(model, images, labels, 2, layers=["hidden*"], kinds=["normalized"])
    assert list(some.tensors()) == [("hidden1", "normalized"), ("hidden2", "normalized")]
    assert list(Probe(model, images, labels, 2, layers=["output"]).tensors()) == [("output", "linear")]
