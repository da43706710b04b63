"""What the recurrent network reads: rows, pixels, permuted pixels, pooled or not; every scheme in every cell."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from normbench.config.compose import build
from normbench.errors import Unsupported
from normbench.models import RNN
from normbench.norms import NormScheme, blocks


def rnn(shape: Any = (1, 4, 6), **options: Any) -> RNN:
    torch.manual_seed(0)
    return RNN(NormScheme(), shape, 5, units=7, **options).eval()


# ---- what is read


def test_rows(batch_of):
    x = batch_of(3, (2, 4, 6))[0]
    read = rnn((2, 4, 6)).read(x)
    assert read.shape == (4, 3, 12)
    assert torch.equal(read[1][2], torch.cat([x[2, 0, 1], x[2, 1, 1]]))


@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_row_by_row_all_colours_at_once(channels, batch_of):
    x = batch_of(3, (channels, 4, 6))[0]
    model = rnn((channels, 4, 6), sequence="pixels")
    read = model.read(x)
    assert read.shape == (24, 3, channels)
    for t in range(24):
        assert torch.equal(read[t], x[:, :, t // 6, t % 6])
    assert model.cell.input.in_features == channels
    assert model(x).shape == (3, 5)


def test_permuted_pixels_are_all_pixels_once_in_one_order_for_all_images():
    x = torch.arange(28.0 * 28).view(1, 1, 28, 28) + torch.tensor([0.0, 1000.0]).view(2, 1, 1, 1)
    read = rnn((1, 28, 28), sequence="permuted_pixels").read(x)[:, :, 0]  # [T, N]
    assert sorted(read[:, 0].tolist()) == list(range(28 * 28))
    assert torch.equal(read[:, 0] + 1000, read[:, 1])
    assert (read[:, 0] == torch.arange(28 * 28)).sum() < 10  # and a random order: one stays, on average
    assert torch.equal(read[:, 0].long(), torch.randperm(784, generator=torch.Generator().manual_seed(0)))


def test_the_order_depends_on_its_own_seed_alone():
    def order(**options: Any) -> torch.Tensor:
        return RNN(NormScheme(), (1, 8, 8), 5, units=7, sequence="permuted_pixels", **options).permutation

    torch.manual_seed(1)
    a, state = order(), torch.get_rng_state()
    torch.manual_seed(2)
    assert torch.equal(a, order(cell="gru"))
    assert not torch.equal(a, order(permutation_seed=1))
    torch.set_rng_state(state)


def test_the_order_is_kept_with_the_weights(tmp_path, batch_of):
    x = batch_of(4, (1, 4, 6))[0]
    first = rnn(sequence="permuted_pixels", permutation_seed=3)
    torch.save(first.state_dict(), tmp_path / "model.pt")
    other = rnn(sequence="permuted_pixels", permutation_seed=4)
    assert not torch.equal(first(x), other(x))
    other.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
    assert torch.equal(first(x), other(x))
    assert "permutation" not in rnn(sequence="pixels").state_dict()


@pytest.mark.parametrize("pool", [2, 4])
@pytest.mark.parametrize("sequence", ["rows", "pixels", "permuted_pixels"])
def test_pooled_images_are_read_as_smaller_images(pool, sequence, batch_of):
    x = batch_of(3, (2, 8, 8))[0]
    pooled, small = rnn((2, 8, 8), sequence=sequence, pool=pool), rnn((2, 8 // pool, 8 // pool), sequence=sequence)
    wanted = small.read(F.avg_pool2d(x, pool))
    assert torch.equal(pooled.read(x), wanted)
    small.load_state_dict(pooled.state_dict())
    assert torch.equal(pooled(x), small(F.avg_pool2d(x, pool)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cell": "lstmm"}, "model.cell is one of lstm, gru, tanh: got lstmm"),
        ({"sequence": "columns"}, "model.sequence is one of rows, pixels, permuted_pixels: got columns"),
        ({"pool": 0}, "model.pool must be 1 or more: got 0"),
        ({"pool": 4}, "model.pool must divide both sides of the image: got 4 for 4x6"),
        ({"pool": 3}, "model.pool must divide both sides of the image: got 3 for 4x6"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        rnn(**options)


# ---- every scheme in every cell


@pytest.mark.parametrize("cell", ["lstm", "gru", "tanh"])
@pytest.mark.parametrize("sequence", ["rows", "permuted_pixels"])
def test_trains_or_is_refused(norm_name, cell, sequence, network_of, batch_of, device):
    torch.manual_seed(0)
    options = {"cell": cell, "sequence": sequence, "pool": 2, "units": 8}
    try:
        model = network_of(norm_name, "rnn", **options).to(device)
        x, y = (tensor.to(device) for tensor in batch_of(8))
        loss = F.cross_entropy(model(x), y)
    except Unsupported:
        return  # that it is refused before it starts is tested for all models
    loss.backward()
    assert loss.isfinite()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.any(), name
    model.eval()
    with torch.no_grad():
        torch.testing.assert_close(model(x[:1])[0], model(x)[0], rtol=1e-4, atol=1e-5)


# By hand: 4 steps of 4 inputs, units u = 8, 5 classes. LSTM 4 u (4 + u) + 4 u; GRU 3 u (4 + u) + 3 u + u; tanh
# a quarter of the LSTM. Gains of a norm on both products, and gain and bias on the LSTM's state.
@pytest.mark.parametrize(
    ("cell", "plain", "norms"),
    [("lstm", 4 * 8 * 12 + 32, 2 * 32 + 2 * 8), ("gru", 3 * 8 * 12 + 24 + 8, 2 * 24), ("tanh", 8 * 12 + 8, 2 * 8)],
)
@pytest.mark.parametrize("norm", ["none", "layer", "batch"])
def test_parameters(cell, plain, norms, norm, network_of):
    model = network_of(norm, "rnn", cell=cell, pool=2, units=8)
    assert sum(p.numel() for p in model.cell.parameters()) == plain + (norms if norm != "none" else 0)
    assert [name for name, _ in blocks(model)] == ["cell", "output"]


@pytest.mark.parametrize(("cell", "count"), [("lstm", 2), ("gru", 1), ("tanh", 1)])
def test_every_part_of_the_state_starts_as_noise(cell, count):
    model = RNN(NormScheme(), (1, 8, 8), 5, units=50, cell=cell, initial_state_noise=0.3)
    starts: list[tuple[torch.Tensor, ...]] = []
    model.cell.register_forward_pre_hook(lambda module, args: starts.append(args[1]))
    model(torch.randn(40, 1, 8, 8))
    assert len(starts[0]) == count
    assert all(state.std().item() == pytest.approx(0.3, rel=0.1) for state in starts[0])


def test_options_of_the_yaml_reach_the_model(cell_of):
    words = ("model.cell=gru", "model.sequence=permuted_pixels", "model.pool=2", "model.permutation_seed=5")
    parts = build(cell_of("norm=batch", "model=rnn", *words).config)
    model = parts.model(parts.scheme, (1, 8, 8), 3)
    assert type(model.cell).__name__ == "GRUCell"
    assert torch.equal(model.permutation, torch.randperm(16, generator=torch.Generator().manual_seed(5)))
