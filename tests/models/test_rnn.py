"""The recurrent network: what it reads, how its state starts, and gradients that stay finite."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from normbench import seeding
from normbench.errors import Unsupported
from normbench.models import RNN, initialize
from normbench.norms import NormScheme, blocks
from normbench.training.loop import steps
from normbench.training.optimizers import make_optimizer


def rnn(shape: Any = (1, 4, 6), **options: Any) -> RNN:
    torch.manual_seed(0)
    return RNN(NormScheme(), shape, 5, units=7, **options).eval()


# By hand: 4 steps of 4 inputs, units u = 8. LSTM 4 u (4 + u) + 4 u; GRU 3 u (4 + u) + 3 u + u; tanh a quarter of the
# LSTM. Gains of a norm on both products, and gain and bias on the LSTM's state; of weight norm a g for each row.
@pytest.mark.parametrize(
    ("cell", "plain", "gains", "rows"),
    [
        ("lstm", 4 * 8 * 12 + 32, 2 * 32 + 2 * 8, 64),
        ("gru", 3 * 8 * 12 + 24 + 8, 2 * 24, 48),
        ("tanh", 8 * 12 + 8, 2 * 8, 16),
    ],
)
def test_parameters(cell, plain, gains, rows, network_of):
    more = {"none": 0, "selu": 0, "layer": gains, "batch": gains, "weight": rows, "weight_mean_only": rows}
    for norm, count in more.items():
        model = network_of(norm, "rnn", cell=cell, pool=2, units=8)
        assert sum(p.numel() for p in model.cell.parameters()) == plain + count, norm
        assert [name for name, _ in blocks(model)] == ["cell", "output"]


# ---- what is read


@pytest.mark.parametrize("channels", [1, 3])
def test_rows_and_pixels_all_colours_at_once(channels):
    x = torch.randn(3, channels, 6, 4)
    rows, pixels = rnn((channels, 6, 4)), rnn((channels, 6, 4), sequence="pixels")
    assert torch.equal(rows.read(x), torch.stack([x[:, :, row].reshape(3, -1) for row in range(6)]))  # [T, N, C*W]
    assert torch.equal(pixels.read(x), torch.stack([x[:, :, t // 4, t % 4] for t in range(24)]))  # [T, N, C]
    for model, inputs in ((rows, channels * 4), (pixels, channels)):
        assert model.cell.input.in_features == inputs
        last = model.cell(model.read(x), (torch.zeros(3, 7), torch.zeros(3, 7)))
        assert torch.equal(model(x), model.output(last))


def test_one_row_is_no_sequence_of_rows():
    with pytest.raises(ValueError, match="an image of one row makes a sequence of one step"):
        rnn((1, 1, 40))
    assert rnn((1, 1, 40), sequence="pixels").read(torch.ones(2, 1, 1, 40)).shape == (40, 2, 1)


def test_permuted_pixels_are_all_pixels_once_in_one_order_of_its_own_seed():
    x = torch.arange(28.0 * 28).view(1, 1, 28, 28) + torch.tensor([0.0, 1000.0]).view(2, 1, 1, 1)
    torch.manual_seed(2)  # plays no part
    model = RNN(NormScheme(), (1, 28, 28), 5, units=7, cell="gru", sequence="permuted_pixels")
    read = model.read(x)[:, :, 0]  # [T, N]
    assert torch.equal(read[:, 0] + 1000, read[:, 1])
    assert torch.equal(read[:, 0].long(), torch.randperm(784, generator=torch.Generator().manual_seed(0)))
    other = rnn((1, 28, 28), sequence="permuted_pixels", permutation_seed=1)
    assert not torch.equal(model.permutation, other.permutation)


def test_the_order_is_kept_with_the_weights(tmp_path, batch_of):
    x = batch_of(4, (1, 4, 6))[0]
    first = rnn(sequence="permuted_pixels", permutation_seed=3)
    torch.save(first.state_dict(), tmp_path / "model.pt")
    other = rnn(sequence="permuted_pixels", permutation_seed=4)
    assert not torch.equal(first(x), other(x))
    other.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
    assert torch.equal(first(x), other(x))
    assert "permutation" not in rnn(sequence="pixels").state_dict()


@pytest.mark.parametrize("sequence", ["rows", "permuted_pixels"])
def test_pooled_images_are_read_as_smaller_images(sequence, batch_of):
    x = batch_of(3, (2, 8, 8))[0]
    pooled, small = rnn((2, 8, 8), sequence=sequence, pool=2), rnn((2, 4, 4), sequence=sequence)
    assert torch.equal(pooled.read(x), small.read(F.avg_pool2d(x, 2)))
    small.load_state_dict(pooled.state_dict())
    assert torch.equal(pooled(x), small(F.avg_pool2d(x, 2)))
    for pool in (3, 4):
        with pytest.raises(ValueError, match=f"model.pool must divide both sides of the image: got {pool} for 4x6"):
            rnn(pool=pool)


# ---- noise and dropout


@pytest.mark.parametrize(("cell", "count"), [("lstm", 2), ("gru", 1), ("tanh", 1)])
def test_the_state_starts_as_noise_in_training_and_as_zero_in_evaluation(cell, count):
    model = RNN(NormScheme(), (1, 8, 8), 5, units=500, cell=cell, initial_state_noise=0.3)
    starts: list[tuple[torch.Tensor, ...]] = []
    model.cell.register_forward_pre_hook(lambda module, args: starts.append(args[1]))
    x = torch.randn(40, 1, 8, 8)
    model(x), model.eval()(x)
    noise, zero = starts
    assert len(noise) == count
    for state in noise:
        assert state.std().item() == pytest.approx(0.3, rel=0.05)  # 20,000 draws: 0.5% is one sigma
        assert abs(state.mean().item()) < 0.02
    assert count == 1 or not torch.equal(*noise)
    assert not any(state.any() for state in zero)


# ---- training


@pytest.mark.parametrize(("cell", "sequence"), [("gru", "rows"), ("tanh", "permuted_pixels")])
def test_every_scheme_trains_in_every_cell_or_is_refused(norm_name, cell, sequence, network_of, batch_of, device):
    torch.manual_seed(0)
    try:
        model = network_of(norm_name, "rnn", cell=cell, sequence=sequence, pool=2, units=8).to(device)
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


def gradients(scheme: NormScheme, noise: float, total: int) -> tuple[list[float], float]:
    """Gradient norms of `total` updates on eight rows of which the first five are blank, and the last loss."""
    torch.manual_seed(0)
    labels = torch.arange(600) % 5
    images = torch.randn(5, 1, 8, 8)[labels] + 0.5 * torch.randn(600, 1, 8, 8)
    images[:, :, :5] = -0.42  # what a black pixel of MNIST becomes
    model = RNN(scheme, (1, 8, 8), 5, units=16, initial_state_noise=noise)
    initialize(model, scheme, "auto", lambda name: seeding.generator(0, "weights", name))
    batches = [(images[part], labels[part]) for part in torch.randint(600, (total, 32))]
    norms, loss = [], 0.0
    for step in steps(model, batches, make_optimizer("adam", model, lr=0.003)):
        if step.loss is not None:
            norms.append(torch.stack([p.grad.norm() for p in model.parameters()]).norm().item())
            loss = step.loss.item()
    return norms, loss


def test_noise_keeps_batch_norms_gradient_small_on_blank_rows(scheme_of):
    # Blank rows leave every state alike: the variance is 0, and each step back through time multiplies by 1/sqrt(eps).
    assert max(gradients(scheme_of("batch"), noise=0.0, total=3)[0]) > 1000
    norms, loss = gradients(scheme_of("batch"), noise=0.1, total=80)
    assert max(norms) < 100
    assert loss < 1.0  # and it learns: chance is 1.6
