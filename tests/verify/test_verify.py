"""`verify` passes what is right, at other options too, and fails what is wrong, in the check that it concerns."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from normbench.norms import BatchNorm, LayerNorm, MeanOnlyBatchNorm, NormScheme, weight_norm
from normbench.verify import Result, verify
from normbench.verify.checks import CHECKS
from normbench.verify.definitions import DEFINITIONS


@pytest.fixture
def found(cell_of, scheme_of) -> Callable[..., list[Result]]:
    def found(norm: str, *words: str) -> list[Result]:
        sizes = {"group": ["norm.groups=4"], "ghost_batch": ["norm.virtual=8"]}.get(norm, [])
        words = (*sizes, *words)
        return verify(scheme_of(norm, *words), cell_of(f"norm={norm}", *words).config["norm"])

    return found


def failures(results: list[Result]) -> list[Result]:
    return [result for result in results if result.passed is False]


def test_every_scheme_on_disk_passes(norm_name, found):
    results = found(norm_name)
    assert not failures(results)
    assert {result.check for result in results} - {"supported"} == set(CHECKS)
    if norm_name in DEFINITIONS:
        assert sum(bool(result.passed) for result in results) > 8


@pytest.mark.parametrize(
    ("norm", "words"),
    [
        ("batch", ["norm.eps=0.1", "norm.momentum=0.7", "norm.affine=false"]),
        ("batch", ["norm.placement=after"]),
        ("ghost_batch", ["norm.virtual=5"]),
        ("ghost_batch", ["norm.update_per=ghost_batch"]),
        ("batch_renorm", ["norm.warmup_steps=0"]),
        ("group", ["norm.channels_per_group=8"]),
        ("layer", ["norm.eps=0.1", "norm.affine=false"]),
        ("rms", ["norm.eps=0.1"]),
        ("mean_only", ["norm.momentum=1.0"]),
        ("weight_standardization", ["norm.gain=1.0", "norm.affine=false"]),
    ],
)
def test_options_are_followed(norm, words, found):
    assert not failures(found(norm, *words))


def test_it_leaves_the_random_numbers_alone(found):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    found("batch")
    assert torch.equal(torch.get_rng_state(), before)


class Wrong(BatchNorm):
    """Batch norm written out, with one thing after the other wrong."""

    unbiased, running_biased, updates, swapped, root, applies, centred, detached = False, False, 1, False, True, 1, 1, 0

    def forward(self, x: Tensor) -> Tensor:
        dims, view = (0, *range(2, x.dim())), (1, -1, *[1] * (x.dim() - 2))
        if self.training:
            var, mean = torch.var_mean(x, dims, correction=int(self.unbiased))
            running = x.var(dims, correction=int(not self.running_biased)).detach()
            momentum = 1 - self.momentum if self.swapped else self.momentum
            for _ in range(self.updates):
                self.running_mean.lerp_(mean.detach(), momentum)
                self.running_var.lerp_(running, momentum)
            self.num_batches_tracked += 1
        else:
            mean, var = self.running_mean, self.running_var
        if self.detached:
            mean, var = mean.detach(), var.detach()
        sigma = (var + self.eps).sqrt() if self.root else var + self.eps
        y = (x - self.centred * mean.view(view)) / sigma.view(view)
        return y * self.weight.view(view) + self.bias.view(view) if self.applies else y


def test_the_right_one_written_out_passes():
    assert not failures(verify(NormScheme("batch", norm=Wrong), {}))


@pytest.mark.parametrize(
    ("mistake", "check"),
    [
        ({"unbiased": True}, "reference"),
        ({"updates": 2}, "statistics"),
        ({"updates": 0}, "statistics"),
        ({"running_biased": True}, "statistics"),
        ({"swapped": True}, "statistics"),
        ({"root": False}, "reference"),
        ({"applies": 0}, "reference"),
        ({"centred": 0}, "invariance"),
        ({"detached": 1}, "gradient"),
    ],
)
def test_a_wrong_batch_norm_fails_in_dense_layers_and_convolutions(mistake, check):
    results = failures(verify(NormScheme("batch", norm=type("Mistaken", (Wrong,), mistake)), {}))
    assert {result.place for result in results if result.check == check} == {"dense", "convolution"}
    if set(mistake) <= {"updates", "swapped", "running_biased"}:
        assert {result.check for result in results} == {check}


class WrongGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 1

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return gradient * 1.01


class Sloppy(BatchNorm):
    def forward(self, x: Tensor) -> Tensor:
        return WrongGradient.apply(super().forward(x))


def test_a_wrong_gradient_fails_alone():
    results = verify(NormScheme("batch", norm=Sloppy), {})
    assert {result.check for result in failures(results)} == {"gradient"}


class BatchInEvaluation(nn.Module):
    def __init__(self, features: int) -> None:
        super().__init__()
        self.inner = nn.BatchNorm1d(features, affine=False, track_running_stats=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x.flatten(2) if x.dim() > 2 else x).view_as(x)


class UnbiasedLayer(LayerNorm):
    def forward(self, x: Tensor) -> Tensor:
        dims = tuple(range(1, x.dim()))
        view = (1, -1, *[1] * (x.dim() - 2))
        y = (x - x.mean(dims, keepdim=True)) / (x.var(dims, keepdim=True) + self.eps).sqrt()
        return y * self.weight.view(view) + self.bias.view(view)


def length_of_the_matrix(linear: nn.Module) -> nn.Module:
    weight_norm(linear)
    linear.parametrizations.weight[0].dim = -1  # one length for the whole matrix
    return linear


@pytest.mark.parametrize(
    ("scheme", "check", "fault"),
    [
        (NormScheme("layer", norm=UnbiasedLayer), "reference", "training"),
        (NormScheme("layer", norm=MeanOnlyBatchNorm), "batch mixing", "training: an example depends on the others"),
        (NormScheme("mine", norm=BatchInEvaluation), "batch mixing", "evaluation: an example depends on the others"),
        (NormScheme("weight", reparametrize=length_of_the_matrix), "reference", "training"),
        (NormScheme("selu", activation=partial(nn.ELU, alpha=1.67)), "reference", "training"),
        (NormScheme("none", norm=BatchNorm), "statistics", "changed where nothing may"),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_other_schemes_that_are_not_what_they_are_called(scheme, check, fault):
    assert any(fault in result.note for result in failures(verify(scheme, {})) if result.check == check)


class Crashing(nn.Module):
    def __init__(self, features: int) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype == torch.float64:
            raise RuntimeError("not in float64")
        return F.relu(x)


def test_what_a_norm_raises_is_a_failure_of_its_own():
    results = verify(NormScheme("mine", norm=Crashing), {})
    assert {result.note for result in results} == {"RuntimeError: not in float64"}
    assert len(failures(results)) == 2


def test_a_norm_without_reference_is_tried_all_the_same(scheme_of):
    results = verify(NormScheme("mine", norm=BatchNorm), {})
    assert not failures(results)
    passed = {result.check for result in results if result.passed}
    assert {"sane", "batch mixing", "fold", "gradient"} <= passed
    assert {result.check for result in results if result.passed is None} >= {"reference", "torch", "statistics"}
    [dense, _] = [result for result in results if result.check == "invariance"]
    assert dense.note == "unmoved by matrix scaled, vector scaled, data scaled, data shifted"
