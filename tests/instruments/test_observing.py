"""Looking without touching, for every scheme in every model; and what is seen, against plain forward hooks."""

from __future__ import annotations

import copy
from itertools import product
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from looking import assert_same, everything
from torch import Tensor, nn

from normbench.norms import BatchNorm, Block, NormScheme, batch_statistics, blocks, preserve_state, uses_batch


class Broken(Exception):
    pass


def used(network_of: Any, batch_of: Any, norm: str, model: str, device: torch.device) -> tuple[nn.Module, Tensor]:
    """A network in the middle of training: statistics moved, gradients there, one part in evaluation mode."""
    torch.manual_seed(0)
    network = network_of(norm, model, dropout=0.25).to(device)
    x, y = (tensor.to(device) for tensor in batch_of(8))
    F.cross_entropy(network(x), y).backward()
    network.output.eval()  # a part that someone froze stays frozen
    return network, x


def test_leaves_everything_as_it_was(norm_name, model_name, network_of, batch_of, device, case):
    model, x = used(network_of, batch_of, norm_name, model_name, device)
    before = everything(model)
    for statistics, breaks in product([batch_statistics, preserve_state], [False, True]):
        with case(statistics=statistics, breaks=breaks):
            try:
                with statistics(model):
                    torch.rand(3), torch.rand(3, device=device)
                    model.train()(x), model.eval()(x)
                    if breaks:
                        raise Broken
            except Broken:
                assert breaks
            assert_same(before, everything(model))


def test_seeing_tensors_leaves_everything_as_it_was(norm_name, model_name, network_of, batch_of, device, tensors_of):
    model, x = used(network_of, batch_of, norm_name, model_name, device)
    before = everything(model)
    seen = tensors_of(model, x)
    assert_same(before, everything(model))
    assert not any(tensor.requires_grad for tensor in seen.values())
    with pytest.raises(RuntimeError):
        tensors_of(model, x.repeat(1, 2, 1, 1))  # images with more channels
    assert_same(before, everything(model))


def test_what_a_training_step_does_next_is_not_changed(norm_name, model_name, network_of, batch_of, tensors_of):
    watched, alone = (used(network_of, batch_of, norm_name, model_name, torch.device("cpu"))[0] for _ in range(2))
    x = batch_of(8)[0]
    tensors_of(watched, batch_of(20, seed=1)[0])
    outputs = []
    for model in (watched, alone):
        torch.manual_seed(1)
        outputs.append(model(x))
    assert torch.equal(*outputs)
    assert_same(everything(watched), everything(alone))


def test_gradients_are_as_they_were_even_if_an_instrument_computes_some(network_of, batch_of):
    model = network_of("none", "mlp")
    x, y = batch_of(4)
    F.cross_entropy(model(x), y).backward()
    before = everything(model)
    with batch_statistics(model), torch.enable_grad():
        F.cross_entropy(model(x), y).backward()
    assert_same(before, everything(model))


def test_batch_norms_use_the_probes_statistics_or_the_running_ones(tensors_of):
    torch.manual_seed(0)
    norm = BatchNorm(3)
    model = nn.Sequential(Block(nn.Linear(4, 3, bias=False), norm))
    for _ in range(3):
        model(torch.randn(6, 4) + 2)
    probe = torch.randn(50, 4)
    linear = model[0].linear(probe).detach()
    standardised = (linear - linear.mean(0)) / (linear.var(0, correction=0) + 1e-5).sqrt()
    torch.testing.assert_close(tensors_of(model, probe)["0", "normalized"][..., 0], standardised, rtol=1e-4, atol=1e-5)
    lagging = (linear - norm.running_mean) / (norm.running_var + 1e-5).sqrt()
    seen = tensors_of(model, probe, bn_mode="running")["0", "normalized"][..., 0]
    torch.testing.assert_close(seen, lagging, rtol=1e-4, atol=1e-5)
    assert (lagging - standardised).abs().max() > 0.5


@pytest.mark.parametrize("norm", [nn.BatchNorm1d, BatchNorm])
def test_torchs_own_batch_norm_is_left_alone_too(norm, tensors_of):
    model = nn.Sequential(Block(nn.Linear(4, 3), norm(3)), nn.Dropout(0.5))
    x = torch.randn(6, 4)
    model(torch.randn(6, 4))
    before = everything(model)
    seen = tensors_of(model, x)["0", "normalized"]
    assert seen.mean(0).abs().max() < 1e-5  # the probe's own statistics
    assert_same(before, everything(model))


def test_dropout_and_noise_are_off(norm_name, model_name, network_of, batch_of, tensors_of):
    model = network_of(norm_name, model_name, dropout=0.5)
    x = batch_of(8)[0]
    a, b = tensors_of(model, x), tensors_of(model, x)
    assert a.keys() == b.keys()
    assert all(torch.equal(a[key], b[key]) for key in a)


def by_hooks(model: nn.Module, probe: Tensor) -> dict[tuple[str, str], Tensor]:
    """The same tensors a second way: forward hooks on a copy whose norms over the batch are in training mode."""
    model = copy.deepcopy(model).eval()
    for module in model.modules():
        if uses_batch(module):
            module.train()
    found: dict[tuple[str, str], list[Tensor]] = {}

    def record(layer: str, name: str) -> Any:
        return lambda module, args, output: found.setdefault((layer, name), []).append(output.detach())

    for layer, block in model.named_modules():
        if isinstance(block, Block):
            for name, module in (
                ("linear", block.linear),
                ("normalized", block.norm),
                ("activation", block.activation),
            ):
                if module is not None:
                    module.register_forward_hook(record(layer, name))
    model(probe)
    return {key: torch.cat(parts) for key, parts in found.items()}


def test_blocks_show_what_forward_hooks_see(norm_name, model_name, network_of, batch_of, device, tensors_of):
    model, x = used(network_of, batch_of, norm_name, model_name, device)
    seen, wanted = tensors_of(model, x), by_hooks(model, x)
    assert wanted
    for (layer, name), tensor in wanted.items():
        assert torch.equal(seen[layer, name], tensor.flatten(2) if tensor.dim() > 2 else tensor[..., None]), (
            layer,
            name,
        )
    others = {name for name, block in blocks(model) if not isinstance(block, Block)}
    assert {key for key in seen if key not in wanted} == {key for key in seen if key[0] in others}


def test_layers_come_in_the_order_of_the_forward_pass(network_of, batch_of, tensors_of):
    x = batch_of(4)[0]
    three = ["linear", "normalized", "activation"]
    mlp = [("hidden1", t) for t in three] + [("hidden2", t) for t in three] + [("output", "linear")]
    assert list(tensors_of(network_of("batch", "mlp"), x)) == mlp
    assert list(tensors_of(network_of("none", "rnn"), x)) == [
        ("cell", "linear"),
        ("cell", "activation"),
        ("output", "linear"),
    ]


def test_a_cells_tensors_are_stacked_over_time(network_of, batch_of, tensors_of):
    model, x = network_of("none", "rnn").eval(), batch_of(4)[0]
    seen = tensors_of(model, x)
    assert seen["cell", "linear"].shape == (4, 4 * 7, 8)  # [N, C, T]
    assert seen["cell", "activation"].shape == (4, 7, 8)
    cell: Any = model.cell
    reference = nn.LSTM(8, 7)
    with torch.no_grad():
        reference.weight_ih_l0.copy_(cell.input.weight)
        reference.weight_hh_l0.copy_(cell.hidden.weight)
        reference.bias_ih_l0.copy_(cell.bias)
        reference.bias_hh_l0.zero_()
        every_h = reference(x[:, 0].permute(1, 0, 2))[0]  # [T, N, units]
        before = torch.cat([torch.zeros(1, 4, 7), every_h[:-1]])
        gates = x[:, 0].permute(1, 0, 2) @ cell.input.weight.T + before @ cell.hidden.weight.T + cell.bias
    torch.testing.assert_close(seen["cell", "activation"], every_h.permute(1, 2, 0), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(seen["cell", "linear"], gates.permute(1, 2, 0), rtol=1e-4, atol=1e-6)


def test_a_model_without_blocks_shows_nothing(tensors_of):
    assert tensors_of(nn.Linear(3, 2), torch.randn(4, 3)) == {}


def test_an_activation_in_place_does_not_change_what_was_seen(tensors_of):
    scheme = NormScheme(activation=lambda: nn.ReLU(inplace=True))
    model, x = nn.Sequential(scheme.block(nn.Linear(4, 3), nn.ReLU)), torch.randn(50, 4)
    assert torch.equal(tensors_of(model, x)["0", "linear"][..., 0], model[0].linear(x))


def test_placement_after_shows_the_norm_last(tensors_of):
    scheme = NormScheme(norm=BatchNorm, placement="after")
    model = nn.Sequential(scheme.block(nn.Linear(4, 3), nn.ReLU))
    assert list(tensors_of(model, torch.randn(5, 4))) == [("0", "linear"), ("0", "activation"), ("0", "normalized")]
