"""Kronos' sampler: one prefill a window, then all paths of all settings drawn together.

The context of a window is computed once and its keys and values serve every path. A path is a
row; rows are decoded in chunks of G x R, a group being R rows of one window. On the CPU every
chunk has the same shape, padded where need be, so a row is computed by the same instructions
whatever else is forecast in the call, and results are equal to the bit.

Positions: the context takes 0 .. L - 1; the i-th bar drawn takes L + i, with the calendar
fields of its own session, and is drawn from the logits of position L + i - 1.

Axes: W windows, L context, h steps, Q rows of a window, G groups, R rows of a group,
N = G x R, D model width, nh heads, hs head width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from retrain_assets.errors import CheckpointError
from retrain_assets.models.kronos.cache import PrefixCache, RowCache
from retrain_assets.models.kronos.draw import SUB_TOKENS, Filters, draw, uniforms
from retrain_assets.models.kronos.network import KronosNetwork
from retrain_assets.models.kronos.preprocess import CLOSE
from retrain_assets.models.kronos.settings import RowTable
from retrain_assets.models.kronos.tokenizer import KronosTokenizer

KeysValues = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class ContextBatch:
    """Windows as the network reads them, all of one shape.

    values: normalised features of the contexts, (W, L, 6) float32.
    stamps: calendar fields of contexts and steps, (W, L + h, 5) int64.
    origins: what keys the windows' random numbers, (W,) int64.
    """

    values: NDArray[np.float32]
    stamps: NDArray[np.int64]
    origins: NDArray[np.int64]

    @property
    def steps(self) -> int:
        """Bars to draw, h."""
        return int(self.stamps.shape[1] - self.values.shape[1])


@dataclass(frozen=True)
class ChunkShape:
    """Rows decoded together: `groups` x `rows`, each group rows of one window.

    fixed: pad the last chunk to the full shape.
    """

    groups: int
    rows: int
    fixed: bool

    @classmethod
    def choose(cls, device: torch.device, *, budget: int | None, needed: int) -> ChunkShape:
        """A shape of about `budget` rows for windows that need `needed` rows each.

        On the CPU it depends on the budget alone (32 unless given), never on the call. On an
        accelerator (2048 unless given) groups are as large as a window needs.
        """
        if device.type == "cpu":
            return cls(groups=max(1, (budget or 32) // 16), rows=16, fixed=True)
        budget = budget or 2048
        rows = min(budget, -(-needed // 16) * 16)
        return cls(groups=max(1, budget // rows), rows=rows, fixed=False)


@dataclass(frozen=True)
class Prefix:
    """What the rows of G windows share: keys and values (G, nh, L, hs) of every layer.

    blocks, decoder: one pair a layer of the network and of the tokenizer's decoder.
    dependency: the pair of the dependency-aware layer. last: last hidden states, (G, D).
    """

    blocks: list[KeysValues]
    dependency: KeysValues
    decoder: list[KeysValues]
    last: Tensor

    @classmethod
    def stack(cls, prefixes: Sequence[Prefix]) -> Prefix:
        """Join prefixes along the group axis."""
        return cls(
            blocks=[_stack(layer) for layer in zip(*(p.blocks for p in prefixes), strict=True)],
            dependency=_stack([p.dependency for p in prefixes]),
            decoder=[_stack(layer) for layer in zip(*(p.decoder for p in prefixes), strict=True)],
            last=torch.cat([p.last for p in prefixes]),
        )


@torch.inference_mode()
def sample_closes(
    network: KronosNetwork,
    tokenizer: KronosTokenizer,
    batch: ContextBatch,
    table: RowTable,
    *,
    seed: int,
    shape: ChunkShape,
) -> NDArray[np.float32]:
    """Normalised closes of every row of every window, (W, Q, h).

    network and tokenizer are in evaluation mode and on one device. Raises CheckpointError if
    the network computes values that are not finite.
    """
    device = network.head.proj_s1.weight.device
    steps = batch.steps
    noise = np.stack(
        [
            uniforms(seed, int(origin), steps=steps, paths=int(table.path.max()) + 1)
            for origin in batch.origins
        ]
    )  # (W, h, 2, path)
    closes = np.empty((len(batch.values), len(table), steps), dtype=np.float32)
    at_hand: dict[int, Prefix] = {}
    stacked: tuple[tuple[int, ...], Prefix] | None = None
    for chunk in _chunks(len(batch.values), len(table), shape):
        windows = tuple(window for window, _ in chunk)
        at_hand = {
            w: at_hand[w] if w in at_hand else prefill(network, tokenizer, batch, w, device)
            for w in dict.fromkeys(windows)
        }
        if stacked is None or stacked[0] != windows:
            stacked = windows, Prefix.stack([at_hand[w] for w in windows])
        rows = np.stack([_padded(rows, shape.rows) for _, rows in chunk])  # (G, R)
        of_window = np.repeat(windows, shape.rows)  # (N,)
        row = rows.reshape(-1)
        drawn = decode_rows(
            network,
            tokenizer,
            stacked[1],
            stamps=torch.from_numpy(batch.stamps[of_window, -steps:]).to(device),
            filters=Filters.of(table.temperature[row], table.top_k[row], table.top_p[row], device),
            noise=torch.from_numpy(noise[of_window, :, :, table.path[row]]).to(device),
        )
        result = drawn.cpu().numpy().reshape(len(chunk), shape.rows, steps)
        for group, (window, kept) in enumerate(chunk):
            closes[window, kept] = result[group, : len(kept)]
    return closes


def prefill(
    network: KronosNetwork,
    tokenizer: KronosTokenizer,
    batch: ContextBatch,
    window: int,
    device: torch.device,
) -> Prefix:
    """Compute the context of one window: what its rows share, with G = 1."""
    values = torch.from_numpy(batch.values[[window]]).to(device)  # (1, L, 6)
    length = values.shape[1]
    stamps = torch.from_numpy(batch.stamps[[window], :length]).to(device)  # (1, L, 5)
    s1, s2 = tokenizer.encode(values)  # (1, L)
    blocks = [PrefixCache() for _ in network.transformer]
    hidden = network.hidden(s1, s2, stamps, caches=blocks)  # (1, L, D)
    decoder = [PrefixCache() for _ in tokenizer.decoder]
    tokenizer.decode_bits(tokenizer.token_bits(s1, s2), caches=decoder)
    return Prefix(
        blocks=[(cache.keys, cache.values) for cache in blocks],
        dependency=network.dep_layer.cross_attn.keys_values(hidden),
        decoder=[(cache.keys, cache.values) for cache in decoder],
        last=hidden[:, -1],
    )


def decode_rows(
    network: KronosNetwork,
    tokenizer: KronosTokenizer,
    prefix: Prefix,
    *,
    stamps: Tensor,
    filters: Filters,
    noise: Tensor,
) -> Tensor:
    """Draw the bars of N rows and return their normalised closes, (N, h).

    stamps: (N, h, 5) of the bars to draw. noise: (N, h, 2) uniforms.
    """
    s1, s2 = draw_tokens(network, prefix, stamps=stamps, filters=filters, noise=noise)
    rows, steps = len(s1) // len(prefix.last), s1.shape[1]
    caches = [RowCache(k, v, rows=rows, size=steps) for k, v in prefix.decoder]
    start = prefix.dependency[0].shape[2]
    bars = tokenizer.decode_bits(tokenizer.token_bits(s1, s2), start=start, caches=caches)
    return bars[..., CLOSE]


def draw_tokens(
    network: KronosNetwork, prefix: Prefix, *, stamps: Tensor, filters: Filters, noise: Tensor
) -> tuple[Tensor, Tensor]:
    """Draw the tokens s1, s2 of N rows, each (N, h) int64; arguments as `decode_rows`."""
    total, steps, _ = stamps.shape
    rows = total // len(prefix.last)
    length = prefix.dependency[0].shape[2]
    blocks = [RowCache(k, v, rows=rows, size=steps) for k, v in prefix.blocks]
    dependency = RowCache(*prefix.dependency, rows=rows, size=steps)
    attention = network.dep_layer.cross_attn
    # A query depends on the drawn token alone, so all there can be are computed once.
    queries = attention.queries(network.embedding.emb_s1.weight[None])[0].transpose(0, 1)

    hidden = prefix.last.repeat_interleave(rows, dim=0)[:, None]  # (N, 1, D)
    finite = hidden.isfinite().all()
    drawn = stamps.new_empty(SUB_TOKENS, total, steps)
    for i in range(steps):
        s1 = draw(network.s1_logits(hidden)[:, 0], filters, noise[:, i, 0])  # (N,)
        attended = dependency.read(queries[s1][:, :, None])  # (N, nh, 1, hs)
        s2_logits = network.head.proj_s2(network.dep_layer.combine(hidden, attended))
        s2 = draw(s2_logits[:, 0], filters, noise[:, i, 1])
        drawn[0, :, i], drawn[1, :, i] = s1, s2
        if i + 1 < steps:  # nothing is drawn after the last bar, so it is not computed
            hidden = network.hidden(
                s1[:, None], s2[:, None], stamps[:, i, None], start=length + i, caches=blocks
            )
            dependency.add(*attention.keys_values(hidden))
            finite &= hidden.isfinite().all()
    if not finite:
        raise CheckpointError(
            "the Kronos network computes values that are not finite: its weights or its "
            "adapter are broken; train the adapter again or load another checkpoint"
        )
    return drawn[0], drawn[1]


def _chunks(
    windows: int, rows: int, shape: ChunkShape
) -> Iterator[list[tuple[int, NDArray[np.int64]]]]:
    """Groups (window, its rows) in order, `shape.groups` at a time."""
    groups = [
        (window, np.arange(first, min(first + shape.rows, rows)))
        for window in range(windows)
        for first in range(0, rows, shape.rows)
    ]
    for first in range(0, len(groups), shape.groups):
        chunk = groups[first : first + shape.groups]
        missing = shape.groups - len(chunk) if shape.fixed else 0
        yield chunk + [chunk[-1]] * missing


def _padded(rows: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    return np.pad(rows, (0, size - len(rows)), mode="edge")


def _stack(pairs: Sequence[KeysValues]) -> KeysValues:
    return torch.cat([keys for keys, _ in pairs]), torch.cat([values for _, values in pairs])
