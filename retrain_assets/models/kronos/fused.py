"""Kronos as the sampler runs it: one position at a time, for many histories, products fused.

The same numbers as `network` and `tokenizer` give, but for rounding: adapters are merged into
the weights they adapt; query, key and value are one product, and so are the two halves of the
gate; the scales of the norms and of the attention are folded into the weights behind them; what
depends on a token alone (its embedding, the query of the dependency-aware layer, its bits behind
the decoder's first layer) is looked up in tables.

Axes: H histories, D model width, nh heads, hs head width, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from retrain_assets.models.kronos.config import DEPENDENCY_HEADS
from retrain_assets.models.kronos.histories import HistoryCache
from retrain_assets.models.kronos.layers import Block
from retrain_assets.models.kronos.network import KronosNetwork
from retrain_assets.models.kronos.preprocess import CLOSE
from retrain_assets.models.kronos.tokenizer import KronosTokenizer
from retrain_assets.models.lora import merged_weight

BLOCK = 8
"""Histories are computed in multiples of this many: where MKL has no mode that rounds a row alike
whatever the number of rows (see `retrain_assets`), it does so but for products of very few."""


class Product:
    """x W' + b in the precision of its weights; what comes out has the precision of x."""

    def __init__(self, weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> None:
        self.weight = weight.to(dtype).contiguous()
        self.bias = None if bias is None else bias.to(dtype)

    def __call__(self, x: Tensor) -> Tensor:
        """x: (H, in) -> (H, out)."""
        if x.dtype == self.weight.dtype:
            return F.linear(x, self.weight, self.bias)
        return F.linear(x.to(self.weight.dtype), self.weight, self.bias).to(x.dtype)


class FusedBlock:
    """One transformer block at one position."""

    def __init__(self, block: Block, dtype: torch.dtype) -> None:
        attention, ffn = block.self_attn, block.ffn
        self.heads, self.eps = attention.n_heads, block.norm1.eps
        projections = (attention.q_proj, attention.k_proj, attention.v_proj)
        weights = [merged_weight(p) for p in projections]
        biases = [_bias(p) for p in projections]
        scale = math.sqrt(self.heads / len(weights[0]))  # 1 / sqrt(hs)
        weights[0], biases[0] = weights[0] * scale, biases[0] * scale
        self.qkv = Product(torch.cat(weights) * block.norm1.weight, torch.cat(biases), dtype)
        self.out = Product(merged_weight(attention.out_proj), _bias(attention.out_proj), dtype)
        gate = torch.cat((merged_weight(ffn.w1), merged_weight(ffn.w3)))
        self.gate = Product(gate * block.norm2.weight, None, dtype)
        self.down = Product(merged_weight(ffn.w2), None, dtype)

    def step(self, x: Tensor, cos: Tensor, sin: Tensor, cache: HistoryCache) -> Tensor:
        """x: (H, D); cos, sin: (hs,) as `rotations` gives them for the position."""
        qkv = self.qkv(_unit(x, self.eps)).view(len(x), 3, self.heads, -1)  # (H, 3, nh, hs)
        q_and_k = qkv[:, :2]
        q, k = torch.addcmul(q_and_k * cos, q_and_k.roll(len(cos) // 2, -1), sin).unbind(1)
        cache.add(k, qkv[:, 2])
        x = x + self.out(cache.read(q).flatten(1))
        open_, value = self.gate(_unit(x, self.eps)).chunk(2, dim=-1)
        return x + self.down(F.silu(open_).mul_(value))


class FusedStack:
    """Blocks one after the other, and the rotations of the positions they will be asked for."""

    def __init__(self, blocks: Iterable[nn.Module], dtype: torch.dtype) -> None:
        kept = [block for block in blocks if isinstance(block, Block)]
        self.blocks = [FusedBlock(block, dtype) for block in kept]
        self.inv_freq = kept[0].self_attn.rotary.inv_freq.float()

    def rotations(self, start: int, steps: int) -> tuple[Tensor, Tensor]:
        """Factors of a head and of the same head turned by half its width, each (steps, hs)."""
        positions = torch.arange(start, start + steps, device=self.inv_freq.device)
        angles = torch.outer(positions.float(), self.inv_freq)  # (steps, hs/2)
        sin = angles.sin()
        return angles.cos().repeat(1, 2), torch.cat((-sin, sin), dim=-1)

    def step(self, x: Tensor, cos: Tensor, sin: Tensor, caches: Sequence[HistoryCache]) -> Tensor:
        """x (H, D) through all blocks at one position."""
        for block, cache in zip(self.blocks, caches, strict=True):
            x = block.step(x, cos, sin, cache)
        return x


class FusedKronos:
    """Network and decoder of one model, with its adapter merged in.

    dtype: precision of the products; everything between them is float32. Weights are copied
    when it is made, so a change of the modules afterwards is not seen.
    """

    def __init__(
        self,
        network: KronosNetwork,
        tokenizer: KronosTokenizer,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        with torch.no_grad():
            self._fuse_network(network, dtype)
            self._fuse_decoder(tokenizer, dtype)

    def _fuse_network(self, network: KronosNetwork, dtype: torch.dtype) -> None:
        embedding, layer = network.embedding, network.dep_layer
        fusion = merged_weight(embedding.fusion_proj) * embedding.scale  # (D, 2 D)
        coarse, fine = fusion.chunk(2, dim=1)
        self.s1_vectors = embedding.emb_s1.weight @ coarse.T + embedding.fusion_proj.bias  # (V, D)
        self.s2_vectors = embedding.emb_s2.weight @ fine.T
        self.time_emb = network.time_emb
        self.stack = FusedStack(network.transformer, dtype)
        self.norm, self.dep_norm = network.norm, layer.norm
        attention = layer.cross_attn
        query = F.linear(
            embedding.emb_s1.weight, merged_weight(attention.q_proj), _bias(attention.q_proj)
        )
        width = query.shape[1] // DEPENDENCY_HEADS
        self.s1_queries = (query / math.sqrt(width)).view(-1, DEPENDENCY_HEADS, width)
        keys_values = (attention.k_proj, attention.v_proj)
        self.dep_keys_values = Product(
            torch.cat([merged_weight(p) for p in keys_values]),
            torch.cat([_bias(p) for p in keys_values]),
            dtype,
        )
        self.dep_out = Product(merged_weight(attention.out_proj), _bias(attention.out_proj), dtype)
        heads = network.head
        self.s1_head = Product(merged_weight(heads.proj_s1), _bias(heads.proj_s1), dtype)
        self.s2_head = Product(merged_weight(heads.proj_s2), _bias(heads.proj_s2), dtype)

    def _fuse_decoder(self, tokenizer: KronosTokenizer, dtype: torch.dtype) -> None:
        device = self.s1_vectors.device
        coarse, fine = (torch.arange(size, device=device) for size in self.vocabularies)
        first = tokenizer.post_quant_embed
        # A layer is linear in the bits, so a bar's vector is the sum of one for each token.
        bits = tokenizer.config.s1_bits
        of_coarse = tokenizer.token_bits(coarse, torch.zeros_like(coarse))[:, :bits]
        of_fine = tokenizer.token_bits(torch.zeros_like(fine), fine)[:, bits:]
        self.s1_codes = F.linear(of_coarse, first.weight[:, :bits], first.bias)
        self.s2_codes = F.linear(of_fine, first.weight[:, bits:])
        self.decoder = FusedStack(tokenizer.decoder, dtype)
        self.close_weight = tokenizer.head.weight[CLOSE]
        self.close_bias = tokenizer.head.bias[CLOSE]

    @property
    def vocabularies(self) -> tuple[int, int]:
        """Number of s1 and of s2 tokens."""
        return len(self.s1_vectors), len(self.s2_vectors)

    def s1_logits(self, hidden: Tensor) -> Tensor:
        """Hidden states (H, D) -> logits of the next bar's s1 (H, V)."""
        return self.s1_head(_padded(hidden))[: len(hidden)]

    def s2_logits(self, hidden: Tensor, s1: Tensor, cache: HistoryCache) -> Tensor:
        """Logits of the next bar's s2 (H, V), given its s1 (H,) and the layer's cache."""
        attended = cache.read(self.s1_queries[_padded(s1)]).flatten(1)
        mixed = self.dep_norm(_padded(hidden) + self.dep_out(attended))
        return self.s2_head(mixed)[: len(hidden)]

    def next_hidden(
        self,
        s1: Tensor,
        s2: Tensor,
        time: Tensor,
        rotation: tuple[Tensor, Tensor],
        caches: Sequence[HistoryCache],
        dep_cache: HistoryCache,
    ) -> Tensor:
        """Hidden states (H, D) of the bars with tokens s1, s2 (H,), which join the caches.

        time: (D,), of the bar's calendar fields. rotation: of its position.
        """
        x = self.s1_vectors[_padded(s1)] + self.s2_vectors[_padded(s2)] + time
        hidden: Tensor = self.norm(self.stack.step(x, *rotation, caches))
        keys_values = self.dep_keys_values(hidden).view(len(x), 2, DEPENDENCY_HEADS, -1)
        dep_cache.add(keys_values[:, 0], keys_values[:, 1])
        return hidden[: len(s1)]

    def closes(
        self,
        s1: Tensor,
        s2: Tensor,
        rotation: tuple[Tensor, Tensor],
        caches: Sequence[HistoryCache],
    ) -> Tensor:
        """Normalised closes (H,) of the bars with tokens s1, s2 (H,), which join the caches."""
        x = self.s1_codes[_padded(s1)] + self.s2_codes[_padded(s2)]
        x = self.decoder.step(x, *rotation, caches)
        return ((x * self.close_weight).sum(-1) + self.close_bias)[: len(s1)]


def padded_size(count: int) -> int:
    """`count` rounded up to a multiple of BLOCK."""
    return -(-count // BLOCK) * BLOCK


def _padded(x: Tensor) -> Tensor:
    """Add rows of zeros up to a multiple of BLOCK; x: (H, ...)."""
    missing = padded_size(len(x)) - len(x)
    return torch.cat((x, x.new_zeros(missing, *x.shape[1:]))) if missing else x


def _unit(x: Tensor, eps: float) -> Tensor:
    """x over its root mean square, as RMSNorm has it before its weight."""
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)


def _bias(layer: nn.Module) -> Tensor:
    base = layer.get_submodule("base_layer") if hasattr(layer, "base_layer") else layer
    return base.get_parameter("bias").detach()
