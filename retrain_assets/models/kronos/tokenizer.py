"""Kronos' tokenizer: a bar becomes 20 bits, read as one coarse and one fine token.

A causal transformer encodes normalised bars, binary spherical quantisation (BSQ, Zhao et
al., arXiv:2406.07548) rounds each code to a corner of the hypercube on the unit sphere, and
a causal decoder turns corners back into bars. The first s1_bits bits are the coarse token
s1, the rest the fine token s2, both little-endian. Architecture: Shi et al.,
arXiv:2508.02739; names and numbers as in shiyu-coder/Kronos, model/kronos.py (MIT).

Axes: B batch, T positions, D model width, C code bits (s1_bits + s2_bits).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from retrain_assets.models.kronos.config import TokenizerConfig
from retrain_assets.models.kronos.layers import Block, LayerCache, run_blocks


class Reconstruction(NamedTuple):
    """What a training pass of the tokenizer returns.

    coarse: bars decoded from the s1 bits alone, (B, T, d_in).
    full: bars decoded from all bits, (B, T, d_in).
    bsq_loss: commitment and entropy losses of the quantiser, scalar.
    """

    coarse: Tensor
    full: Tensor
    bsq_loss: Tensor


class KronosTokenizer(nn.Module):
    """Bars to tokens and back; both directions are causal, so both can be cached."""

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.config = config
        self.code_bits = config.s1_bits + config.s2_bits
        self.embed = nn.Linear(config.d_in, config.d_model)
        self.encoder = _blocks(config, config.n_enc_layers - 1)
        self.quant_embed = nn.Linear(config.d_model, self.code_bits)
        # This nesting only gives the buffers the names they have in published files.
        self.tokenizer = nn.ModuleDict({"bsq": SphericalQuantizer(config)})
        self.post_quant_embed_pre = nn.Linear(config.s1_bits, config.d_model)
        self.post_quant_embed = nn.Linear(self.code_bits, config.d_model)
        self.decoder = _blocks(config, config.n_dec_layers - 1)
        self.head = nn.Linear(config.d_model, config.d_in)

    def forward(self, bars: Tensor) -> Reconstruction:
        """Training pass over normalised bars (B, T, d_in), differentiable through the bits."""
        codes = self._codes(bars)
        bits, bsq_loss = self.tokenizer["bsq"](codes)  # (B, T, C)
        coarse = self._decode(self.post_quant_embed_pre(bits[..., : self.config.s1_bits]))
        return Reconstruction(coarse, self.decode_bits(bits), bsq_loss)

    def encode(self, bars: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised bars (B, T, d_in) -> tokens s1, s2, each (B, T) int64."""
        positive = self._codes(bars) > 0  # (B, T, C)
        coarse = self.config.s1_bits
        return _to_index(positive[..., :coarse]), _to_index(positive[..., coarse:])

    def decode(self, s1: Tensor, s2: Tensor) -> Tensor:
        """Tokens (B, T) each -> normalised bars (B, T, d_in)."""
        return self.decode_bits(self.token_bits(s1, s2))

    def decode_bits(
        self, bits: Tensor, start: int = 0, caches: Sequence[LayerCache] | None = None
    ) -> Tensor:
        """Bits (B, T, C), exact or expected, -> normalised bars (B, T, d_in).

        start, caches: first position and the decoder's layer caches, to continue a sequence
        whose earlier positions the caches hold.
        """
        return self._decode(self.post_quant_embed(bits), start, caches)

    def token_bits(self, s1: Tensor, s2: Tensor) -> Tensor:
        """Tokens (...) each -> their bits (..., C) as +-1/sqrt(C)."""
        signs = torch.cat(
            (_to_signs(s1, self.config.s1_bits), _to_signs(s2, self.config.s2_bits)), dim=-1
        )
        return signs / math.sqrt(self.code_bits)

    def expected_bits(self, s1_logits: Tensor, s2_logits: Tensor) -> Tensor:
        """Mean of the bits under two token distributions, differentiable in the logits.

        s1_logits (..., 2**s1_bits), s2_logits (..., 2**s2_bits) -> (..., C). A bit is linear
        in the token probabilities, so distributions that put all weight on one token give
        that token's bits exactly, and `decode_bits` the decoding of it.
        """
        halves = [logits.softmax(-1) @ self._all_signs(logits) for logits in (s1_logits, s2_logits)]
        return torch.cat(halves, dim=-1) / math.sqrt(self.code_bits)

    def _all_signs(self, logits: Tensor) -> Tensor:
        vocabulary = logits.shape[-1]
        tokens = torch.arange(vocabulary, device=logits.device)
        return _to_signs(tokens, vocabulary.bit_length() - 1).to(logits.dtype)  # (V, bits)

    def _codes(self, bars: Tensor) -> Tensor:
        hidden = run_blocks(self.encoder, self.embed(bars))
        return F.normalize(self.quant_embed(hidden), dim=-1)  # (B, T, C) on the unit sphere

    def _decode(
        self, x: Tensor, start: int = 0, caches: Sequence[LayerCache] | None = None
    ) -> Tensor:
        bars: Tensor = self.head(run_blocks(self.decoder, x, start, caches))
        return bars


class SphericalQuantizer(nn.Module):
    """Rounds a point of the unit sphere to the nearest corner +-1/sqrt(C)."""

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.config = config
        self.scale = 1.0 / math.sqrt(config.s1_bits + config.s2_bits)
        # Both are in published files. Nothing is computed from them here: see _entropies.
        self.register_buffer("basis", _descending_powers(config.s1_bits + config.s2_bits))
        self.register_buffer("group_basis", _descending_powers(config.group_size))

    def forward(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Codes (B, T, C) on the unit sphere -> bits (B, T, C) and the quantiser's loss.

        Rounding has no gradient, so the backward pass treats it as a scaling by 1/sqrt(C).
        The loss is beta x squared distance to the corner + zeta x (gamma0 x entropy of a
        code's bits - gamma x entropy of the codebook's average use).
        """
        signs = torch.where(codes > 0, 1.0, -1.0)
        bits = self.scale * (codes + (signs - codes).detach())
        commitment = (bits.detach() - codes).square().sum(-1).mean()
        of_code, of_codebook = self._entropies(codes)
        entropies = self.config.gamma0 * of_code - self.config.gamma * of_codebook
        return bits, self.config.beta * commitment + self.config.zeta * entropies

    def _entropies(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Mean entropy of a code's bits, and entropy of the bits' average use, in nats.

        The paper counts the joint use of groups of group_size bits; the code that trained
        the published tokenizers counts each bit on its own, and so does this.
        """
        positive = torch.sigmoid(4 * self.scale * codes)  # chance of each bit, (B, T, C)
        chances = torch.stack((positive, 1 - positive), dim=-1)  # (B, T, C, 2)
        return _entropy(chances).sum(-1).mean(), _entropy(chances.mean(dim=(0, 1))).sum()


def _blocks(config: TokenizerConfig, count: int) -> nn.ModuleList:
    return nn.ModuleList(
        Block(
            config.d_model,
            config.n_heads,
            config.ff_dim,
            ffn_dropout_p=config.ffn_dropout_p,
            attn_dropout_p=config.attn_dropout_p,
            resid_dropout_p=config.resid_dropout_p,
        )
        for _ in range(count)
    )


def _descending_powers(bits: int) -> Tensor:
    return 2 ** torch.arange(bits - 1, -1, -1)


def _entropy(probabilities: Tensor) -> Tensor:
    """Entropy in nats over the last axis; the small constant keeps log(0) finite."""
    return -(probabilities * torch.log(probabilities + 1e-8)).sum(-1)


def _to_index(positive: Tensor) -> Tensor:
    weights = 2 ** torch.arange(positive.shape[-1], device=positive.device)
    return (positive * weights).sum(-1)  # bit j counts 2**j


def _to_signs(tokens: Tensor, bits: int) -> Tensor:
    shifts = torch.arange(bits, device=tokens.device)
    return ((tokens.unsqueeze(-1) >> shifts) & 1).float() * 2 - 1  # (..., bits)
