"""Random numbers as a function: of a seed, a draw, a layer and a call, whatever was drawn before or beside them.

A network's noise is then the same alone and in a stack of networks, after a resume, and on every device: the integers
exactly, the floats made of them to 1e-6. torch's own generators draw other numbers in another order.

    seed_noise(model, seed)    once
    next_draw(model)           before each mini-batch, or each part of one if gradients are accumulated
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache
from math import pi, prod
from typing import NamedTuple

import torch
from torch import Tensor, nn

# Constants of `bits` as tensors: with Python's numbers each operation on a small tensor takes 3 us longer.
MULTIPLIERS = [torch.tensor(m, dtype=torch.int32, device="cpu") for m in (-0x12A52B45, -0x53B3E4AF, 0x31848BAB)]
SHIFTS = {  # k -> k, and a mask for what is left of a shift to the right by k
    k: (torch.tensor(k, dtype=torch.int32, device="cpu"), torch.tensor(2 ** (32 - k) - 1, device="cpu").int())
    for k in (8, 11, 14, 15, 17)
}
ALPHA = -1.7580993408473766  # what SELU tends to for very negative values: -scale * alpha


class Key(NamedTuple):
    """Which random numbers.

    Args:
        seed: 64 bits, int32 [2].
        draw: number of the mini-batch, int32 []. Seed and draw are tensors, so that `vmap` and CUDA graphs can vary
            them.
        layer: name of the layer that draws.
        call: tells the times apart at which a layer draws within one mini-batch, such as time steps.
    """

    seed: Tensor
    draw: Tensor
    layer: str = ""
    call: int = 0


def key_of(seed: int, draw: int, layer: str, device: torch.device | str = "cpu") -> Key:
    """The key of a seed and a draw given as numbers; nothing waits for the device."""
    words = torch.stack([torch.full((), word, dtype=torch.int32, device=device) for word in _signed_words(seed)])
    return Key(words, torch.full((), draw, dtype=torch.int32, device=device), layer)


def key_from_torch(device: torch.device | str = "cpu") -> Key:
    """A key drawn from torch's own generator of this device: other numbers each time."""
    seed = torch.randint(-(2**31), 2**31, (2,), dtype=torch.int32, device=device)
    return Key(seed, torch.zeros((), dtype=torch.int32, device=device))


def bits(key: Key, shape: Sequence[int]) -> Tensor:
    """Independent integers, uniform over all 2^32 values of an int32.

        x = i + c0;  x ^= x >>> 17;  x *= 0xed5ad4bb;  x += c1;  x ^= x >>> 11;  x *= 0xac4c1b51
        x ^= x >>> 15;  x *= 0x31848bab;  x ^= x >>> 14

    all modulo 2^32, with i the number of the value, c0 = a + seed[0] + 0x9e3779b1 draw, c1 = b + seed[1] +
    0x85ebca77 draw, and a, b from SHA-256 of layer and call. c1 in the middle keeps apart the rare draws whose first
    counters overlap: those of c0 alone would give the same numbers shifted.

    Source: "triple32" of Wellons, https://nullprogram.com/blog/2018/07/31 (hash-prospector); counters instead of
        states: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3".
    """
    a, b = _layer_words(key.layer, key.call)
    seed = key.seed.unbind()
    first = torch.add(seed[0], key.draw, alpha=-0x61C8864F)  # 0x9e3779b1 as an int32
    second = torch.add(seed[1] + b, key.draw, alpha=-0x7A143589)  # 0x85ebca77
    x = torch.arange(a, a + prod(shape), dtype=torch.int32, device=key.seed.device) + first
    x.bitwise_xor_(_shifted(x, 17)).mul_(MULTIPLIERS[0]).add_(second)
    x.bitwise_xor_(_shifted(x, 11)).mul_(MULTIPLIERS[1])
    x.bitwise_xor_(_shifted(x, 15)).mul_(MULTIPLIERS[2])
    return x.bitwise_xor_(_shifted(x, 14)).view(tuple(shape))


def uniform(key: Key, shape: Sequence[int], dtype: torch.dtype = torch.float32) -> Tensor:
    """Numbers in [0, 1), multiples of 2^-24."""
    return _shifted(bits(key, shape), 8).to(dtype).mul_(2.0**-24)


def bernoulli(key: Key, p: float, shape: Sequence[int]) -> Tensor:
    """True with probability `p`, 0 <= p < 1 (a multiple of 2^-32)."""
    return bits(key, shape) < round(p * 2**32) - 2**31


def normal(key: Key, shape: Sequence[int], dtype: torch.dtype = torch.float32) -> Tensor:
    """Standard normal numbers, at most 5.8 in size: r cos(t) and r sin(t), r = sqrt(-2 log u), t uniform.

    Source: Box & Muller 1958.
    """
    count = prod(shape)
    half = (count + 1) // 2
    x = bits(key, (2, half))
    u = _shifted(x[0], 8).to(dtype).add_(1).mul_(2.0**-24)  # in (0, 1]
    r, t = u.log_().mul_(-2).sqrt_(), x[1].to(dtype).mul_(pi * 2.0**-31)
    return torch.cat((r * t.cos(), r * t.sin()))[:count].view(tuple(shape))


def _shifted(x: Tensor, by: int) -> Tensor:
    """x >>> by: zeros come in from the left."""
    shift, mask = SHIFTS[by]
    return (x >> shift).bitwise_and_(mask)


def _signed_words(seed: int) -> tuple[int, int]:
    """A number of 64 bits as two int32."""
    low, high = seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF
    return low - (low >> 31 << 32), high - (high >> 31 << 32)


@cache
def _layer_words(layer: str, call: int) -> tuple[int, int]:
    """Where a layer's counter starts, in [0, 2^30) so that it ends below 2^31; and an int32."""
    digest = int.from_bytes(hashlib.sha256(f"{layer}/{call}".encode()).digest()[:8], "big")
    low, high = _signed_words(digest)
    return low & 0x3FFFFFFF, high


# ---- modules that draw


class Noisy(nn.Module):
    """A module that draws in training, from the numbers of `self.key(...)`.

    Without `seed_noise` each key comes from torch's own generator.
    """

    layer = ""

    def key(self, device: torch.device, call: int = 0) -> Key:
        seed, draw = self._buffers.get("noise_seed"), self._buffers.get("noise_draw")
        if seed is None or draw is None:
            return key_from_torch(device)
        return Key(seed, draw, self.layer, call)


def seed_noise(model: nn.Module, seed: int) -> None:
    """From now on the noise of `model`, which is on its device, is a function of `seed` (64 bits) and the draw.

    The draw stands in buffers that are no part of the state dict, and starts at 0.
    """
    found = [(name, module) for name, module in model.named_modules() if isinstance(module, Noisy)]
    for name, module in found:
        key = key_of(seed, 0, name, next(model.parameters()).device)
        module.layer = name
        module.register_buffer("noise_seed", key.seed, persistent=False)
        module.register_buffer("noise_draw", key.draw, persistent=False)
    model.noisy_modules = [module for _, module in found]  # type: ignore[assignment]


def set_draw(model: nn.Module, draw: int) -> None:
    """Let `model` draw the noise of this mini-batch. Training counts from 1; negative ones are for other purposes."""
    for module in getattr(model, "noisy_modules", ()):
        module.noise_draw.fill_(draw)


def next_draw(model: nn.Module) -> None:
    """Let `model` draw the noise of the next mini-batch."""
    for module in getattr(model, "noisy_modules", ()):
        module.noise_draw.add_(1)


class Dropout(Noisy, nn.Dropout):
    """y = x / (1 - p) with probability 1 - p, else 0, in training; y = x in evaluation.

    Source: Srivastava et al. 2014.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        return self.dropped(x, bernoulli(self.key(x.device), 1 - self.p, x.shape))

    def dropped(self, x: Tensor, keep: Tensor) -> Tensor:
        return x * keep.to(x.dtype).mul_(1 / (1 - self.p))


class AlphaDropout(Dropout):
    """y = a x' + b in training, x' = x with probability 1 - p, else what SELU tends to, ALPHA; y = x in evaluation.

    a and b keep a mean of 0 and a variance of 1: a = ((1 - p) (1 + p ALPHA^2))^-1/2, b = -a p ALPHA.

    Source: Klambauer et al. 2017, arXiv:1706.02515, section 2.
    """

    def dropped(self, x: Tensor, keep: Tensor) -> Tensor:
        a = ((1 - self.p) * (1 + self.p * ALPHA**2)) ** -0.5
        return torch.where(keep, x, ALPHA) * a - a * self.p * ALPHA
