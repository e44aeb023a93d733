"""The fused, one-position form computes what the modules compute on whole sequences."""

import numpy as np
import pytest
import torch

from retrain_assets.models import lora
from retrain_assets.models.forecaster import LoadedModel
from retrain_assets.models.kronos.family import LORA_TARGETS
from retrain_assets.models.kronos.fused import BLOCK, FusedKronos, padded_size
from retrain_assets.models.kronos.histories import HistoryCache
from retrain_assets.models.kronos.network import KronosNetwork
from retrain_assets.models.kronos.sampler import prefill
from retrain_assets.models.kronos.tokenizer import KronosTokenizer
from retrain_assets_tests.models.kronos.cases import (
    NETWORKS,
    TINY_NETWORK,
    TINY_TOKENIZER,
    TOKENIZERS,
    build_model,
    random_batch,
)

CONTEXT, STEPS, ROWS = 20, 3, 5


def with_adapter(model: LoadedModel) -> tuple[KronosNetwork, KronosTokenizer]:
    """The model's parts; every layer the adapter wraps computes something else than the base."""
    settings = lora.LoraSettings(4, 8, 0.0, LORA_TARGETS)
    wrapped = lora.attach(model.module, settings, seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, value in wrapped.named_parameters():
            if "lora_B" in name:
                value.copy_(0.05 * torch.randn(value.shape, generator=generator))
    network = wrapped.get_base_model()  # type: ignore[operator]
    assert isinstance(network, KronosNetwork)
    assert isinstance(model.companion, KronosTokenizer)
    return network.eval(), model.companion.eval()


@pytest.mark.parametrize("size", ["tiny", "mini"])
@pytest.mark.parametrize("adapter", [False, True])
@torch.inference_mode()
def test_step_by_step_equals_the_whole_sequence(size: str, adapter: bool) -> None:
    pair = {"mini": (NETWORKS["mini"], TOKENIZERS["2k"])}.get(size, (TINY_NETWORK, TINY_TOKENIZER))
    model = build_model(*pair)
    base = model.module, model.companion
    network, tokenizer = with_adapter(model) if adapter else base
    assert isinstance(network, KronosNetwork)
    assert isinstance(tokenizer, KronosTokenizer)
    batch = random_batch(windows=1, context=CONTEXT, steps=STEPS)
    fused, prefix = FusedKronos(network, tokenizer), prefill(network, tokenizer, batch, 0)
    caches = {
        name: [HistoryCache(p, histories=padded_size(ROWS)) for p in layers]
        for name, layers in (
            ("blocks", prefix.blocks), ("dependency", [prefix.dependency]),
            ("decoder", prefix.decoder),
        )
    }  # fmt: skip
    generator = torch.Generator().manual_seed(2)
    s1, s2 = (torch.randint(0, n, (ROWS, STEPS), generator=generator) for n in fused.vocabularies)
    rotations = [stack.rotations(CONTEXT, STEPS) for stack in (fused.stack, fused.decoder)]
    got: dict[str, list[torch.Tensor]] = {"hidden": [], "s1": [], "s2": [], "close": []}
    hidden = prefix.last.expand(ROWS, -1)
    for i in range(STEPS):
        here = [(cos[i], sin[i]) for cos, sin in rotations]
        got["hidden"].append(hidden)
        got["s1"].append(fused.s1_logits(hidden))
        got["s2"].append(fused.s2_logits(hidden, s1[:, i], caches["dependency"][0]))
        got["close"].append(fused.closes(s1[:, i], s2[:, i], here[1], caches["decoder"]))
        hidden = fused.next_hidden(
            s1[:, i], s2[:, i], prefix.times[i], here[0], caches["blocks"], caches["dependency"][0]
        )

    context = tokenizer.encode(torch.from_numpy(batch.values))
    whole = [torch.cat((c.expand(ROWS, -1), t), 1) for c, t in zip(context, (s1, s2), strict=True)]
    stamps = torch.from_numpy(batch.stamps).expand(ROWS, -1, -1)
    expected_hidden = network.hidden(*whole, stamps)[:, CONTEXT - 1 : -1]
    logits = network(*(t[:, :-1] for t in whole), stamps[:, :-1], whole[0][:, 1:])
    expected = {
        "hidden": expected_hidden,
        "s1": logits[0][:, CONTEXT - 1 :],
        "s2": logits[1][:, CONTEXT - 1 :],
        "close": tokenizer.decode(*whole)[:, CONTEXT:, 3],
    }
    for name, values in expected.items():
        found = torch.stack(got[name], dim=1)
        torch.testing.assert_close(found, values, atol=1e-5, rtol=1e-5, msg=name)
    if adapter:  # and it is not the base that was computed
        plain = build_model(*pair).module
        assert isinstance(plain, KronosNetwork)
        assert not torch.allclose(plain.hidden(*whole, stamps), network.hidden(*whole, stamps))


@pytest.mark.parametrize("wide", [16, 48, 256])
def test_a_row_of_a_product_is_rounded_alike_in_any_company(wide: int) -> None:
    """What equality to the bit rests on; the sizes are those that histories are padded to."""
    generator = np.random.default_rng(0)
    weight = torch.from_numpy(generator.normal(size=(3 * wide, wide)).astype(np.float32))
    x = torch.from_numpy(generator.normal(size=(1200, wide)).astype(np.float32))
    alone = torch.nn.functional.linear(x[:BLOCK], weight)
    for rows in (2 * BLOCK, 5 * BLOCK, 30 * BLOCK, 75 * BLOCK):
        for first in (0, BLOCK, rows - BLOCK):
            company = torch.cat((x[BLOCK : BLOCK + first], x[:BLOCK], x[BLOCK + first : rows]))
            together = torch.nn.functional.linear(company, weight)[first : first + BLOCK]
            assert torch.equal(together, alone)
