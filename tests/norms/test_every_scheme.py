"""Every scheme on disk against its closed form (`normbench.verify.definitions`) at the smallest batches, in float64."""

from __future__ import annotations

import pickle

import pytest
import torch
from formulas import assert_same
from torch import nn

from normbench.errors import Unsupported
from normbench.verify.trial import PLACES, ROOT_IN_FLOAT32, Trial


@pytest.mark.parametrize("n", [1, 2, 4])
@pytest.mark.parametrize("place", PLACES)
def test_outputs_and_gradients_in_training_and_evaluation(norm_name, place, n, scheme_of, cell_of, device):
    words = {"ghost_batch": [f"norm.virtual={min(n, 2)}"], "group": ["norm.groups=4"]}.get(norm_name, [])
    trial = Trial(scheme_of(norm_name, *words), cell_of(f"norm={norm_name}", *words).config["norm"], place, str(device))
    if (definition := trial.definition) is None:
        pytest.skip("a scheme of yours")
    block, x = trial.block(), trial.data()[:n].requires_grad_()
    tensors = [x, *(p for p in block.parameters() if p.requires_grad)]
    error = trial.limits.exact if trial.limits == ROOT_IN_FLOAT32 else 0.0
    if place == "dense" and (norm_name == "instance" or (definition.mixes and n == 1)):
        with pytest.raises(Unsupported):
            block(x)
    elif not definition.noisy:
        z = definition.linear(block.linear, x, trial.options)
        wanted = definition.finished(definition.normalised(z, block.norm, trial.options), block.norm)
        assert_same(block(x), wanted, tensors, error=error)
    if place == "dense" and norm_name == "instance":
        return
    for buffer in (getattr(block.norm, "running_mean", None), getattr(block.norm, "running_var", None)):
        if buffer is not None:
            buffer.copy_(torch.linspace(0.5, 2, len(buffer)))
    z = definition.linear(block.linear, x, trial.options)
    wanted = definition.finished(definition.evaluated(z, block.norm, trial.options), block.norm)
    assert_same(block.eval()(x), wanted, tensors, error=error)


def test_through_a_pickle_and_by_the_name_of_its_file(norm_name, scheme_of):
    x, outputs = torch.randn(40, 3, 6, 6), []
    assert scheme_of(norm_name).name == norm_name.split("/")[-1]
    for scheme in (scheme_of(norm_name), pickle.loads(pickle.dumps(scheme_of(norm_name)))):
        torch.manual_seed(0)
        outputs.append(scheme.block(nn.Conv2d(3, 4, 3), nn.ReLU)(x))
    assert torch.equal(*outputs)
