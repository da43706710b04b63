"""One seed, three independent streams."""

from __future__ import annotations

import hashlib

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from normbench import seeding

seeds = st.integers(0, 2**31)


def test_numbers_stay_the_same_for_ever():
    # Changing these changes every run: finished ones could not be compared with new ones any more.
    assert seeding.derive(0, "weights", "hidden1.linear") == 5832171984940778849
    assert seeding.derive(7, "order", 3) == int(hashlib.sha256(b"7/order/3").hexdigest()[:16], 16) >> 1


@settings(max_examples=50, deadline=None)
@given(seed=seeds, epoch=st.integers(0, 1000), examples=st.integers(1, 300))
def test_order_is_a_permutation_that_depends_on_seed_and_epoch_alone(seed, epoch, examples):
    order = seeding.order(seed, epoch, examples)
    assert sorted(order.tolist()) == list(range(examples))
    torch.manual_seed(epoch)
    torch.rand(3)
    assert torch.equal(order, seeding.order(seed, epoch, examples))
    if examples > 50:  # the chance that two agree is 1 in 50!
        assert not torch.equal(order, seeding.order(seed, epoch + 1, examples))
        assert not torch.equal(order, seeding.order(seed + 1, epoch, examples))


@settings(max_examples=50, deadline=None)
@given(seed=seeds)
def test_streams_differ_by_seed_and_name(seed):
    draws = [
        torch.rand(4, generator=seeding.generator(s, *names)).tolist()
        for s in (seed, seed + 1)
        for names in (("weights", "a"), ("weights", "b"), ("order", 0), ("order", 1), ("noise",))
    ]
    assert len({tuple(draw) for draw in draws}) == len(draws)


@settings(max_examples=50, deadline=None)
@given(seed=seeds, names=st.lists(st.sampled_from(["a", "b", 0, 1]), max_size=3))
def test_a_derived_seed_is_one_torch_accepts(seed, names):
    derived = seeding.derive(seed, *names)
    assert 0 <= derived < 2**63
    assert derived == seeding.derive(seed, *names)
    torch.Generator().manual_seed(derived)


def test_streams_of_neighbouring_seeds_are_uncorrelated():
    draws = torch.stack([torch.randn(10_000, generator=seeding.generator(seed, "weights", "a")) for seed in range(8)])
    correlations = torch.corrcoef(draws) - torch.eye(8)
    assert correlations.abs().max() < 0.045  # 28 pairs, 4.5 standard errors of 0.01


def test_drawing_from_a_stream_leaves_torchs_own_alone():
    seeding.seed_everything_else(3)
    state = torch.get_rng_state()
    torch.rand(5, generator=seeding.generator(3, "weights", "a"))
    seeding.order(3, 0, 100)
    assert torch.equal(state, torch.get_rng_state())


def test_everything_else_starts_anew_from_the_seed():
    seeding.seed_everything_else(3)
    first = torch.rand(5)
    seeding.seed_everything_else(4)
    other = torch.rand(5)
    seeding.seed_everything_else(3)
    assert torch.equal(first, torch.rand(5))
    assert not torch.equal(first, other)
