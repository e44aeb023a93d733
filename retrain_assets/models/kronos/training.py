"""One stock's bars as Kronos training batches, and the loss an adapter is trained on.

The loss is cross-entropy of both tokens over every position, plus the plan's loss (huber,
heteroscedastic or mse) on a point forecast of the horizon's closes. The point forecast is the
decoding of the expected bits: bits are linear in token probabilities, so it is differentiable
in the logits and exact where the distribution is sure of one token.

Axes: B windows, T positions (context, then horizon), h horizon, C code bits.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from retrain_assets.errors import BadInput
from retrain_assets.models.forecaster import LoadedModel, WindowRange
from retrain_assets.models.kronos.cache import PrefixCache, RowCache
from retrain_assets.models.kronos.forecaster import network_of
from retrain_assets.models.kronos.preprocess import CLOSE, features, time_features
from retrain_assets.models.kronos.tokenizer import KronosTokenizer
from retrain_assets.models.memory import with_less
from retrain_assets.training.losses import LOSSES, point_loss
from retrain_assets.training.windows import cut_windows, kept_targets, normalise_windows

POINT_WEIGHT = 0.5
"""Weight of the point loss beside the cross-entropy, which is 3 to 7 nats."""
PROBES = 2
"""Pairs of random directions that estimate the variance of a decoded forecast."""
CHUNK = 32
"""Windows encoded or validated at once, where memory takes them."""


@dataclass(frozen=True)
class TokenWindows:
    """Windows of one series, tokenised once: the tokenizer is frozen while adapters train.

    s1, s2: (B, T) int64. stamps: (B, T, 5) int64. closes: (B, h), the targets in units of the
    context's standard deviation, clipped as the tokens are. kept: (B, h), False for targets
    that were cut off; causality keeps what stands in their place from touching the others.
    """

    s1: Tensor
    s2: Tensor
    stamps: Tensor
    closes: Tensor
    kept: Tensor

    @property
    def horizon(self) -> int:
        """Target positions at the end of each window."""
        return self.closes.shape[1]

    def rows(self, rows: NDArray[np.int64] | slice, device: torch.device) -> TokenWindows:
        """Some of the windows, on a device."""
        everything = (self.s1, self.s2, self.stamps, self.closes, self.kept)
        return TokenWindows(*(t[rows].to(device) for t in everything))


def tokenise(
    tokenizer: KronosTokenizer, bars: pd.DataFrame, windows: WindowRange, device: torch.device
) -> TokenWindows:
    """Cut, normalise (on each window's context alone) and encode the windows of a series."""
    cut = cut_windows(features(bars), windows).astype(np.float64)
    values = normalise_windows(cut, context=windows.context).values
    stamps = cut_windows(time_features(pd.DatetimeIndex(bars["session"])), windows)
    inputs = torch.from_numpy(values.astype(np.float32))
    with torch.inference_mode():
        encoded = [tokenizer.encode(chunk.to(device)) for chunk in torch.split(inputs, CHUNK)]
    return TokenWindows(
        s1=torch.cat([s1 for s1, _ in encoded]).cpu().clone(),
        s2=torch.cat([s2 for _, s2 in encoded]).cpu().clone(),
        stamps=torch.from_numpy(stamps.astype(np.int64)),
        closes=inputs[:, windows.context :, CLOSE].clone(),
        kept=torch.from_numpy(kept_targets(windows)),
    )


class KronosTrainingTask:
    """Training and validation windows of one stock; a `TrainingTask`."""

    def __init__(
        self,
        model: LoadedModel,
        bars: pd.DataFrame,
        *,
        train: WindowRange,
        validation: WindowRange,
        loss: str,
    ) -> None:
        if loss not in LOSSES:
            raise BadInput(f"no loss {loss!r}: choose one of {', '.join(LOSSES)}")
        if not isinstance(model.companion, KronosTokenizer):
            raise BadInput(f"{model.family}/{model.base} was loaded without its tokenizer")
        self.tokenizer = model.companion
        self.device, self.point = model.device, loss
        self.train = tokenise(self.tokenizer, bars, train, self.device)
        self.held_out = tokenise(self.tokenizer, bars, validation, self.device)
        self.train_windows = len(self.train.s1)
        self._at_once = CHUNK

    def loss(self, module: nn.Module, rows: NDArray[np.int64]) -> dict[str, Tensor]:
        """Mean loss of some training windows: cross-entropy at all positions, point loss."""
        batch = self.train.rows(rows, self.device)
        return self._losses(module, batch, context_too=True, probe=None)

    @torch.no_grad()
    def validation(self, module: nn.Module) -> dict[str, float]:
        """Mean loss over the validation windows, scored at their target positions alone.

        Causal, since the network is so in evaluation mode too, and without noise: the probes
        of the variance are drawn from a fixed seed. Fewer windows at once where memory is short.
        """
        losses, self._at_once = with_less(lambda n: self._validation(module, n), self._at_once)
        return losses

    def _validation(self, module: nn.Module, at_once: int) -> dict[str, float]:
        probe = torch.Generator().manual_seed(0)
        sums: dict[str, float] = {}
        total = float(self.held_out.kept.sum())
        for start in range(0, len(self.held_out.s1), at_once):
            batch = self.held_out.rows(slice(start, start + at_once), self.device)
            losses = self._losses(module, batch, context_too=False, probe=probe)
            share = float(batch.kept.sum()) / total
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + float(value) * share
        return sums

    def _losses(
        self,
        module: nn.Module,
        batch: TokenWindows,
        *,
        context_too: bool,
        probe: torch.Generator | None,
    ) -> dict[str, Tensor]:
        """Losses by name. context_too: count the cross-entropy of the context positions as well.

        Logits of context and horizon are computed apart: only the latter are needed twice, and
        the gradient of a slice of all of them would be as large as all of them.
        """
        network, h = network_of(module), batch.horizon
        s1_next, s2_next = batch.s1[:, 1:], batch.s2[:, 1:]  # position t predicts bar t + 1
        hidden = network.hidden(batch.s1[:, :-1], batch.s2[:, :-1], batch.stamps[:, :-1])
        dependent = network.dependent(hidden, s1_next)  # (B, T-1, D)
        s1_logits = network.s1_logits(hidden[:, -h:])
        s2_logits = network.head.proj_s2(dependent[:, -h:])  # (B, h, V)
        kept = batch.kept
        entropies = [
            _cross_entropy(logits[kept], tokens[:, -h:][kept])
            for logits, tokens in ((s1_logits, s1_next), (s2_logits, s2_next))
        ]
        count = kept.sum()
        if context_too:
            earlier = (network.s1_logits(hidden[:, :-h]), network.head.proj_s2(dependent[:, :-h]))
            for i, (logits, tokens) in enumerate(zip(earlier, (s1_next, s2_next), strict=True)):
                entropies[i] = entropies[i] + _cross_entropy(
                    logits.flatten(0, 1), tokens[:, :-h].flatten()
                )
            count = count + s1_next[:, :-h].numel()
        entropy_s1, entropy_s2 = (entropy / count for entropy in entropies)
        mean, variance = self._point_forecast(batch, s1_logits, s2_logits, probe)
        spread = None if variance is None else variance[kept]
        point = point_loss(self.point, mean[kept], spread, batch.closes[kept])
        return {
            "loss": (entropy_s1 + entropy_s2) / 2 + POINT_WEIGHT * point,
            "cross_entropy_s1": entropy_s1,
            "cross_entropy_s2": entropy_s2,
            self.point: point,
        }

    def _point_forecast(
        self,
        batch: TokenWindows,
        s1_logits: Tensor,
        s2_logits: Tensor,
        probe: torch.Generator | None,
    ) -> tuple[Tensor, Tensor | None]:
        """Expected closes (B, h) of the horizon and, for heteroscedastic, their variance.

        The variance is the delta method's for independent bits, sum over bits of (d close /
        d bit)^2 x var(bit), estimated by Hutchinson's probes: half the difference between
        decodings at the expected bits +- sd(bits) x random signs, squared, has that mean.
        """
        with torch.no_grad():
            h = batch.horizon
            prefix = self.tokenizer.token_bits(batch.s1[:, :-h], batch.s2[:, :-h])
            caches = [PrefixCache() for _ in self.tokenizer.decoder]
            self.tokenizer.decode_bits(prefix, caches=caches)
        bits = self.tokenizer.expected_bits(s1_logits, s2_logits)  # (B, h, C)
        if self.point != "heteroscedastic":
            return self._closes(bits[:, None], caches)[:, 0], None
        scale = self.tokenizer.code_bits**-0.5
        # A bit of +-scale with mean m has variance scale^2 - m^2; the bound keeps sqrt's slope.
        spread = (scale**2 - bits.square()).clamp_min(1e-8).sqrt()
        moves = [_signs(bits, probe) * spread for _ in range(PROBES)]
        moved = [bits, *(bits + move for move in moves), *(bits - move for move in moves)]
        closes = self._closes(torch.stack(moved, dim=1), caches)  # (B, 1 + 2 PROBES, h)
        half = (closes[:, 1 : 1 + PROBES] - closes[:, 1 + PROBES :]) / 2
        return closes[:, 0], half.square().mean(dim=1)

    def _closes(self, bits: Tensor, contexts: list[PrefixCache]) -> Tensor:
        """Decode R versions of each horizon's bits, (B, R, h, C), -> closes (B, R, h)."""
        versions, h = bits.shape[1:3]
        caches = [RowCache(c.keys, c.values, rows=versions, size=h) for c in contexts]
        start = contexts[0].keys.shape[2]
        decoded = self.tokenizer.decode_bits(bits.flatten(0, 1), start=start, caches=caches)
        return decoded[..., CLOSE].view(-1, versions, h)


def _cross_entropy(logits: Tensor, tokens: Tensor) -> Tensor:
    """Sum over the positions, (N, V) and (N,)."""
    return F.cross_entropy(logits, tokens, reduction="sum")


def _signs(like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Random +-1 of the same shape; drawn on the CPU, so that a device changes nothing."""
    drawn = torch.randint(0, 2, like.shape, generator=generator)
    return (drawn * 2 - 1).to(like)
