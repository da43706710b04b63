"""amp=bf16: what is calculated in bfloat16 in training, and what stays in float32."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch

from normbench.errors import Unsupported
from normbench.noise import Noisy
from normbench.norms import blocks
from normbench.training.loop import Update


@pytest.mark.parametrize("network", ["mlp", "cnn", "rnn"])
def test_products_are_in_bfloat16_and_gradients_buffers_and_loss_in_float32(
    norm_name, network, network_of, batch_of, device
):
    model, seen = network_of(norm_name, network).to(device), {}
    for name, block in blocks(model):
        block.observer = lambda tensor, value, name=name: seen.setdefault((name, tensor), value.dtype)
    x, y = (part.to(device) for part in batch_of(8))
    loss = Update(amp="bf16").backward(model, (x, y))
    assert {dtype for (_, tensor), dtype in seen.items() if tensor == "linear"} == {torch.bfloat16}
    results = [loss, *(p.grad for p in model.parameters() if p.requires_grad), *model.buffers()]
    assert {value.dtype for value in results if value.is_floating_point()} == {torch.float32}
    assert all(value.isfinite().all() for value in results)
    seen.clear()
    Update().backward(model, (x, y))
    assert {*seen.values()} == {torch.float32}


@pytest.mark.parametrize("shape", [(60, 8), (60, 8, 3, 3)])
def test_statistics_of_every_norm_are_in_float32(norm_name, shape, scheme_of, device):
    """A mean of 4 in bfloat16 is off by up to 1/64."""
    scheme = scheme_of(norm_name)
    norm = None if scheme.norm is None else scheme.norm(8).to(device)
    if norm is None or isinstance(norm, Noisy):
        pytest.skip("no statistics, or noise besides")
    other, x = deepcopy(norm), (4 + torch.randn(shape, device=device)).bfloat16()
    try:
        with torch.autocast(device.type, torch.bfloat16):
            found = norm(x)
    except Unsupported as reason:
        pytest.skip(str(reason))
    torch.testing.assert_close(found.float(), other(x.float()), rtol=2**-7, atol=1e-3)
    for one, wanted in zip(norm.buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(one, wanted, rtol=1e-5, atol=1e-5)
