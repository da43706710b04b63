"""What may be scaled without an effect, found by trying, is what the formulas of the norms say."""

from __future__ import annotations

import pytest
import torch
from looking import assert_same
from short_run import everything, short_run
from torch import Tensor, nn

from normbench.instruments.scale_invariance import scale_invariance
from normbench.norms import BatchNorm, LayerNorm, NormScheme, RMSNorm

# Of hidden layers; an LSTM has no published place for these two, and stays the plain cell.
KINDS = {
    "batch": "row", "ghost_batch": "row", "batch_renorm": "row", "noisy_batch": "row", "instance": "row",
    "weight": "row", "weight_mean_only": "row", "weight_standardization": "row",
    "layer": "matrix", "layer2d": "matrix", "group": "matrix", "rms": "matrix",
    "none": "", "selu": "", "mean_only": "", "dynamic_tanh": "",
}  # fmt: skip
PLAIN_CELL = ("batch_renorm", "noisy_batch")


def test_every_scheme_in_every_model(norm_name, model_name, network_of, batch_of):
    run = short_run(network_of(norm_name, model_name, dropout=0.5), batch_of, updates=0)
    before = everything(run)
    found = scale_invariance(run.model, batch_of(8)[0])
    assert_same(before, everything(run))
    plain = model_name == "rnn" and norm_name in PLAIN_CELL
    hidden = {key: kind for key, kind in found.items() if key[0] != "output"}
    # A scheme that is not in the table is one that was added: that it is looked at is enough.
    assert set(hidden.values()) <= {"" if plain else KINDS[norm_name]} if norm_name in KINDS else hidden
    assert found["output", "w"] == "" or model_name == "convpool_c"  # which normalises it, too


@pytest.mark.parametrize("updates", [1, 30])
@pytest.mark.parametrize("norm", ["batch", "layer", "weight", "none"])
@pytest.mark.parametrize("model", ["mlp", "rnn"])
def test_the_answer_does_not_depend_on_how_far_training_is(updates, norm, model, network_of, batch_of):
    run = short_run(network_of(norm, model), batch_of, updates=updates, lr=0.01)
    found = scale_invariance(run.model, batch_of(8)[0])
    assert {kind for (layer, _), kind in found.items() if layer != "output"} == {KINDS[norm]}


class Largest(nn.Module):
    """Somebody's own norm: each unit is divided by its largest absolute value in the batch. gamma starts near 0."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.full((features,), 1e-3)), nn.Parameter(torch.zeros(features))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x / x.abs().amax(0) + self.bias


@pytest.mark.parametrize(
    ("scheme", "kind"),
    [
        (NormScheme(norm=Largest), "row"),
        (NormScheme(norm=BatchNorm, placement="after"), ""),  # ReLU(w x + b): b is not scaled with w
        (NormScheme(norm=lambda features: BatchNorm(features, affine=False)), "row"),
        (NormScheme(norm=lambda features: BatchNorm(features, eps=1.0)), ""),  # as large as the variance
        (NormScheme(norm=lambda features: LayerNorm(features, affine=False)), ""),  # as without affine a bias is left
        (NormScheme(norm=RMSNorm), "matrix"),
        (NormScheme(norm=RMSNorm, reparametrize=nn.utils.parametrizations.weight_norm), "row"),
        (NormScheme(reparametrize=nn.utils.parametrizations.spectral_norm), "matrix"),
    ],
)
def test_whatever_the_norm(scheme, kind):
    torch.manual_seed(0)
    model = nn.Sequential(scheme.block(nn.Linear(8, 6), nn.ReLU), scheme.block(nn.Linear(6, 6), nn.ReLU))
    found = scale_invariance(model.train(), torch.randn(16, 8))
    assert found == {("0", "w"): kind, ("1", "w"): kind}


def test_a_unit_alone_is_a_row():
    model = nn.Sequential(NormScheme(norm=BatchNorm).block(nn.Linear(8, 1)))
    assert scale_invariance(model.train(), torch.randn(16, 8)) == {("0", "w"): "row"}
