"""Every scheme in every model at the smallest batches: it trains, or it is refused, and said so before it starts."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from normbench.errors import Unsupported
from normbench.experiment import build, check_supported
from normbench.models import LSTMCell, RecurrentCell
from normbench.norms import Block, blocks, uses_batch
from normbench.training.loop import steps
from normbench.training.optimizers import make_optimizer


@pytest.fixture
def check(parts_of: Any, cell_of: Any) -> Callable[..., None]:
    """`check("batch", "mlp", 4)` raises what a run would raise before it starts."""

    def run(norm: str, model: str, batch_size: int, **options: Any) -> None:
        config = {**cell_of(f"model={model}").config, "batch_size": batch_size}
        check_supported(config, parts_of(norm, model, **options), (1, 8, 8), 5)

    return run


def test_trains_or_is_refused(norm_name, model_name, network_of, check, batch_of, device, case):
    for normalized_output, batch_size in ((False, 1), (True, 2), (False, 4)):
        with case(batch_size=batch_size, normalized_output=normalized_output):
            torch.manual_seed(0)
            options = {"normalize_output": normalized_output}
            x, y = (tensor.to(device) for tensor in batch_of(batch_size))
            random = torch.get_rng_state()
            try:
                model = network_of(norm_name, model_name, skip=False, **options).to(device)
                F.cross_entropy(model(x), y)
            except Unsupported as refusal:
                with pytest.raises(Unsupported, match=re.escape(str(refusal))):
                    check(norm_name, model_name, batch_size, **options)
                continue
            torch.set_rng_state(random)
            check(norm_name, model_name, batch_size, **options)
            assert torch.equal(random, torch.get_rng_state())  # checking draws none
            before = {name: p.detach().clone() for name, p in model.named_parameters()}
            optimizer = make_optimizer("adam", model, lr=0.001)
            *_, last = steps(model, iter([(x, y)]), optimizer)
            assert last.loss is not None
            assert last.loss.isfinite()
            for name, parameter in model.named_parameters():
                assert parameter.grad is not None, name
                assert parameter.grad.isfinite().all(), name
                assert parameter.isfinite().all(), name
            assert any(not torch.equal(before[name], p) for name, p in model.named_parameters())


@pytest.mark.parametrize(("norm", "who"), [("batch", "BatchNorm"), ("weight_mean_only", "Mean-only batch norm")])
def test_one_value_per_feature_is_refused(norm, who, check):
    message = f"{who} needs two values per feature to train: got a batch of 1. Use batch_size=2 or more, or norm=layer."
    channels = [4, 4, 4, 4, 4]  # 8 -> 4 -> 2 -> 1: the last ones see one position
    for model, options in (("mlp", {}), ("rnn", {}), ("cnn", {"channels": channels})):
        with pytest.raises(Unsupported, match=re.escape(message)):
            check(norm, model, 1, **options)
        check(norm, model, 2, **options)
    check(norm, "cnn", 1)
    with pytest.raises(Unsupported, match="LayerNorm needs two features"):
        check("layer", "mlp", 8, hidden=[1])


def test_no_parameter_is_dead(norm_name, model_name, network_of, batch_of, case):
    # In float64 a bias that a norm subtracts again gets a gradient of about 1e-17, a living one mostly of 1e-3 or more;
    # vgg11's last ones get 1e-8, because its 3x3 convolutions see one position of nine here and the logits are tiny.
    for normalized_output in (False, True):
        with case(normalized_output=normalized_output):
            torch.manual_seed(0)
            try:
                model = network_of(norm_name, model_name, skip=False, normalize_output=normalized_output).double()
            except Unsupported:
                continue
            x, y = batch_of(20, dtype=torch.float64)
            F.cross_entropy(model(x), y).backward()
            for name, parameter in model.named_parameters():
                assert parameter.grad is not None, name
                assert parameter.grad.abs().max() > 1e-12, name


def test_every_place_of_a_kernel_reads_a_signal(model_name, network_of, batch_of):
    if model_name == "convpool_c":
        with pytest.raises(ValueError, match="3x3"):
            network_of("batch", model_name, shape=(1, 1, 40))
        return
    options = {"sequence": "pixels"} if model_name == "rnn" else {}
    model = network_of("batch", model_name, shape=(1, 1, 40), **options)
    F.cross_entropy(model(batch_of(8, (1, 1, 40))[0]), batch_of(8)[1]).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad.any(), name
        assert parameter.dim() < 4 or parameter.grad.abs().amax((0, 1)).min() > 0, name


def test_batch_mates_matter_in_training_alone_and_only_where_a_norm_uses_the_batch(
    norm_name, model_name, network_of, batch_of, device
):
    model = network_of(norm_name, model_name, quiet=True).to(device).double()
    x = batch_of(6, dtype=torch.float64)[0].to(device)
    others = torch.cat([x[:1], 2 * x[1:] + 1])
    uses = any(uses_batch(module) for module in model.modules())
    assert uses == (norm_name in ("batch", "weight_mean_only")) or norm_name not in ("none", "layer", "weight", "selu")
    for training in (True, False):
        model.train(training)
        with torch.no_grad():
            moved = (model(x)[0] - model(others)[0]).abs().max()
        assert moved > 1e-4 if training and uses else moved < 1e-12
    with torch.no_grad():  # one image is what it is among many
        torch.testing.assert_close(torch.cat([model(image[None]) for image in x]), model(x))


def test_noise_is_drawn_in_training_and_where_it_is_asked_for_alone(norm_name, model_name, network_of, batch_of):
    x = batch_of(8)[0]
    model = network_of(norm_name, model_name, quiet=True)
    state = torch.get_rng_state()
    model(x)
    assert torch.equal(state, torch.get_rng_state()) or norm_name == "noisy_batch"
    model = network_of(norm_name, model_name, quiet=True, **{"dropout": 0.5})
    found = [module for module in model.modules() if isinstance(module, nn.modules.dropout._DropoutNd)]
    assert {type(module).__name__ for module in found} == {"AlphaDropout" if norm_name == "selu" else "Dropout"}
    assert {module.p for module in found} == {0.5}
    assert all(block.dropout is None for name, block in blocks(model) if name == "output")
    assert not torch.equal(model(x), model(x))
    model.eval()
    assert torch.equal(model(x), model(x))


def test_a_state_dict_goes_through_a_file(norm_name, model_name, network_of, batch_of, tmp_path):
    model, other = network_of(norm_name, model_name), network_of(norm_name, model_name, seed=1)
    x = batch_of(4)[0]
    model(x)
    torch.save(model.state_dict(), tmp_path / "model.pt")
    other.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
    with torch.no_grad():
        assert torch.equal(model.eval()(x), other.eval()(x))


def drawn(model: nn.Module) -> dict[str, torch.Tensor]:
    """What was drawn for each layer: its weight, or v where it is re-parametrised (g = |v| then)."""
    found: dict[str, torch.Tensor] = {}
    for name, module in model.named_modules():
        if name.endswith(("linear", "input", "hidden")) and isinstance(module, nn.Linear | nn.Conv2d):
            reparametrized: Any = getattr(module, "parametrizations", None)
            found[name] = (reparametrized.weight.original1 if reparametrized else module.weight).detach()
    return found


def test_how_every_network_starts(norm_name, model_name, network_of, parts_of):
    """The same draw for the same layer in every scheme, but for a factor of its method; `init_scale` multiplies it;
    biases start at 0, forget gates at 1.
    """
    model, plain = network_of(norm_name, model_name), network_of("none", model_name)
    weights, of_plain = drawn(model), drawn(plain)
    assert weights.keys() == of_plain.keys()
    for name, w in weights.items():
        if not name.endswith("hidden"):  # SELU draws W_h, elsewhere orthogonal, from a normal distribution
            torch.testing.assert_close(w, of_plain[name] * (w.norm() / of_plain[name].norm()), rtol=1e-5, atol=1e-6)
    by_he, plain_by_he = (drawn(network_of(norm, model_name, init="he")) for norm in (norm_name, "none"))
    assert all(torch.equal(w, by_he[name]) for name, w in plain_by_he.items())
    for module in model.modules():
        if isinstance(module, Block) and module.linear.bias is not None:
            assert not module.linear.bias.any()
        if isinstance(module, LSTMCell):
            i, f, g, o = module.bias.chunk(4)
            assert (f == 1).all()
            assert not torch.cat([i, g, o]).any()
        elif isinstance(module, RecurrentCell):
            assert not module.bias.any()
            assert not getattr(module, "reset_bias", module.bias).any()


# {model: (words, what the network then is)}
OPTIONS: dict[str, tuple[str, Callable[[Any], Any], Any]] = {
    "mlp": ("hidden=[7]", lambda m: m.hidden1.linear.out_features, 7),
    "mlp_deep": ("depth=3 width=7", lambda m: [b.linear.out_features for _, b in blocks(m)], [7, 7, 7, 3]),
    "cnn": ("channels=[7]", lambda m: m.conv1.linear.out_channels, 7),
    "vgg11": ("width=0.03125", lambda m: [m.conv1.linear.out_channels, m.conv8.linear.out_channels], [2, 16]),
    "convpool_c": (
        "width=0.0625 noise=0.25",
        lambda m: [m.conv1.linear.out_channels, m.conv9.linear.out_channels, m.noise.std],
        [6, 12, 0.25],
    ),
    "resnet": ("depth=14 width=0.25", lambda m: m.stage3block2.conv2.linear.out_channels, 16),
    "rnn": (
        "units=9 cell=gru sequence=permuted_pixels pool=2 permutation_seed=5 initial_state_noise=0.25",
        lambda m: [m.cell.units, type(m.cell).__name__, m.permutation.tolist(), m.initial_state_noise],
        [9, "GRUCell", torch.randperm(16, generator=torch.Generator().manual_seed(5)).tolist(), 0.25],
    ),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_options_reach_the_model(name, cell_of):
    words, found, wanted = OPTIONS[name]
    shared = ["dropout=0.5", "normalize_output=true"] + (["activation=tanh"] if name != "rnn" else [])
    cell = cell_of("norm=batch", f"model={name}", *(f"model.{word}" for word in [*words.split(), *shared]))
    options = cell.config["model"]
    assert (options["init"], options["init_std"], options["init_scale"]) == ("auto", 0.01, 1.0)
    parts = build(cell.config)
    model = parts.model(parts.scheme, (1, 8, 8), 3)
    assert found(model) == wanted
    assert model.output.norm is not None
    assert {m.p for m in model.modules() if isinstance(m, nn.modules.dropout._DropoutNd)} == {0.5}
    activations = {type(block.activation) for _, block in blocks(model) if getattr(block, "activation", None)}
    assert activations == (set() if name == "rnn" else {nn.Tanh})
