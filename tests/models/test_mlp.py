"""The MLP and the deep one: blocks, parameters counted by hand, activations by name."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from normbench.models import MLP, mlp_deep
from normbench.norms import BatchNorm, NormScheme, blocks, weight_norm

# 64 -> 12 -> 10 -> 5, by hand.
WEIGHTS = 64 * 12 + 12 * 10 + 10 * 5
HIDDEN, OUTPUT = 12 + 10, 5  # units


@pytest.mark.parametrize(
    ("norm", "words", "options", "count"),
    [
        ("none", [], {}, WEIGHTS + HIDDEN + OUTPUT),
        ("selu", [], {}, WEIGHTS + HIDDEN + OUTPUT),
        ("batch", [], {}, WEIGHTS + 2 * HIDDEN + OUTPUT),  # gamma and beta for the bias
        ("layer", [], {}, WEIGHTS + 2 * HIDDEN + OUTPUT),
        ("weight", [], {}, WEIGHTS + 2 * HIDDEN + OUTPUT),  # g and the bias
        ("weight_mean_only", [], {}, WEIGHTS + 2 * HIDDEN + OUTPUT),  # g and beta
        ("batch", ["norm.affine=false"], {}, WEIGHTS + OUTPUT),
        ("layer", ["norm.affine=false"], {}, WEIGHTS + HIDDEN + OUTPUT),
        ("weight_mean_only", ["norm.affine=false"], {}, WEIGHTS + HIDDEN + OUTPUT),
        ("batch", [], {"normalize_output": True}, WEIGHTS + 2 * HIDDEN + 2 * OUTPUT),
        ("weight", [], {"normalize_output": True}, WEIGHTS + 2 * HIDDEN + 2 * OUTPUT),
    ],
)
def test_parameters(norm, words, options, count, network_of):
    model = network_of(norm, "mlp", *words, **options)
    assert sum(p.numel() for p in model.parameters()) == count


def test_blocks_and_logits(network_of, batch_of):
    model = network_of("none", "mlp")
    assert [name for name, _ in blocks(model)] == ["hidden1", "hidden2", "output"]
    x = batch_of(3)[0]
    w = [block.linear for _, block in blocks(model)]
    torch.testing.assert_close(model(x), w[2](w[1](w[0](x.reshape(3, 64)).relu()).relu()))


def test_no_hidden_layer_is_logistic_regression():
    model = MLP(NormScheme(norm=BatchNorm), (1, 2, 2), 3, hidden=[])
    assert [name for name, _ in blocks(model)] == ["output"]
    assert sum(p.numel() for p in model.parameters()) == 4 * 3 + 3


@pytest.mark.parametrize("normalize", [True, False])
def test_normalize_output(normalize):
    scheme = NormScheme(norm=BatchNorm, reparametrize=weight_norm)
    output = MLP(scheme, (1, 4, 4), 3, hidden=[5], normalize_output=normalize).output
    assert (output.norm is not None) == hasattr(output.linear, "parametrizations") == normalize
    assert (output.linear.bias is None) == normalize
    assert output.activation is None


def test_activations(network_of):
    named = {"relu": nn.ReLU(), "sigmoid": nn.Sigmoid(), "tanh": nn.Tanh(), "leaky_relu": nn.LeakyReLU(0.1),
             "elu": nn.ELU(), "gelu": nn.GELU(), "selu": nn.SELU()}  # fmt: skip
    for name, activation in named.items():
        model, x = MLP(NormScheme(), (1, 4, 4), 3, hidden=[5], activation=name), torch.randn(6, 16)
        assert torch.equal(model.hidden1(x), activation(model.hidden1.linear(x)))
    model = network_of("selu", "mlp", activation="tanh")  # the scheme's comes first
    assert {type(block.activation) for _, block in blocks(model)} == {nn.SELU, type(None)}


@pytest.mark.parametrize("depth", [1, 8])
def test_the_deep_one_is_the_mlp_of_equal_layers(depth):
    deep = mlp_deep(NormScheme(norm=BatchNorm), (1, 4, 4), 3, depth=depth, width=5)
    assert [name for name, _ in blocks(deep)] == [f"hidden{i}" for i in range(1, depth + 1)] + ["output"]
    assert sum(p.numel() for p in deep.parameters()) == 16 * 5 + (depth - 1) * 25 + 2 * depth * 5 + 3 * 5 + 3
    plain = MLP(NormScheme(norm=BatchNorm), (1, 4, 4), 3, hidden=[5] * depth)
    plain.load_state_dict(deep.state_dict())
    x = torch.randn(7, 1, 4, 4)
    assert torch.equal(deep(x), plain(x))
