"""What a probe shows: which positions, in which bn_mode, and that one pass serves all."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from normbench.instruments import Probe
from normbench.norms import BatchNorm, Block

LABELS = torch.zeros(50, dtype=torch.long)


class Counted(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.passes = model, 0

    def forward(self, x: Tensor) -> Tensor:
        self.passes += len(x)
        return self.model(x)


def test_one_pass_serves_all_until_the_model_changes():
    model = Counted(Block(nn.Linear(4, 3)))
    probe = Probe(model, torch.randn(50, 4), LABELS, 8)
    first = probe.tensors()["model", "linear"]
    assert probe.tensors()["model", "linear"] is first
    assert torch.equal(probe.ordered(("model", "linear")), first[..., 0].T.sort().values)
    assert model.passes == 50
    with torch.no_grad():
        model.model.linear.weight.zero_()
    probe.forget()
    assert not torch.equal(probe.tensors()["model", "linear"], first)
    assert model.passes == 100
    assert torch.equal(probe.ordered(("model", "linear")), probe.tensors()["model", "linear"][..., 0].T)


def test_there_are_three_ways_where_the_batch_matters(norm_name, model_name, network_of, batch_of):
    model, (images, labels) = network_of(norm_name, model_name, quiet=True), batch_of(20)
    probe = Probe(model, images, labels, 8)
    bn_modes = {bn_mode: probe.tensors(bn_mode) for bn_mode in probe.bn_modes}
    assert list(bn_modes) in (["probe"], ["probe", "batch", "running"])
    model.train()
    others = torch.cat((images[:2], images[:2].repeat(9, 1, 1, 1)))
    mixed = not torch.allclose(model(images)[:2], model(others)[:2], atol=1e-4)  # do other images matter?
    assert mixed == ("batch" in bn_modes)
    if "batch" in bn_modes:
        key = next(key for key in bn_modes["probe"] if key[1] == "normalized")
        assert len(bn_modes["batch"][key]) == 16  # two full batches of 8
        assert not torch.equal(bn_modes["probe"][key], bn_modes["running"][key])


def test_batches_are_looked_at_one_by_one():
    torch.manual_seed(0)
    model, x = Block(nn.Linear(4, 3, bias=False), BatchNorm(3)).train(), torch.randn(50, 4) + 1
    probe = Probe(nn.Sequential(model), x, LABELS, 8)
    with torch.no_grad():
        wanted = torch.cat([nn.functional.batch_norm(part, None, None, training=True)
                            for part in model.linear(x)[:48].split(8)])  # fmt: skip
    torch.testing.assert_close(probe.tensors("batch")["0", "normalized"][..., 0], wanted)


@pytest.mark.parametrize("batch_size", [50, 999])
def test_a_batch_as_large_as_the_probe_is_the_probe(batch_size):
    model = nn.Sequential(Block(nn.Linear(4, 3), BatchNorm(3)))
    probe = Probe(model, torch.randn(50, 4), LABELS, batch_size)
    assert torch.equal(probe.tensors("batch")["0", "normalized"], probe.tensors("probe")["0", "normalized"])


def test_few_positions_of_many_always_the_same(batch_of):
    model = nn.Sequential(Block(nn.Conv2d(1, 2, 1)))
    images = batch_of(6)[0]
    seen = [Probe(model, images, LABELS, 2, positions=5).tensors()["0", "linear"] for _ in range(2)]
    every = Probe(model, images, LABELS, 2, positions=64).tensors()["0", "linear"]
    assert seen[0].shape == (6, 2, 5)
    assert torch.equal(*seen)
    assert every.shape == (6, 2, 64)
    places = (every[0, 0, :, None] == seen[0][0, 0]).nonzero()[:, 0]
    assert torch.equal(every[:, :, places], seen[0])


def test_few_time_steps_of_many_the_first_and_the_last_among_them(network_of, batch_of):
    model, (images, labels) = network_of("batch", "rnn"), batch_of(6)
    few, every = (Probe(model, images, labels, 2, positions=count) for count in (3, 8))
    assert every.tensors()["cell", "normalized"].shape == (6, 4 * 7, 8)
    assert few.times("cell") == []  # not looked yet
    shown = few.tensors()["cell", "normalized"]
    assert torch.equal(shown, every.tensors()["cell", "normalized"][..., few.times("cell")])
    assert few.times("cell") == [0, 4, 7]
    assert few.times("output") == []
    assert Probe(model, images, labels, 2, positions=1).tensors()["cell", "linear"].shape == (6, 4 * 7, 1)


def test_only_what_is_asked_for(network_of, batch_of):
    model, (images, labels) = network_of("batch", "mlp"), batch_of(6)
    some = Probe(model, images, labels, 2, layers=["hidden*"], kinds=["normalized"])
    assert list(some.tensors()) == [("hidden1", "normalized"), ("hidden2", "normalized")]
    assert list(Probe(model, images, labels, 2, layers=["output"]).tensors()) == [("output", "linear")]


def test_nothing_is_left_behind(network_of, batch_of):
    model, (images, labels) = network_of("batch", "mlp"), batch_of(6)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    probe = Probe(model, images, labels, 2)
    for bn_mode in probe.bn_modes:
        probe.tensors(bn_mode)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(block.observer is None for block in model.modules() if isinstance(block, Block))
