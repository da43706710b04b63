"""Every scheme in every kind of network can be explained, and is the same afterwards."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch

from normbench.commands.explain import print_explanation
from normbench.errors import Unsupported, UserError
from normbench.explain.engine import explanation
from normbench.explain.place import Subject
from normbench.explain.steps import as_json
from normbench.norms import Block, blocks


def subject(model: torch.nn.Module, images: torch.Tensor, labels: torch.Tensor, few: int = 4) -> Subject:
    return Subject(model, "it", "it · in · a test", "not trained", images[:few], labels[:few])


@pytest.mark.parametrize("model_kind", ["mlp", "cnn", "rnn", "resnet", "gru", "tanh"])
def test_every_layer_is_explained_and_left_as_it_was(
    norm_name: str, model_kind: str, network_of: Any, batch_of: Any, capsys: pytest.CaptureFixture[str], case: Any
) -> None:
    cell = {"gru": {"cell": "gru"}, "tanh": {"cell": "tanh"}}.get(model_kind, {})
    model = network_of(norm_name, "rnn" if cell else model_kind, **cell)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    random = torch.get_rng_state()
    for name, block in blocks(model):
        if not isinstance(block, Block) and not block.recurrent:
            continue
        with case(layer=name):
            steps, facts = explanation(subject(model, *batch_of(20)), name, 1)
            assert steps
            json.dumps(as_json(steps, facts), allow_nan=False)
            for worksheet in (False, True):
                print_explanation(steps, facts, worksheet)
                printed = capsys.readouterr().out
                assert max(map(len, printed.splitlines())) <= 100
                assert ("____" in printed) == (worksheet and any(step.asked for step in steps))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(module.training for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), random)


@pytest.mark.parametrize("norm", ["batch", "layer", "mean_only"])
def test_options_of_schemes(norm: str, network_of: Any, batch_of: Any) -> None:
    """The norm after the activation; without gamma and beta."""
    for word, key in (("norm.placement=after", "values"), ("norm.affine=false", "values")):
        model = network_of(norm, "mlp", word)
        steps, _ = explanation(subject(model, *batch_of(20)), "hidden1", 0)
        [values] = [step for step in steps if step.key == key]
        assert ("activation" in values.formula) == (word == "norm.placement=after")


def test_one_image_where_the_scheme_allows_it(network_of: Any, batch_of: Any) -> None:
    for norm, model in (("layer", "mlp"), ("weight", "rnn"), ("batch", "cnn"), ("selu", "mlp"), ("rms", "cnn")):
        assert explanation(subject(network_of(norm, model), *batch_of(20), few=1), None, 0)[0]
    with pytest.raises(Unsupported):
        explanation(subject(network_of("batch", "mlp"), *batch_of(20), few=1), None, 0)


def test_layers_and_units_that_do_not_exist(network_of: Any, batch_of: Any) -> None:
    def asked(layer: str | None, unit: int) -> Callable[[], Any]:
        return lambda: explanation(subject(network_of("batch", "mlp"), *batch_of(20)), layer, unit)

    for question, message in (
        (asked("hidden9", 0), "there is no layer hidden9. Layers of this network: hidden1, hidden2, output."),
        (asked("hidden1", 12), "there is no unit 12 in layer hidden1: it has 12, from 0 to 11."),
        (asked(None, -1), "there is no unit -1 in layer hidden1: it has 12, from 0 to 11."),
    ):
        with pytest.raises(UserError, match=message):
            question()
