"""The recurrent network: rows in order, noise and dropout in training alone, and gradients that stay finite."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from normbench import seeding
from normbench.config.compose import build
from normbench.data import prepare
from normbench.data.synthetic import synthetic
from normbench.models import RNN, initialize
from normbench.norms import NormScheme, blocks
from normbench.training.loop import mini_batches, steps
from normbench.training.optimizers import make_optimizer

# 8 steps of 8 pixels, 7 units, 5 classes, by hand.
U = 7
WEIGHTS = 4 * U * (8 + U) + U * 5
BIASES = 4 * U + 5


@pytest.mark.parametrize(
    ("norm", "count"),
    [
        ("none", WEIGHTS + BIASES),
        ("selu", WEIGHTS + BIASES),
        ("batch", WEIGHTS + BIASES + 4 * U + 4 * U + 2 * U),  # two gammas of the gates; gamma and beta of the cell
        ("layer", WEIGHTS + BIASES + 4 * U + 4 * U + 2 * U),
        ("weight", WEIGHTS + BIASES + 4 * U + 4 * U),  # a g for each row of both matrices
        ("weight_mean_only", WEIGHTS + BIASES + 4 * U + 4 * U),
    ],
)
def test_parameters(norm, count, network_of):
    assert sum(p.numel() for p in network_of(norm, "rnn").parameters()) == count


def test_blocks(network_of, batch_of):
    model = network_of("batch", "rnn")
    assert [name for name, _ in blocks(model)] == ["cell", "output"]
    assert model(batch_of(3)[0]).shape == (3, 5)
    assert model.cell.input_norm.running_mean.shape == (8, 4 * U)  # statistics for each row of the image


@pytest.mark.parametrize("shape", [(1, 6, 4), (3, 6, 4)])
def test_reads_rows_from_top_to_bottom_all_colours_at_once(shape):
    torch.manual_seed(0)
    model = RNN(NormScheme(), shape, 5, units=U).double().eval()
    reference = nn.LSTM(shape[0] * 4, U).double()
    with torch.no_grad():
        reference.weight_ih_l0.copy_(model.cell.input.weight)
        reference.weight_hh_l0.copy_(model.cell.hidden.weight)
        reference.bias_ih_l0.copy_(model.cell.bias)
        reference.bias_hh_l0.zero_()
    x = torch.randn(3, *shape, dtype=torch.float64)
    rows = torch.stack([x[:, :, row].reshape(3, -1) for row in range(6)])  # [T, N, C*W]
    torch.testing.assert_close(model(x), model.output(reference(rows)[0][-1]), rtol=1e-12, atol=1e-12)


def test_initial_state_is_noise_in_training_and_zero_in_evaluation():
    model = RNN(NormScheme(), (1, 8, 8), 5, units=500, initial_state_noise=0.3)
    starts: list[tuple[torch.Tensor, torch.Tensor]] = []
    model.cell.register_forward_pre_hook(lambda module, args: starts.append(args[1]))
    x = torch.randn(40, 1, 8, 8)
    torch.manual_seed(0)
    model(x), model.eval()(x)
    (h, c), (h0, c0) = starts
    for state in (h, c):
        assert state.std().item() == pytest.approx(0.3, rel=0.05)  # 20,000 draws: 0.5% is one sigma
        assert abs(state.mean().item()) < 0.02
    assert not torch.equal(h, c)
    assert not h0.any()
    assert not c0.any()


def test_without_noise_training_draws_no_random_numbers(network_of, batch_of):
    model = network_of("batch", "rnn", quiet=True)
    state = torch.get_rng_state()
    model(batch_of(4)[0])
    assert torch.equal(state, torch.get_rng_state())


def test_noise_is_on_by_default_for_every_scheme(norm_name, network_of, batch_of):
    model = network_of(norm_name, "rnn")
    assert model.initial_state_noise == 0.1
    x = batch_of(4)[0]
    assert not torch.equal(model(x), model(x))
    model.eval()
    assert torch.equal(model(x), model(x))


def test_dropout_on_the_last_state_in_training_alone(norm_name, network_of, batch_of):
    model = network_of(norm_name, "rnn", quiet=True, dropout=0.5)
    assert type(model.dropout) is (nn.AlphaDropout if norm_name == "selu" else nn.Dropout)
    x = batch_of(4)[0]
    assert not torch.equal(model(x), model(x))
    model.eval()
    assert torch.equal(model(x), model(x))


def largest_gradient(scheme: NormScheme, noise: float, total: int) -> tuple[float, float]:
    """Largest gradient norm of `total` steps on 28 rows of which the first five are blank, and the last loss."""
    torch.manual_seed(0)
    data = prepare(synthetic(None, examples=1000), name="synthetic", validation=100)
    model = RNN(scheme, data.shape, 10, units=32, initial_state_noise=noise)
    initialize(model, scheme, "auto", lambda name: seeding.generator(0, "weights", name))

    class Blank:
        def __len__(self) -> int:
            return len(data.train)

        def batch(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            x, y = data.train.batch(positions)
            x[:, :, :5] = -0.42  # what a black pixel of MNIST becomes
            return x, y

    batches = mini_batches(Blank(), 32, lambda epoch: seeding.order(0, epoch, len(data.train)), 0, total)
    optimizer = make_optimizer("adam", model, lr=0.001)
    norms = []
    for step in steps(model, batches, optimizer):
        if step.loss is not None:
            norms.append(torch.stack([p.grad.norm() for p in model.parameters()]).norm())
    assert step.loss is not None
    return torch.stack(norms).max().item(), step.loss.item()


def test_batch_norms_gradient_explodes_on_blank_rows_without_noise(scheme_of):
    # Blank rows leave every state alike: the variance is 0, and each step back through time multiplies by 1/sqrt(eps).
    assert largest_gradient(scheme_of("batch"), noise=0.0, total=3)[0] > 1000  # 3e5 measured


def test_noise_keeps_batch_norms_gradient_small(scheme_of):
    largest, loss = largest_gradient(scheme_of("batch"), noise=0.1, total=400)
    assert largest < 100  # 2.1 measured
    assert loss < 1.5  # and it learns: chance is 2.3, 0.5 measured


def test_options_of_the_yaml_reach_the_model(cell_of):
    words = ("model.units=9", "model.initial_state_noise=0.25", "model.dropout=0.5", "model.normalize_output=true")
    parts = build(cell_of("norm=batch", "model=rnn", *words).config)
    model = parts.model(parts.scheme, (1, 4, 4), 3)
    assert (model.units, model.cell.units, model.initial_state_noise) == (9, 9, 0.25)
    assert model.dropout.p == 0.5
    assert model.output.norm is not None
