"""Each kind of statistics against a plain computation; what a network that works with them does, and leaves."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor, nn

from normbench.errors import Unsupported
from normbench.norms import (
    KINDS,
    BatchNorm,
    Block,
    MeanVar,
    NormScheme,
    average_statistics,
    exact_statistics,
    statistics_for,
    statistics_of,
    use_batch_statistics,
    working_with,
)


def in_batches(images: Tensor) -> Callable[[int], Sequence[Tensor]]:
    return images.split


def naive_averages(model: nn.Module, batches: Sequence[Tensor]) -> dict[str, MeanVar]:
    """Algorithm 2, with the inputs of each norm caught by a hook on a copy whose norms work with the batch."""
    model = copy.deepcopy(model).eval()
    use_batch_statistics(model)
    seen: dict[str, list[list[Tensor]]] = {}
    for name, module in model.named_modules():
        if hasattr(module, "noise_mean"):
            module.noise_mean, module.noise_scale, module.noise_spread = 0.0, 1.0, 0.0
        if getattr(module, "running_mean", None) is not None:
            module.register_forward_pre_hook(lambda _, x, name=name: seen.setdefault(name, [[]])[-1].append(x[0]))
    for images in batches:
        for calls in seen.values():
            calls.append([])
        with torch.no_grad():
            model(images)
    found = {}
    for name, passes in seen.items():
        norm = model.get_submodule(name)
        flat = [[x.transpose(0, 1).flatten(1) for x in calls] for calls in passes]  # each [C, values]
        mean = torch.stack([torch.stack([x.mean(1) for x in calls]) for calls in flat]).mean(0)  # [calls, C]
        var = torch.stack([torch.stack([x.var(1, correction=1) for x in calls]) for calls in flat]).mean(0)
        if mean.shape != norm.running_mean.shape:
            mean, var = (part.mean(0).view(norm.running_mean.shape) for part in (mean, var))
        found[name] = MeanVar(mean, var if hasattr(norm, "running_var") else var * torch.nan)
    return found


def test_averages_are_those_of_algorithm_2(norm_name, model_name, network_of, batch_of):
    images = batch_of(33, dtype=torch.float64)[0]
    model = network_of(norm_name, model_name, quiet=True).double()
    model(images[:8])
    found = statistics_for(model, "averages", in_batches(images), 10)  # the 3 that are left over play no part
    wanted = naive_averages(model, images[:30].split(10))
    assert found.keys() == wanted.keys() == statistics_of(model, "ema").keys()
    for name in wanted:
        torch.testing.assert_close(tuple(found[name]), tuple(wanted[name]), rtol=1e-9, atol=1e-12, equal_nan=True)


def test_the_other_kinds_are_what_they_are_called(network_of, batch_of):
    images = batch_of(40, dtype=torch.float64)[0]
    model = network_of("batch", "mlp", "norm.momentum=0.3").double()
    inputs: list[Tensor] = []
    model.hidden1.norm.register_forward_pre_hook(lambda _, x: inputs.append(x[0].detach()))
    ema = MeanVar(torch.zeros(12).double(), torch.ones(12).double())
    for x in images.split(10):
        model(x)
        new = inputs[-1].mean(0), inputs[-1].var(0)
        ema = MeanVar(*(0.7 * old + 0.3 * now for old, now in zip(ema, new, strict=True)))
    plain = MeanVar(*(torch.stack([f(x) for x in inputs]).mean(0) for f in (lambda x: x.mean(0), lambda x: x.var(0))))
    whole = torch.cat(inputs)
    exact = MeanVar(whole.mean(0), whole.var(0, correction=0))
    for kind, wanted in (("ema", ema), ("cumulative", plain), ("precise", exact)):
        found = statistics_for(model, kind, in_batches(images), 10)["hidden1.norm"]
        torch.testing.assert_close(tuple(found), tuple(wanted), rtol=1e-10, atol=1e-10)
    assert statistics_for(model, "batch", in_batches(images), 10) == {}


@pytest.mark.parametrize("m", [2, 4, 16])
def test_averages_are_unbiased_in_the_first_norm_and_m_over_m_minus_1_behind_it(m):
    """Behind a norm without a non-linearity in between, the sum over m standardised values is 0 and that of their
    squares m: the variance divided by m - 1 is m/(m-1), of whatever data.
    """
    rng = torch.Generator().manual_seed(0)
    x = 3 * torch.randn(40_000, 5, generator=rng, dtype=torch.float64) + 2
    model = nn.Sequential(BatchNorm(5, eps=1e-12), BatchNorm(5, eps=1e-12)).double()
    first, second = average_statistics(model, x.split(m)).values()
    noise = (2 / (m - 1) / (40_000 / m)) ** 0.5  # standard error of the mean of so many variances of m normal values
    ratio = first.var / x.var(0, correction=0)
    assert ((ratio - 1).abs() < 4.5 * noise).all()
    torch.testing.assert_close(first.mean, x.mean(0))
    torch.testing.assert_close(second.var, torch.full((5,), m / (m - 1)).double(), rtol=1e-4, atol=0)
    exact = list(exact_statistics(model, [x]).values())
    torch.testing.assert_close(exact[1].var, torch.ones(5).double())


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-10)])
def test_precise_is_what_all_images_have(dtype, tolerance, network_of, batch_of):
    images = batch_of(3000, dtype=torch.float64)[0]
    model = network_of("batch", "mlp").double()
    h = images.flatten(1)
    wanted = []
    with torch.no_grad():
        for block in (model.hidden1, model.hidden2):
            h = h @ block.linear.weight.T
            wanted.append(MeanVar(h.mean(0), h.var(0, correction=0)))
            h = ((h - h.mean(0)) / (h.var(0, correction=0) + 1e-5).sqrt()).relu()  # gamma is 1 and beta 0 at the start
    found = statistics_for(model.to(dtype), "precise", in_batches(images.to(dtype)), 10)
    for got, (mean, var) in zip(found.values(), wanted, strict=True):
        assert ((got.mean - mean) / var.sqrt()).abs().max() < tolerance
        assert (got.var / var - 1).abs().max() < tolerance


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_is_alone_with_every_kind_but_batch(kind, norm_name, network_of, batch_of):
    images = batch_of(64, dtype=torch.float64)[0]
    model = network_of(norm_name, "cnn", dropout=0.5).double()
    model(images[:8])
    with working_with(model, kind, statistics_for(model, kind, in_batches(images), 8)):
        outputs = [torch.cat([model(part) for part in images.split(size)]) for size in (1, 2, 64)]
    alone = kind != "batch" or not statistics_of(model, "ema")
    for other in outputs[1:]:
        assert torch.allclose(outputs[0], other, rtol=1e-9, atol=1e-9) == alone


@pytest.mark.parametrize("kind", KINDS)
def test_everything_is_as_it_was_afterwards_also_when_it_breaks(kind, norm_name, network_of, batch_of):
    images = batch_of(24)[0]
    model = network_of(norm_name, "cnn", dropout=0.5)
    model(images[:8]).sum().backward()
    before, random = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    gradients = [parameter.grad for parameter in model.parameters()]
    found = statistics_for(model, kind, in_batches(images), 8)
    with pytest.raises(RuntimeError), working_with(model, kind, found):  # noqa: PT012
        assert not model.training
        model(images)
        model(images[:, :, :1].flatten(1))
    after = model.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert torch.equal(random, torch.get_rng_state())
    assert all(was is parameter.grad for was, parameter in zip(gradients, model.parameters(), strict=True))
    assert all(module.training and not module._forward_pre_hooks and not module._forward_hooks
               and getattr(module, "noisy", True) for module in model.modules())  # fmt: skip


def test_a_batch_of_batch_renorm_does_not_change_the_next(network_of, batch_of):
    images = batch_of(8)[0]
    model = network_of("batch_renorm", "mlp", "norm.warmup_steps=0")
    model(images)
    with working_with(model, "batch", {}):
        first, second = model(images), model(images)
    assert torch.equal(first, second)


def test_one_value_per_unit_is_no_batch(network_of, batch_of):
    model, images = network_of("batch", "mlp"), batch_of(1)[0]
    with pytest.raises(Unsupported), working_with(model, "batch", {}):
        model(images)


def test_torchs_own_batch_norm(batch_of):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), Block(nn.Linear(64, 6), nn.BatchNorm1d(6), nn.ReLU())).double()
    images = batch_of(30, dtype=torch.float64)[0]
    model(images)
    [found] = statistics_for(model, "averages", in_batches(images), 10).values()
    torch.testing.assert_close(tuple(found), tuple(naive_averages(model, images.split(10))["1.norm"]))


def test_a_scheme_knows_its_kinds():
    assert NormScheme().statistics == "ema"
    with pytest.raises(ValueError, match=r"norm\.statistics must be one of ema, .*, batch: got running\."):
        NormScheme(statistics="running")  # type: ignore[arg-type]
