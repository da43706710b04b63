"""Each kind of statistics against a plain computation; what a network that works with them does, and leaves."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from itertools import product

import pytest
import torch
from torch import Tensor, nn

from normbench.errors import Unsupported
from normbench.norms import (
    KINDS,
    BatchNorm,
    MeanOnlyBatchNorm,
    MeanVar,
    VarianceOnlyBatchNorm,
    average_statistics,
    exact_statistics,
    images_at_once,
    load_statistics,
    mean_and_var,
    statistics_for,
    statistics_of,
    use_batch_statistics,
    use_own_share,
    working_with,
)
from normbench.norms.ghost_batch import GhostBatchNorm


def in_batches(images: Tensor) -> Callable[[int], Sequence[Tensor]]:
    return images.split


def naive(model: nn.Module, batches: Sequence[Tensor], correction: int) -> dict[str, MeanVar]:
    """Mean over `batches` of the means and variances of what each norm gets, caught by hooks on a copy whose norms work
    with the batch, without ghost batches and noise. One batch of all images, correction=0: what is exact.
    """
    model = copy.deepcopy(model).eval()
    use_batch_statistics(model, noise=False)
    seen: dict[str, list[list[Tensor]]] = {}
    for name, module in model.named_modules():
        if isinstance(module, GhostBatchNorm) and correction == 0:
            module.virtual = len(batches[0])
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
        flat = [[x.transpose(0, 1).flatten(1).double() for x in calls] for calls in passes]  # each [C, values]
        mean = torch.stack([torch.stack([x.mean(1) for x in calls]) for calls in flat]).mean(0)  # [calls, C]
        var = torch.stack([torch.stack([x.var(1, correction=correction) for x in calls]) for calls in flat]).mean(0)
        if mean.shape != norm.running_mean.shape:
            mean, var = (part.mean(0).view(norm.running_mean.shape) for part in (mean, var))
        found[name] = MeanVar(mean, var if norm.running_var is not None or correction == 0 else var * torch.nan)
    return found


def assert_close(found: dict[str, MeanVar], wanted: dict[str, MeanVar], rtol: float) -> None:
    assert list(found) == list(wanted)
    for name, (mean, var) in wanted.items():
        # against the unit's standard deviation; the eps keeps those that never vary in
        scale = (var + 1e-10).sqrt()
        assert (((found[name].mean - mean) / scale).abs() < rtol).all(), name
        assert (((found[name].var - var) / scale**2).abs() < rtol).all(), name


def test_averages_are_algorithm_2s_and_exact_is_one_batch_of_all(norm_name, model_name, network_of, batch_of):
    images = batch_of(33, dtype=torch.float64)[0]
    model = network_of(norm_name, model_name, quiet=True).double()
    model(images[:8])
    found = statistics_for(model, "averages", in_batches(images), 10)  # the 3 that are left over play no part
    wanted = naive(model, images[:30].split(10), 1)
    assert found.keys() == wanted.keys() == statistics_of(model).keys()
    for name in wanted:
        torch.testing.assert_close(tuple(found[name]), tuple(wanted[name]), rtol=1e-9, atol=1e-12, equal_nan=True)
    assert_close(exact_statistics(model, images), naive(model, [images], 0), 1e-7)


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
    whole = torch.cat(inputs)
    exact = MeanVar(whole.mean(0), whole.var(0, correction=0))
    for kind, wanted in (("ema", ema), ("precise", exact)):
        found = statistics_for(model, kind, in_batches(images), 10)["hidden1.norm"]
        torch.testing.assert_close(tuple(found), tuple(wanted), rtol=1e-10, atol=1e-10)
    assert statistics_for(model, "batch", in_batches(images), 10) == {}


@pytest.mark.parametrize("m", [2, 4, 16])
def test_averages_are_unbiased_in_the_first_norm_and_m_over_m_minus_1_behind_it(m):
    """Behind a norm without a non-linearity in between, the sum over m standardised values is 0 and that of their
    squares m: the variance divided by m - 1 is m/(m-1), of whatever data.
    """
    rng, count = torch.Generator().manual_seed(0), 1600
    x = 3 * torch.randn(count, 5, generator=rng, dtype=torch.float64) + 2
    model = nn.Sequential(BatchNorm(5, eps=1e-12), BatchNorm(5, eps=1e-12)).double()
    first, second = average_statistics(model, x.split(m)).values()
    noise = (2 / (m - 1) / (count / m)) ** 0.5  # standard error of the mean of so many variances of m normal values
    ratio = first.var / x.var(0, correction=0)
    assert ((ratio - 1).abs() < 4.5 * noise).all()
    torch.testing.assert_close(first.mean, x.mean(0))
    torch.testing.assert_close(second.var, torch.full((5,), m / (m - 1)).double(), rtol=1e-4, atol=0)
    exact = list(exact_statistics(model, x).values())
    torch.testing.assert_close(exact[1].var, torch.ones(5).double())


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_is_alone_with_every_kind_but_batch_and_everything_is_as_it_was_afterwards(
    kind, norm_name, network_of, batch_of
):
    images = batch_of(24, dtype=torch.float64)[0]
    model = network_of(norm_name, "cnn", dropout=0.5).double()
    model(images[:8]).sum().backward()
    before, random = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    gradients = [parameter.grad for parameter in model.parameters()]
    found = statistics_for(model, kind, in_batches(images), 8)
    with pytest.raises(RuntimeError), working_with(model, kind, found, 8):  # noqa: PT012
        assert not model.training
        outputs = [torch.cat([model(part) for part in images.split(size)]) for size in (1, 2, 24)]
        model(images[:, :, :1].flatten(1))  # it breaks
    alone = kind != "batch" or not statistics_of(model)
    for other in outputs[1:]:
        assert torch.allclose(outputs[0], other, rtol=1e-9, atol=1e-9) == alone
    after = model.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert torch.equal(random, torch.get_rng_state())
    assert all(was is parameter.grad for was, parameter in zip(gradients, model.parameters(), strict=True))
    assert all(module.training and not module._forward_pre_hooks and not module._forward_hooks
               and getattr(module, "noisy", True) for module in model.modules())  # fmt: skip
    assert all(getattr(module, "own_share", None) is None for module in model.modules())


def test_with_batch_one_batch_does_not_change_the_next_and_one_value_is_no_batch(network_of, batch_of):
    images = batch_of(8)[0]
    model = network_of("batch_renorm", "mlp", "norm.warmup_steps=0")  # works with its averages, too
    model(images)
    with working_with(model, "batch", {}):
        assert torch.equal(model(images), model(images))
    with pytest.raises(Unsupported), working_with(model, "batch", {}):
        model(images[:1])


@pytest.mark.parametrize("kind", [BatchNorm, VarianceOnlyBatchNorm, MeanOnlyBatchNorm])
@pytest.mark.parametrize(("size", "sides"), [(1, (3, 1)), (2, ()), (2, (2, 2)), (4, ()), (4, (1, 2))])
def test_evalnorm_is_the_mean_over_every_mini_batch_with_the_image(kind, size, sides):
    """Three images; all mini-batches that can be drawn from them, with replacement, are counted out."""
    torch.manual_seed(0)
    images = torch.randn(3, 2, *sides, dtype=torch.float64) + torch.randn(3, 2, *[1] * len(sides), dtype=torch.float64)
    together = {draw: torch.stack([images[i] for i in draw], 1).flatten(1) for draw in product(range(3), repeat=size)}
    norm = kind(2).double().eval()
    norm.running_mean.copy_(torch.stack([values.mean(1) for values in together.values()]).mean(0))
    if kind is not MeanOnlyBatchNorm:
        norm.running_var.copy_(torch.stack([values.var(1) for values in together.values()]).mean(0))
    use_own_share(norm, size)
    for i, y in enumerate(norm(images)):
        batches = [values for draw, values in together.items() if draw[0] == i]  # each with the others in every way
        mean, var = (torch.stack(found).mean(0).view(-1, *[1] * len(sides)) for found in (
            [values.mean(1) for values in batches], [values.var(1, correction=0) for values in batches]
        ))  # fmt: skip
        centred = images[i] if kind is VarianceOnlyBatchNorm else images[i] - mean
        wanted = centred if kind is MeanOnlyBatchNorm else centred / (var + norm.eps).sqrt()
        torch.testing.assert_close(y, wanted, rtol=1e-12, atol=1e-12)


def test_evalnorm_of_ghost_batches_and_of_time_steps():
    torch.manual_seed(0)
    ghosts, batch = GhostBatchNorm(3, virtual=4), BatchNorm(3)
    cell = BatchNorm.in_cell(3, 2, "state", gamma=1.0)
    x = torch.randn(8, 3)
    ghosts(x)
    batch.load_state_dict(ghosts.state_dict())
    for kept in ("running_mean", "running_var"):
        getattr(cell, kept)[1] = getattr(ghosts, kept)
    for norm, size in ((ghosts, 8), (batch, 4), (cell, 4)):
        use_own_share(norm.eval(), size)
    torch.testing.assert_close(ghosts(x), batch(x))
    torch.testing.assert_close(cell(x, 1), batch(x))


# ---- exact statistics


@pytest.mark.parametrize("network", ["mlp", "cnn"])
def test_float32_is_as_good_as_its_rounding(network, network_of, batch_of):
    images = batch_of(2000)[0]
    model = network_of("batch", network)
    double = copy.deepcopy(model).double()
    assert_close(exact_statistics(model, images), naive(double, [images.double()], 0), 1e-5)
    x = torch.randn(3000, 7, 2, 2, generator=torch.Generator().manual_seed(0)) * 3 + 5
    mean, var = mean_and_var(x)
    torch.testing.assert_close(mean.double(), x.double().mean((0, 2, 3)), rtol=1e-5, atol=0)
    torch.testing.assert_close(var.double(), x.double().var((0, 2, 3), correction=0), rtol=1e-5, atol=0)


@pytest.mark.parametrize(("norm", "network"), [("batch", "cnn"), ("batch", "rnn"), ("mean_only", "mlp")])
def test_inference_with_them_is_training_with_all_images_in_one_batch(norm, network, network_of, batch_of):
    images = batch_of(40, dtype=torch.float64)[0]
    model = network_of(norm, network, quiet=True).double()
    wanted = model(images)
    load_statistics(model, exact_statistics(model, images))
    torch.testing.assert_close(model.eval()(images), wanted)


def test_torchs_own_batch_norms(batch_of):
    torch.manual_seed(0)
    untracked = nn.BatchNorm1d(4, track_running_stats=False)
    layers = (nn.Flatten(), nn.Linear(64, 5), nn.BatchNorm1d(5), nn.Linear(5, 4), untracked)
    model = nn.Sequential(*layers).double()
    images = batch_of(50, dtype=torch.float64)[0]
    assert_close(exact_statistics(model, images), {"2": naive(model, [images], 0)["2"]}, 1e-9)
    [averages] = average_statistics(model, images.split(10)).values()
    torch.testing.assert_close(tuple(averages), tuple(naive(model, images.split(10), 1)["2"]))
    assert statistics_of(nn.Linear(2, 2)) == {}


def test_cells_that_share_their_statistics_between_time_steps(network_of, batch_of):
    images = batch_of(30, dtype=torch.float64)[0]
    model = network_of("batch", "rnn", "norm.per_step=false", quiet=True).double()
    found = exact_statistics(model, images)
    assert_close(found, {k: MeanVar(m[None], v[None]) for k, (m, v) in naive(model, [images], 0).items()}, 1e-9)
    load_statistics(model, found)
    norm = model.get_submodule("cell.input_norm")
    assert norm.running_mean.shape == (1, 28)
    torch.testing.assert_close(norm.running_mean, found["cell.input_norm"].mean)


@pytest.mark.parametrize(("network", "floats"), [("mlp", 64), ("cnn", 4 * 8 * 8), ("rnn", 8 * 4 * 7)])
def test_how_many_images_fit_at_once(network, floats, network_of, batch_of):
    model, image = network_of("batch", network), batch_of(1)[0][0]
    assert images_at_once(model, image, largest=1000 * 4 * floats) == 1000
    assert images_at_once(model, image, largest=1) == 1
