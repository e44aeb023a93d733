"""Kronos' sampler: one prefill a window, then all paths of all settings drawn together.

The context of a window is computed once and its keys and values serve every path. A path is a
row; rows that have drawn the same tokens so far are one history and are computed once. Rows of
one window are decoded in chunks whose size is limited by memory; on the CPU several chunks run
side by side, each on one thread. A row comes out equal to the bit whatever its chunk holds and
however many threads there are, because it is computed by the same instructions.

Positions: the context takes 0 .. L - 1; the i-th bar drawn takes L + i, with the calendar
fields of its own session, and is drawn from the logits of position L + i - 1.

Axes: W windows, L context, h steps, Q rows of a window, N rows of a chunk, H histories,
D model width, nh heads, hs head width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from retrain_assets.errors import CheckpointError
from retrain_assets.models.kronos.budget import RowBudget, bytes_per_row, workers
from retrain_assets.models.kronos.cache import PrefixCache
from retrain_assets.models.kronos.draw import SUB_TOKENS, Filters, draw
from retrain_assets.models.kronos.fused import FusedKronos, padded_size
from retrain_assets.models.kronos.histories import Histories, HistoryCache, Prefix
from retrain_assets.models.kronos.network import KronosNetwork
from retrain_assets.models.kronos.settings import RowTable
from retrain_assets.models.kronos.tokenizer import KronosTokenizer
from retrain_assets.models.uniforms import uniforms


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
class WindowPrefix:
    """What the rows of one window share.

    blocks, decoder: keys and values of every layer of the network and of the tokenizer's
    decoder. dependency: those of the dependency-aware layer. last: last hidden state, (1, D).
    times: vectors of the calendar fields of the bars to draw, (h, D).
    """

    blocks: list[Prefix]
    dependency: Prefix
    decoder: list[Prefix]
    last: Tensor
    times: Tensor


@dataclass(frozen=True)
class Drawn:
    """What a chunk drew: tokens (N, h, 2) int64, normalised closes (N, h) float32.

    computed: bars that went through the network, at most N x h; rows that agree share theirs.
    """

    tokens: Tensor
    closes: Tensor
    computed: int


@dataclass(frozen=True)
class Sampled:
    """Normalised closes (W, Q, h) of every row of every window, and what they took.

    rows: the most rows that were decoded at once. computed: bars that went through the network,
    of the W x Q x h that were drawn.
    """

    closes: NDArray[np.float32]
    rows: int
    computed: int


class Sampler:
    """Draws paths from one model, whose weights are copied when it is made.

    network, tokenizer: in evaluation mode, on one device. rows: the most to decode at once; None
    chooses by free memory. dtype: precision of the products while decoding.
    """

    def __init__(
        self,
        network: KronosNetwork,
        tokenizer: KronosTokenizer,
        *,
        rows: int | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.network, self.tokenizer = network, tokenizer
        self.budget = RowBudget(rows)
        self.fused = FusedKronos(network, tokenizer, dtype)
        self.device = self.fused.s1_vectors.device

    def sample(self, batch: ContextBatch, table: RowTable, *, seed: int) -> Sampled:
        """Draw every row of every window.

        Raises CheckpointError if the network computes values that are not finite, and
        RetrainError if not even a few rows fit into memory.
        """
        windows, computed = range(len(batch.values)), 0
        closes = np.empty((len(windows), len(table), batch.steps), dtype=np.float32)
        noise = [self._noise(batch, table, window, seed) for window in windows]
        with workers(self.device) as team:
            per_row = bytes_per_row(self.network.config, self.tokenizer.config, batch.steps)
            rows = self.budget.rows(self.device, bytes_per_row=per_row, threads=team.size)
            # A window alone is shared out among the workers.
            rows = min(rows, -(-len(table) // max(1, team.size // len(windows))))
            for first in range(0, len(windows), team.size):
                # Few windows at a time, since their prefixes are what memory is filled with.
                some = windows[first : first + team.size]
                prefixes = team.map(self._prefill, [(batch, window) for window in some])
                chunks = [
                    _Chunk(prefix, table, noise[window], chunk, closes[window])
                    for window, prefix in zip(some, prefixes, strict=True)
                    for chunk in table.chunks(rows)
                ]
                computed += sum(team.map(self._decode, chunks))
        return Sampled(closes, min(rows, self.budget.limit), computed)

    def _noise(
        self, batch: ContextBatch, table: RowTable, window: int, seed: int
    ) -> NDArray[np.float64]:
        """The window's uniforms, (h, 2, path)."""
        origin, paths = int(batch.origins[window]), int(table.path.max()) + 1
        return uniforms(seed, origin, steps=batch.steps, parts=SUB_TOKENS, paths=paths)

    def _prefill(self, task: tuple[ContextBatch, int]) -> WindowPrefix:
        return prefill(self.network, self.tokenizer, *task)

    def _decode(self, chunk: _Chunk) -> int:
        """Draw a chunk's rows into its closes; returns the bars computed."""

        def decode(rows: NDArray[np.int64]) -> int:
            drawn = draw_rows(
                self.fused,
                chunk.prefix,
                _filters(chunk.table, rows, self.device),
                torch.from_numpy(chunk.noise[:, :, chunk.table.path[rows]]).to(self.device),
            )
            chunk.closes[rows] = drawn.closes.cpu().numpy()
            return drawn.computed

        return sum(self.budget.run(chunk.rows, decode))


class _Chunk(NamedTuple):
    """Rows of one window to draw. noise: its uniforms, (h, 2, path). closes: to fill, (Q, h)."""

    prefix: WindowPrefix
    table: RowTable
    noise: NDArray[np.float64]
    rows: NDArray[np.int64]
    closes: NDArray[np.float32]


@torch.inference_mode()
def prefill(
    network: KronosNetwork, tokenizer: KronosTokenizer, batch: ContextBatch, window: int
) -> WindowPrefix:
    """Compute the context of one window: what its rows share."""
    device = network.head.proj_s1.weight.device
    values = torch.from_numpy(batch.values[[window]]).to(device)  # (1, L, 6)
    stamps = torch.from_numpy(batch.stamps[[window]]).to(device)  # (1, L + h, 5)
    length = values.shape[1]
    s1, s2 = tokenizer.encode(values)  # (1, L)
    blocks = [PrefixCache() for _ in network.transformer]
    hidden = network.hidden(s1, s2, stamps[:, :length], caches=blocks)  # (1, L, D)
    decoder = [PrefixCache() for _ in tokenizer.decoder]
    tokenizer.decode_bits(tokenizer.token_bits(s1, s2), caches=decoder)
    return WindowPrefix(
        blocks=[_prefix(cache.keys, cache.values) for cache in blocks],
        dependency=_prefix(*network.dep_layer.cross_attn.keys_values(hidden)),
        decoder=[_prefix(cache.keys, cache.values) for cache in decoder],
        last=hidden[:, -1],
        times=network.time_emb(stamps[0, length:]),
    )


@torch.inference_mode()
def draw_rows(fused: FusedKronos, prefix: WindowPrefix, filters: Filters, noise: Tensor) -> Drawn:
    """Draw the bars of N rows of one window.

    noise: (h, 2, N) uniforms. Raises CheckpointError if a hidden state is not finite.
    """
    state = _State(fused, prefix, rows=noise.shape[2])
    steps, total = len(noise), noise.shape[2]
    closes = prefix.last.new_empty(total, steps)
    tokens = torch.empty(total, steps, SUB_TOKENS, dtype=torch.int64, device=closes.device)
    computed, finite = 0, prefix.last.isfinite().all()
    for i, (coarse, fine) in enumerate(noise):
        tokens[:, i, 0] = draw(state.s1_logits(), state.row, filters, coarse)
        state.take_s1(tokens[:, i, 0])
        tokens[:, i, 1] = draw(state.s2_logits(), state.row, filters, fine)
        state.take_s2(tokens[:, i, 1])
        closes[:, i] = state.closes(i)[state.row]
        computed += state.count
        if i + 1 < steps:  # nothing is drawn after the last bar, so it is not computed
            state.advance(i)
            finite &= state.hidden.isfinite().all()
    if not finite:
        raise CheckpointError(
            "the Kronos network computes values that are not finite: its weights or its "
            "adapter are broken; train the adapter again or load another checkpoint"
        )
    return Drawn(tokens, closes, computed)


class _State:
    """The histories of one chunk: where each row stands, and what the layers keep of them.

    hidden: (H, D), of the last bar of each history.
    """

    def __init__(self, fused: FusedKronos, prefix: WindowPrefix, *, rows: int) -> None:
        steps, length = len(prefix.times), prefix.dependency.keys.shape[1]

        def cache(layer: Prefix) -> HistoryCache:
            return HistoryCache(layer, histories=padded_size(rows))

        self.fused, self.times, self.hidden = fused, prefix.times, prefix.last
        self.blocks = [cache(layer) for layer in prefix.blocks]
        self.dependency = cache(prefix.dependency)
        self.decoder = [cache(layer) for layer in prefix.decoder]
        self._histories = Histories(rows, prefix.last.device)
        self._rotations = fused.stack.rotations(length, steps)
        self._decoder_rotations = fused.decoder.rotations(length, steps)
        self._s1 = self._s2 = torch.empty(0)

    @property
    def row(self) -> Tensor:
        """The history of each row, (N,)."""
        return self._histories.row

    @property
    def count(self) -> int:
        """Number of histories, H."""
        return self._histories.count

    def s1_logits(self) -> Tensor:
        return self.fused.s1_logits(self.hidden)

    def s2_logits(self) -> Tensor:
        return self.fused.s2_logits(self.hidden, self._s1, self.dependency)

    def take_s1(self, tokens: Tensor) -> None:
        self._s1 = self._part(tokens, self.fused.vocabularies[0])[0]

    def take_s2(self, tokens: Tensor) -> None:
        self._s2, sources = self._part(tokens, self.fused.vocabularies[1])
        self._s1 = torch.cat((self._s1, self._s1[sources]))

    def closes(self, step: int) -> Tensor:
        """Normalised closes (H,) of the bars just drawn."""
        rotation = self._decoder_rotations[0][step], self._decoder_rotations[1][step]
        return self.fused.closes(self._s1, self._s2, rotation, self.decoder)

    def advance(self, step: int) -> None:
        """Compute the hidden states of the bars just drawn."""
        rotation = self._rotations[0][step], self._rotations[1][step]
        self.hidden = self.fused.next_hidden(
            self._s1, self._s2, self.times[step], rotation, self.blocks, self.dependency
        )

    def _part(self, tokens: Tensor, vocabulary: int) -> tuple[Tensor, Tensor]:
        """Part the histories by a token a row; returns each one's token, and what new ones go on
        from."""
        parting = self._histories.part(tokens, vocabulary)
        if len(parting.sources):
            for cache in (*self.blocks, self.dependency, *self.decoder):
                cache.branch(parting.first, parting.sources)
            self.hidden = torch.cat((self.hidden, self.hidden[parting.sources]))
        return parting.tokens, parting.sources


def _filters(table: RowTable, rows: NDArray[np.int64], device: torch.device) -> Filters:
    """How some rows of a table draw."""
    return Filters.of(table.temperature[rows], table.top_k[rows], table.top_p[rows], device)


def _prefix(keys: Tensor, values: Tensor) -> Prefix:
    """From keys and values of one window, (1, nh, L, hs)."""
    return Prefix(keys[0].contiguous(), values[0].contiguous())
