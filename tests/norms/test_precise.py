"""Exact statistics against a plain computation with all images in one batch, in float64."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from normbench.norms import (
    BatchNorm,
    GhostBatchNorm,
    MeanVar,
    NoisyBatchNorm,
    RecurrentBatchNorm,
    RecurrentGhostBatchNorm,
    exact_statistics,
    images_at_once,
    load_statistics,
    mean_and_var,
    statistics_of,
    use_batch_statistics,
)


def naive(model: nn.Module, images: Tensor) -> dict[str, MeanVar]:
    """What each norm gets when all images are one batch, which it normalises by its own statistics."""
    model = copy.deepcopy(model).eval()
    use_batch_statistics(model)
    got: dict[str, list[Tensor]] = {}
    for name, module in model.named_modules():
        if isinstance(module, (GhostBatchNorm, RecurrentGhostBatchNorm)):
            module.virtual = len(images)
        if isinstance(module, NoisyBatchNorm):
            module.noise_mean, module.noise_scale, module.noise_spread = 0.0, 1.0, 0.0
        if getattr(module, "running_mean", None) is not None:
            module.register_forward_pre_hook(lambda _, x, name=name: got.setdefault(name, []).append(x[0].double()))
    with torch.no_grad():
        model(images)
    found = {}
    for name, inputs in got.items():
        dims = (0, *range(2, inputs[0].dim()))
        mean, var = (
            torch.stack([x.mean(dims) for x in inputs]),
            torch.stack([x.var(dims, correction=0) for x in inputs]),
        )
        shape = model.get_submodule(name).running_mean.shape
        found[name] = (
            MeanVar(mean, var) if len(shape) == 2 and len(mean) == shape[0] else MeanVar(mean.mean(0), var.mean(0))
        )
    return found


def assert_close(found: dict[str, MeanVar], wanted: dict[str, MeanVar], rtol: float) -> None:
    assert list(found) == list(wanted)
    for name, (mean, var) in wanted.items():
        # against the unit's standard deviation; the eps keeps those that never vary in
        scale = (var + 1e-10).sqrt()
        assert (((found[name].mean - mean) / scale).abs() < rtol).all(), name
        assert (((found[name].var - var) / scale**2).abs() < rtol).all(), name


def test_exact_is_what_all_images_in_one_batch_have(norm_name, model_name, network_of, batch_of):
    images = batch_of(30, dtype=torch.float64)[0]
    model = network_of(norm_name, model_name, quiet=True).double()
    model(images[:8])
    wanted = naive(model, images)
    for batches in ([images], list(images.split(11)), list(images.split(20))):
        assert_close(exact_statistics(model, batches), wanted, 1e-7)
    assert wanted.keys() == statistics_of(model, "ema").keys()


@pytest.mark.parametrize("network", ["mlp", "cnn"])
def test_float32_is_as_good_as_its_rounding(network, network_of, batch_of):
    images = batch_of(2000)[0]
    model = network_of("batch", network)
    double = copy.deepcopy(model).double()
    assert_close(exact_statistics(model, [images]), naive(double, images.double()), 1e-5)
    x = torch.randn(3000, 7, 2, 2, generator=torch.Generator().manual_seed(0)) * 3 + 5
    mean, var = mean_and_var(x)
    torch.testing.assert_close(mean.double(), x.double().mean((0, 2, 3)), rtol=1e-5, atol=0)
    torch.testing.assert_close(var.double(), x.double().var((0, 2, 3), correction=0), rtol=1e-5, atol=0)


@pytest.mark.parametrize("network", ["mlp", "cnn", "rnn"])
@pytest.mark.parametrize("norm", ["batch", "mean_only"])
def test_inference_with_them_is_training_with_all_images_in_one_batch(norm, network, network_of, batch_of):
    images = batch_of(40, dtype=torch.float64)[0]
    model = network_of(norm, network, quiet=True).double()
    wanted = model(images)
    load_statistics(model, exact_statistics(model, [images]))
    torch.testing.assert_close(model.eval()(images), wanted)


def test_leaves_the_model_as_it_was_also_when_it_breaks(network_of, batch_of):
    model = network_of("batch", "cnn", dropout=0.5)
    images = batch_of(30)[0]
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    exact_statistics(model, list(images.split(11)))
    with pytest.raises(RuntimeError):
        exact_statistics(model, [images, images.flatten(1)])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())
    assert all(module.training and not module._forward_pre_hooks for module in model.modules())


def test_a_pass_ends_where_it_knows_enough(network_of, batch_of):
    model = network_of("batch", "mlp", hidden=[9, 8, 7])
    calls = dict.fromkeys(("hidden1", "hidden2", "hidden3", "output"), 0)

    def count(name: str) -> Any:
        def hook(*_: Any) -> None:
            calls[name] += 1

        return hook

    for name in calls:
        model.get_submodule(name).register_forward_pre_hook(count(name))
    images = batch_of(40)[0]
    exact_statistics(model, [images])
    assert list(calls.values()) == [1, 1, 1, 1]
    calls.update(dict.fromkeys(calls, 0))
    exact_statistics(model, list(images.split(10)))
    # 4 batches to the first norm; the last goes on, the other 3 follow; then 3 again; the last of these to the end
    assert list(calls.values()) == [4 + 3 + 3, 4 + 3, 4, 1]


def test_torchs_own_batch_norms(batch_of):
    torch.manual_seed(0)
    layers = (
        nn.Flatten(),
        nn.Linear(64, 5),
        nn.BatchNorm1d(5),
        nn.Linear(5, 4),
        nn.BatchNorm1d(4, track_running_stats=False),
    )
    model = nn.Sequential(*layers).double()
    images = batch_of(50, dtype=torch.float64)[0]
    assert_close(exact_statistics(model, list(images.split(20))), {"2": naive(model, images)["2"]}, 1e-9)
    assert statistics_of(model, "cumulative") == {}
    assert statistics_of(nn.Linear(2, 2), "ema") == {}


def test_cells_that_share_their_statistics_between_time_steps(network_of, batch_of):
    images = batch_of(30, dtype=torch.float64)[0]
    model = network_of("batch", "rnn", "norm.per_step=false", quiet=True).double()
    found = exact_statistics(model, [images])
    assert_close(found, {k: MeanVar(m[None], v[None]) for k, (m, v) in naive(model, images).items()}, 1e-9)
    load_statistics(model, found)
    norm = model.get_submodule("cell.input_norm")
    assert isinstance(norm, RecurrentBatchNorm)
    torch.testing.assert_close(norm.running_mean, found["cell.input_norm"].mean)


def test_both_averages_can_be_had():
    norm = BatchNorm(3, momentum=0.5)
    model = nn.Sequential(norm)
    batches = torch.randn(4, 10, 3, generator=torch.Generator().manual_seed(0))
    for x in batches:
        model(x)
    plain = statistics_of(model, "cumulative")["0"]
    torch.testing.assert_close(plain.mean, batches.mean((0, 1)).double())
    torch.testing.assert_close(plain.var, batches.var(1).mean(0).double())
    assert torch.equal(statistics_of(model, "ema")["0"].var, norm.running_var.double())


@pytest.mark.parametrize(("network", "floats"), [("mlp", 64), ("cnn", 4 * 8 * 8), ("rnn", 8 * 4 * 7)])
def test_how_many_images_fit_at_once(network, floats, network_of, batch_of):
    model, image = network_of("batch", network), batch_of(1)[0][0]
    assert images_at_once(model, image, largest=1000 * 4 * floats) == 1000
    assert images_at_once(model, image, largest=1) == 1
