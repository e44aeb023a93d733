"""The cached sampler against upstream's uncached loop, and against itself in other company."""

from typing import Any

import numpy as np
import pytest
import torch

from retrain_assets.errors import CheckpointError
from retrain_assets.models.forecaster import LoadedModel
from retrain_assets.models.kronos.draw import SUB_TOKENS, Filters
from retrain_assets.models.kronos.fused import FusedKronos
from retrain_assets.models.kronos.network import KronosNetwork
from retrain_assets.models.kronos.sampler import ContextBatch, Sampler, draw_rows, prefill
from retrain_assets.models.kronos.settings import Compat, KronosSettings, RowTable
from retrain_assets.models.kronos.tokenizer import KronosTokenizer
from retrain_assets.models.uniforms import uniforms
from retrain_assets_tests.models.kronos.cases import (
    NETWORKS,
    TINY_NETWORK,
    TINY_TOKENIZER,
    TOKENIZERS,
    build_model,
    random_batch,
    upstream,
)

CPU = torch.device("cpu")
PAIRS = {"mini": (NETWORKS["mini"], TOKENIZERS["2k"])} | {
    size: (NETWORKS[size], TOKENIZERS["base"]) for size in ("small", "base")
}
SIZES = ["mini", "small", pytest.param("base", marks=pytest.mark.long)]
GRID = [
    (t, k, p) for t in (0.5, 0.7, 1.0, 1.2) for k in (20, 50, None) for p in (0.8, 0.9, 0.95, None)
]
FILTERS = [(t, k, p) for t in (0.5, 1.2) for k in (None, 8) for p in (None, 0.8)]


def noise_of(batch: ContextBatch, table: RowTable, seed: int) -> np.ndarray:
    """The uniforms of a batch of one window, (step, sub-token, path)."""
    paths = int(table.path.max()) + 1
    return uniforms(seed, int(batch.origins[0]), steps=batch.steps, parts=SUB_TOKENS, paths=paths)


def parts(model: LoadedModel) -> tuple[KronosNetwork, KronosTokenizer]:
    assert isinstance(model.module, KronosNetwork)
    assert isinstance(model.companion, KronosTokenizer)
    return model.module, model.companion


def upstream_twins(model: LoadedModel) -> tuple[Any, Any]:
    """Upstream's network and tokenizer with the weights of ours."""
    package = upstream()
    network, tokenizer = parts(model)
    their_network = package.Kronos(**network.config.to_json()).eval()
    their_network.load_state_dict(network.state_dict(), strict=True)
    their_tokenizer = package.KronosTokenizer(**tokenizer.config.to_json()).eval()
    their_tokenizer.load_state_dict(tokenizer.state_dict(), strict=True)
    return their_network, their_tokenizer


def table_of(
    filters: list[tuple[float, int | None, float | None]], samples: int, compat: Compat = None
) -> RowTable:
    return RowTable.build([KronosSettings(*one, samples) for one in filters], compat)


def closes(
    model: LoadedModel, batch: ContextBatch, table: RowTable, *, seed: int = 5, rows: int = 480
) -> np.ndarray:
    return Sampler(*parts(model), rows=rows).sample(batch, table, seed=seed).closes


# Against upstream.


@pytest.mark.parametrize("size", SIZES)
def test_greedy_forecasts_are_upstreams(size: str) -> None:
    model = build_model(*PAIRS[size])
    network, tokenizer = upstream_twins(model)
    batch = random_batch(windows=3, context=64, steps=8)
    ours = closes(model, batch, table_of([(1.0, 1, None)], 1))[:, 0]
    theirs = upstream().auto_regressive_inference(
        tokenizer,
        network,
        torch.from_numpy(batch.values),
        torch.from_numpy(batch.stamps[:, :64]),
        torch.from_numpy(batch.stamps[:, 64:]),
        max_context=512,
        pred_len=8,
        top_k=1,
        sample_count=1,
    )[:, -8:, 3]
    assert np.abs(ours - theirs).max() <= 1e-6 * max(1.0, np.abs(theirs).max())


def kept(logits: torch.Tensor, top_k: int | None, top_p: float | None) -> torch.Tensor:
    """Probabilities left by top_k, then by top_p, of logits (N, V), written with sorts."""
    if top_k is not None:
        least = logits.topk(min(top_k, logits.shape[1])).values
        logits = logits.masked_fill(logits < least[:, -1:], -torch.inf)
    ranked, order = logits.softmax(-1).sort(dim=-1, descending=True)
    before = ranked.cumsum(-1) - ranked
    removed = before > (1.0 if top_p is None else top_p)
    return logits.masked_fill(removed.scatter(1, order, removed), -torch.inf).softmax(-1)


def upstreams_draw(
    logits: torch.Tensor, table: RowTable, uniform: np.ndarray, compat: Compat
) -> torch.Tensor:
    """One token a row from logits (N, V), with upstream's filter or with `kept`."""
    tokens = torch.empty(len(table), dtype=torch.int64)
    filters = np.stack((table.temperature, table.top_k, table.top_p), axis=1)
    for one in np.unique(filters, axis=0):
        rows = np.flatnonzero((filters == one).all(axis=1))
        temperature, k, p = float(np.float32(one[0])), int(one[1]), float(one[2])
        scaled = logits[rows] / temperature
        if compat == "upstream" and (k or p < 1):
            upstream().top_k_top_p_filtering(scaled, top_k=k, top_p=p)  # in place
            left = scaled.softmax(-1)
        else:
            left = kept(scaled, k or None, p)
        cumulative = left.double().cumsum(-1)
        mark = torch.from_numpy(uniform[table.path[rows]])[:, None] * cumulative[:, -1:]
        tokens[rows] = (cumulative <= mark).sum(-1)
    return tokens


@torch.inference_mode()
def uncached_tokens(
    model: LoadedModel, batch: ContextBatch, table: RowTable, *, compat: Compat, seed: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Upstream's loop for one window: the whole sequence through the network at every step.

    Rows with the same sequence go through it once, which is no cache: it is the same call.
    """
    network, tokenizer = upstream_twins(model)
    context, vocabulary = batch.values.shape[1], model.module.head.proj_s2.out_features  # type: ignore[union-attr]
    noise = noise_of(batch, table, seed)
    s1, s2 = (
        x.repeat(len(table), 1) for x in tokenizer.encode(torch.from_numpy(batch.values), True)
    )
    stamps = torch.from_numpy(batch.stamps)

    def last_logits(distinct: torch.Tensor, i: int) -> tuple[torch.Tensor, torch.Tensor]:
        """s1 logits and all hidden states of the distinct sequences."""
        when = stamps[:, : context + i].expand(len(distinct), -1, -1)
        logits, hidden = network.decode_s1(distinct // vocabulary, distinct % vocabulary, when)
        return logits[:, -1], hidden

    for i in range(batch.steps):
        distinct, of_row = torch.unique(s1 * vocabulary + s2, dim=0, return_inverse=True)
        parts = [last_logits(part, i) for part in distinct.split(100)]
        logits, hidden = (torch.cat(part) for part in zip(*parts, strict=True))
        coarse = upstreams_draw(logits[of_row], table, noise[i, 0], compat)
        pairs, of_pair = torch.unique(
            torch.stack((of_row, coarse), dim=1), dim=0, return_inverse=True
        )
        fine_logits = torch.cat(
            [network.decode_s2(hidden[part[:, 0]], part[:, 1:])[:, -1] for part in pairs.split(100)]
        )
        fine = upstreams_draw(fine_logits[of_pair], table, noise[i, 1], compat)
        s1 = torch.cat((s1, coarse[:, None]), dim=1)
        s2 = torch.cat((s2, fine[:, None]), dim=1)
    return s1[:, context:], s2[:, context:]


@torch.inference_mode()
def cached_tokens(
    model: LoadedModel, batch: ContextBatch, table: RowTable, *, seed: int
) -> tuple[torch.Tensor, torch.Tensor]:
    network, tokenizer = parts(model)
    noise = noise_of(batch, table, seed)
    drawn = draw_rows(
        FusedKronos(network, tokenizer),
        prefill(network, tokenizer, batch, 0),
        Filters.of(table.temperature, table.top_k, table.top_p, CPU),
        torch.from_numpy(noise[:, :, table.path]),
    )
    return drawn.tokens[..., 0], drawn.tokens[..., 1]


@pytest.mark.parametrize(
    ("size", "samples", "compat"),
    [
        ("tiny", 30, None),
        ("tiny", 30, "upstream"),
        pytest.param("mini", 21, None, marks=pytest.mark.long),
        ("mini", 3, "upstream"),
        pytest.param("mini", 42, "upstream", marks=pytest.mark.long),
        pytest.param("small", 21, None, marks=pytest.mark.long),
        pytest.param("small", 42, "upstream", marks=pytest.mark.long),
    ],
)
def test_the_same_uniforms_draw_upstreams_tokens(size: str, samples: int, compat: Compat) -> None:
    """All filters of the guide's grid; over 1,000 rows where the published shapes are compared."""
    pair = PAIRS.get(size, (TINY_NETWORK, TINY_TOKENIZER))
    model = build_model(*pair)
    batch = random_batch(windows=1, context=64, steps=8)
    table = table_of(GRID, samples, compat)
    ours = cached_tokens(model, batch, table, seed=11)
    theirs = uncached_tokens(model, batch, table, compat=compat, seed=11)
    same = np.ones(len(table), dtype=bool)
    for one, two in zip(ours, theirs, strict=True):
        same &= (one == two).all(dim=1).numpy()
        assert one.unique().numel() > 10
    # A draw within rounding of a boundary may fall on either side, and its path with it.
    assert same.mean() >= 0.999


@torch.inference_mode()
def test_drawn_tokens_are_decoded_behind_their_context() -> None:
    model = build_model()
    tokenizer = parts(model)[1]
    batch = random_batch(windows=1, context=40, steps=6)
    table = table_of([(1.0, None, None)], 9)
    drawn = cached_tokens(model, batch, table, seed=5)
    context = tokenizer.encode(torch.from_numpy(batch.values))
    whole = [torch.cat((c.expand(9, -1), d), dim=1) for c, d in zip(context, drawn, strict=True)]
    expected = tokenizer.decode(*whole)[:, 40:, 3].numpy()
    assert np.abs(closes(model, batch, table)[0] - expected).max() <= 1e-5


# Against itself in other company: equal to the bit.


@pytest.fixture(scope="module", params=["tiny", "mini"])
def model(request: pytest.FixtureRequest) -> LoadedModel:
    return build_model(*PAIRS.get(request.param, (TINY_NETWORK, TINY_TOKENIZER)))


def only(batch: ContextBatch, windows: list[int]) -> ContextBatch:
    return ContextBatch(batch.values[windows], batch.stamps[windows], batch.origins[windows])


def test_windows_together_or_alone(model: LoadedModel) -> None:
    batch = random_batch(windows=5, context=33, steps=4)
    table = table_of([(0.6, None, 0.9)], 10)
    together = closes(model, batch, table)
    for window in range(5):
        assert np.array_equal(closes(model, only(batch, [window]), table)[0], together[window])
    mixed = closes(model, only(batch, [4, 1]), table)
    assert np.array_equal(mixed, together[[4, 1]])
    assert len(np.unique(together[:, :, 0])) > 10


def test_settings_together_or_alone(model: LoadedModel) -> None:
    batch = random_batch(windows=2, context=33, steps=4)
    settings = [KronosSettings(*one, n) for one in FILTERS for n in (5, 7)]
    table = RowTable.build(settings)
    together = closes(model, batch, table)
    for setting, share in zip(settings, table.shares, strict=True):
        alone = closes(model, batch, RowTable.build([setting]))
        assert np.array_equal(alone, together[:, share])


def test_more_paths_and_more_steps_only_add(model: LoadedModel) -> None:
    batch = random_batch(windows=1, context=33, steps=6)
    few, many = (closes(model, batch, table_of([(1.0, None, 0.9)], n)) for n in (5, 50))
    assert np.array_equal(few, many[:, :5])
    short = ContextBatch(batch.values, batch.stamps[:, :-2], batch.origins)
    fewer = closes(model, short, table_of([(1.0, None, 0.9)], 5))
    np.testing.assert_allclose(fewer, few[:, :, :4], atol=1e-5)


@pytest.mark.parametrize("rows", [5, 16, 37, 4096])
def test_the_size_of_a_chunk_changes_nothing(model: LoadedModel, rows: int) -> None:
    batch = random_batch(windows=2, context=33, steps=10)
    table = table_of(FILTERS, 9)
    usual = closes(model, batch, table)
    assert np.array_equal(closes(model, batch, table, rows=rows), usual)


def test_the_number_of_threads_changes_nothing(model: LoadedModel) -> None:
    batch = random_batch(windows=3, context=33, steps=10)
    table = table_of(FILTERS, 9)
    usual, threads = closes(model, batch, table), torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        assert np.array_equal(closes(model, batch, table, rows=20), usual)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)


def test_the_seed_and_the_origin_decide_the_noise() -> None:
    model = build_model()
    batch = random_batch(windows=1, context=20, steps=3)
    table = table_of([(1.0, None, None)], 20)
    elsewhere = ContextBatch(batch.values, batch.stamps, batch.origins + 1)
    usual = closes(model, batch, table)
    assert np.array_equal(usual, closes(model, batch, table))
    assert not np.array_equal(usual, closes(model, batch, table, seed=6))
    assert not np.array_equal(usual, closes(model, elsewhere, table))


@pytest.mark.parametrize("position", ["context", "later"])
def test_values_that_are_not_finite_are_an_error(position: str) -> None:
    model = build_model()
    network, _ = parts(model)
    with torch.no_grad():
        # The minutes of the context are all 0 here, and the drawn bars' are all 1.
        minute = 0 if position == "context" else 1
        network.time_emb.get_submodule("minute_embed").weight[minute] = torch.nan
    batch = random_batch(windows=1, context=20, steps=3)
    batch.stamps[:, :20, 0], batch.stamps[:, 20:, 0] = 0, 1
    with pytest.raises(CheckpointError, match="not finite"):
        closes(model, batch, table_of([(1.0, None, 0.9)], 3))
