"""Every scheme in every kind of network can be explained, and is the same afterwards."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from normbench.commands.explain import print_explanation
from normbench.errors import Unsupported, UserError
from normbench.explain.engine import explanation
from normbench.explain.place import Subject
from normbench.norms import Block, blocks, use_own_share
from tests.conftest import in_short, options_of

KINDS = ("mlp", "cnn", "resnet", "rnn")


# A model of each kind of block; the others are made of the same ones.
PAIRS = [
    pytest.param(norm, model, marks=[] if in_short(norm, model) and model in KINDS else pytest.mark.full)
    for model in options_of("model")
    for norm in options_of("norm")
]


def subject(model: torch.nn.Module, images: torch.Tensor, labels: torch.Tensor, few: int = 4) -> Subject:
    return Subject(model, "it", "it · in · a test", "not trained", images[:few], labels[:few])


def explain_all(model: torch.nn.Module, of: Subject, case: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """The first layers and the last: those between them are built like the second."""
    before = {name: value.clone() for name, value in model.state_dict().items()}
    random = torch.get_rng_state()
    layers = [name for name, block in blocks(model) if isinstance(block, Block) or block.recurrent]
    for name in dict.fromkeys([*layers[:2], layers[-1]]):
        with case(layer=name):
            steps, facts = explanation(of, name, 1)
            assert steps
            json.dumps([vars(step) for step in steps], allow_nan=False)
            for worksheet in (False, True) if name == layers[0] else ():
                print_explanation(steps, facts, worksheet)
                printed = capsys.readouterr().out
                assert max(map(len, printed.splitlines())) <= 100
                assert ("____" in printed) == (worksheet and any(step.asked for step in steps))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(module.training for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), random)


@pytest.mark.parametrize(("norm", "kind"), PAIRS)
def test_every_layer_is_explained_and_left_as_it_was(
    norm: str, kind: str, network_of: Any, batch_of: Any, capsys: pytest.CaptureFixture[str], case: Any
) -> None:
    model = network_of(norm, kind)
    explain_all(model, subject(model, *batch_of(20)), case, capsys)


@pytest.mark.parametrize("cell", ["gru", "tanh"])
@pytest.mark.parametrize("norm", ["batch", "weight"])
def test_other_cells(
    norm: str, cell: str, network_of: Any, batch_of: Any, capsys: pytest.CaptureFixture[str], case: Any
) -> None:
    model = network_of(norm, "rnn", cell=cell)
    explain_all(model, subject(model, *batch_of(20)), case, capsys)


@pytest.mark.parametrize("norm", ["batch", "layer", "mean_only"])
def test_options_of_schemes(norm: str, network_of: Any, batch_of: Any) -> None:
    """The norm after the activation; without gamma and beta."""
    for word in ("norm.placement=after", "norm.affine=false"):
        steps, _ = explanation(subject(network_of(norm, "mlp", word), *batch_of(20)), "hidden1", 0)
        [values] = [step for step in steps if step.key == "values"]
        assert ("activation" in values.formula) == (word == "norm.placement=after")


def test_inference_with_evalnorm(network_of: Any, batch_of: Any) -> None:
    """By what four values would have on average if this one were among them."""
    model = network_of("batch", "mlp")
    use_own_share(model, 4)
    of = subject(model, *batch_of(20))
    steps = {step.key: step for step in explanation(of, "hidden1", 2)[0]}
    assert "folded" not in steps
    with torch.no_grad():
        o = model.hidden1.linear(of.images[:1].flatten(1))[0, 2].item()
    norm = model.hidden1.norm
    mean, var, gamma, beta = (
        getattr(norm, name)[2].item() for name in ("running_mean", "running_var", "weight", "bias")
    )
    given, spread = (3 * mean + o) / 4, 3 / 4 * (3 / 4 * var) + 3 / 16 * (o - mean) ** 2
    z = (o - given) / (spread + 1e-5) ** 0.5
    found = [row[1] for row in steps["inference"].rows]
    assert found == pytest.approx([o, mean, var, 1 / 4, o, 0, z, gamma * z + beta], abs=1e-5)


def test_one_image_where_the_scheme_allows_it(network_of: Any, batch_of: Any) -> None:
    for norm, model in (("layer", "mlp"), ("weight", "rnn"), ("batch", "cnn"), ("selu", "mlp"), ("rms", "cnn")):
        assert explanation(subject(network_of(norm, model), *batch_of(20), few=1), None, 0)[0]
    with pytest.raises(Unsupported):
        explanation(subject(network_of("batch", "mlp"), *batch_of(20), few=1), None, 0)


def test_layers_and_units_that_do_not_exist(network_of: Any, batch_of: Any) -> None:
    for layer, unit, message in (
        ("hidden9", 0, "there is no layer hidden9. Layers of this network: hidden1, hidden2, output."),
        ("hidden1", 12, "there is no unit 12 in layer hidden1: it has 12, from 0 to 11."),
        (None, -1, "there is no unit -1 in layer hidden1: it has 12, from 0 to 11."),
    ):
        with pytest.raises(UserError, match=message):
            explanation(subject(network_of("batch", "mlp"), *batch_of(20)), layer, unit)
