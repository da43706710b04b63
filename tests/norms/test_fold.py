"""Folding whole networks, and reasons why there can't be one. Each scheme's blocks are folded by `verify`."""

from __future__ import annotations

import io

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrize

from normbench.norms import BatchNorm, NormScheme, Unfoldable, blocks, fold, use_own_share, weight_norm
from normbench.verify.folding import exported


@pytest.fixture
def trained(network_of, batch_of):
    """A network whose gains, shifts and running statistics have left where they start."""

    def train(norm: str, model: str, *words: str) -> nn.Module:
        network = network_of(norm, model, *words, quiet=True)
        optimizer = torch.optim.SGD(network.parameters(), lr=0.05)
        torch.manual_seed(0)
        for step in range(5):
            x, y = batch_of(20, seed=step)
            optimizer.zero_grad()
            F.cross_entropy(network(2 * x + 1), y).backward()
            optimizer.step()
        return network.eval()

    return train


@pytest.fixture
def difference(batch_of):
    """Largest difference between a network's logits and those of what it is folded to."""

    def found(network: nn.Module, dtype: torch.dtype) -> float:
        x, network = batch_of(50, seed=100, dtype=dtype)[0], network.to(dtype)
        return (network(x) - fold(network)[0](x)).abs().max().item()

    return found


@pytest.mark.parametrize(
    ("norm", "affine"),
    [("batch", "true"), ("batch", "false"), ("batch_renorm", "true"), ("mean_only", "false"),
     ("variance_only", "true"), ("variance_only", "false"),
     ("weight_mean_only", "true"), ("weight_standardization", "false")],
)  # fmt: skip
def test_folded_networks_have_the_same_logits(norm, affine, trained, difference):
    network = trained(norm, "cnn", f"norm.affine={affine}")
    before = {name: value.clone() for name, value in network.train().state_dict().items()}
    folded, merges = fold(network)
    assert merges
    assert all(getattr(block, "norm", None) is None for _, block in blocks(folded))
    assert not any(parametrize.is_parametrized(module) for module in folded.modules())
    # the network itself is left as it was
    assert network.training
    assert list(before) == list(network.state_dict())
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in before.items())
    network.eval()
    assert difference(network, torch.float32) < 1e-4
    assert difference(network, torch.float64) < 1e-10


@pytest.mark.parametrize("model", ["mlp", "resnet"])
def test_the_result_is_the_network_of_none(model, network_of, trained, batch_of):
    network = trained("weight_mean_only", model)
    plain = network_of("none", model, quiet=True).eval()
    plain.load_state_dict(fold(network)[0].state_dict())
    x, _ = batch_of(20, seed=100)
    torch.testing.assert_close(plain(x), network(x), rtol=1e-5, atol=1e-5)


def test_the_formula_by_hand():
    block = NormScheme(norm=BatchNorm).block(nn.Linear(2, 1), nn.ReLU).eval()
    with torch.no_grad():
        block.linear.weight.copy_(torch.tensor([[1.0, -2.0]]))
        block.norm.running_mean.fill_(3.0)
        block.norm.running_var.fill_(4.0 - 1e-5)  # the square of 2, with eps
        block.norm.weight.fill_(6.0)
        block.norm.bias.fill_(0.5)
    folded, _ = fold(nn.Sequential(block))
    torch.testing.assert_close(folded[0].linear.weight, torch.tensor([[3.0, -6.0]]))  # gamma / sigma = 3
    torch.testing.assert_close(folded[0].linear.bias, torch.tensor([-8.5]))  # 3 (0 - 3) + 0.5


@pytest.mark.parametrize(
    ("norm", "model", "words", "reason"),
    [
        ("layer", "mlp", [], "LayerNorm in hidden1 can't be folded: it divides by statistics of the example itself"),
        ("switchable", "cnn", [], "SwitchableNorm in conv1 can't be folded: it divides by statistics of the example"),
        ("dynamic_tanh", "mlp", [], "can't be folded: it keeps no running mean"),
        ("batch", "mlp", ["norm.placement=after"], "hidden1 can't be folded: the activation stands between it and the"),
        ("batch", "rnn", [], "cell can't be folded: in a recurrent cell each time step"),
        ("layer", "rnn", [], "cell can't be folded: in a recurrent cell each time step"),
        ("weight", "rnn", [], "cell can't be folded: re-parametrised weights of recurrent cells"),
    ],
)
def test_it_says_why_not(norm, model, words, reason, network_of):
    with pytest.raises(Unfoldable, match=reason):
        fold(network_of(norm, model, *words))


def test_evalnorm_is_another_factor_for_every_image(network_of):
    network = network_of("batch", "mlp")
    use_own_share(network, 8)
    with pytest.raises(Unfoldable, match="it divides by statistics of the example itself"):
        fold(network)


def test_what_folds_wherever_norms_are_or_has_nothing_to_fold(network_of, batch_of, parts_of, difference):
    assert fold(network_of("none", "rnn"))[1] == []
    net = nn.Sequential(NormScheme(reparametrize=weight_norm).block(nn.Linear(3, 2)))
    assert fold(net)[1][0].what == "weight computed once (WeightNorm)"
    scheme = parts_of("batch", "mlp", "norm.placement=after").scheme
    net = nn.Sequential(nn.Flatten(), scheme.block(nn.Linear(64, 5))).train()  # an output without an activation
    net(batch_of(20)[0])
    assert fold(net)[1][0].into == "1"
    assert difference(net.eval(), torch.float64) < 1e-12


def test_a_norm_of_torch_folds_too_unless_it_keeps_no_statistics():
    scheme = NormScheme(norm=nn.BatchNorm1d)
    net = nn.Sequential(scheme.block(nn.Linear(3, 4), nn.ReLU)).train()
    net(torch.randn(9, 3))
    x = torch.randn(5, 3)
    torch.testing.assert_close(fold(net)[0](x), net.eval()(x))
    net[0].norm = nn.BatchNorm1d(4, track_running_stats=False)
    with pytest.raises(Unfoldable, match="works with the other examples of a batch in evaluation"):
        fold(net)


def test_the_exported_program_gives_the_same_logits_for_any_batch(trained, batch_of):
    folded, _ = fold(trained("batch", "cnn"))
    program = torch.export.load(io.BytesIO(exported(folded, batch_of(1)[0][0]))).module()
    for n in (1, 2, 33):
        x, _ = batch_of(n, seed=n)
        torch.testing.assert_close(program(x), folded(x), rtol=1e-5, atol=1e-6)
