import numpy as np
import pytest
import torch

from retrain_assets.models.kronos.draw import Filters, draw, least_kept


def filters(
    rows: int, *, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
) -> Filters:
    return Filters.of(
        np.full(rows, temperature),
        np.full(rows, top_k or 0, dtype=np.int64),
        np.full(rows, top_p or 1.0),
        torch.device("cpu"),
    )


def each(logits: torch.Tensor) -> torch.Tensor:
    """One row for each distribution."""
    return torch.arange(len(logits))


def kept(logits: torch.Tensor, rows: Filters) -> torch.Tensor:
    """Which tokens each row may draw, (N, V) bool."""
    ranked = logits.sort(dim=-1, descending=True).values
    return logits >= least_kept(ranked, each(logits), rows, each(logits))


def kept_by_hand(probabilities: np.ndarray, top_k: int | None, top_p: float | None) -> set[int]:
    """Tokens left of one distribution, in the plainest words there are."""
    order = sorted(range(len(probabilities)), key=lambda j: -probabilities[j])
    order = order[: top_k or len(order)]
    total = sum(probabilities[j] for j in order)
    kept, mass = set(), 0.0
    for j in order:
        if mass / total > (top_p or 1.0):
            break
        kept.add(j)
        mass += probabilities[j]
    return kept


@pytest.mark.parametrize("top_k", [None, 1, 2, 7, 20, 64, 5000])
@pytest.mark.parametrize("top_p", [None, 1e-6, 0.3, 0.8, 0.95, 1.0])
@pytest.mark.parametrize("peak", [0.3, 3.0])
def test_top_k_then_top_p_on_what_is_left(
    top_k: int | None, top_p: float | None, peak: float
) -> None:
    logits = peak * torch.randn(40, 64, generator=torch.Generator().manual_seed(1))
    rows = filters(40, temperature=0.7, top_k=top_k, top_p=top_p)
    probabilities = (logits / 0.7).softmax(-1).double().numpy()
    for row, left in zip(probabilities, kept(logits, rows), strict=True):
        assert set(np.flatnonzero(left.numpy())) == kept_by_hand(row, top_k, top_p)


@pytest.mark.parametrize(
    ("top_k", "top_p", "left"),
    [
        (None, 0.49, [0]),
        (None, 0.5, [0, 1]),  # before token 1 lies .5, which is not above .5: it crosses and stays
        (None, 0.7, [0, 1]),
        (None, 0.8, [0, 1, 2]),
        (2, 0.65, [0]),  # of the mass that top_k leaves, two thirds lie before token 1
        (2, 0.7, [0, 1]),
        (1, 0.1, [0]),
        (3, None, [0, 1, 2]),
    ],
)
def test_filters_on_a_distribution_one_can_check(
    top_k: int | None, top_p: float | None, left: list[int]
) -> None:
    logits = torch.tensor([[0.5, 0.25, 0.15625, 0.09375]]).log()  # sums of these are exact
    found = kept(logits, filters(1, top_k=top_k, top_p=top_p))[0]
    assert np.flatnonzero(found.numpy()).tolist() == left


@pytest.mark.parametrize("equal", [3, 15, 62])
def test_tokens_as_likely_as_the_last_one_kept_stay(equal: int) -> None:
    logits = torch.full((2, 64), -1.0)
    logits[:, :equal], logits[:, 0] = 0.0, 1.0
    assert kept(logits, filters(2, top_k=2)).sum(-1).tolist() == [equal, equal]


def test_rows_that_share_a_distribution_draw_as_if_each_had_its_own() -> None:
    logits = 2 * torch.randn(5, 64, generator=torch.Generator().manual_seed(3))
    row = torch.tensor([0, 3, 3, 1, 4, 0, 3])
    uniform = torch.linspace(0.05, 0.95, 7, dtype=torch.float64)
    mixed = Filters.of(
        np.array([0.5, 1.0, 1.2, 0.7, 1.0, 0.5, 1.0]),
        np.array([0, 3, 20, 0, 5, 0, 0]),
        np.array([1.0, 1.0, 0.9, 0.5, 0.8, 0.9, 0.3]),
        torch.device("cpu"),
    )
    shared = draw(logits, row, mixed, uniform)
    assert torch.equal(shared, draw(logits[row], torch.arange(7), mixed, uniform))


@pytest.mark.parametrize("top_k", [None, 9])
@pytest.mark.parametrize("top_p", [None, 0.8])
def test_draws_follow_the_filtered_distribution(top_k: int | None, top_p: float | None) -> None:
    logits = 2 * torch.randn(64, generator=torch.Generator().manual_seed(2))
    marks = torch.from_numpy((np.arange(50_000) + 0.5) / 50_000)
    rows = filters(len(marks), temperature=0.7, top_k=top_k, top_p=top_p)
    tokens = draw(logits[None], torch.zeros(len(marks), dtype=torch.int64), rows, marks)
    expected = (logits / 0.7).softmax(-1).double().numpy()
    left = kept_by_hand(expected, top_k, top_p)
    expected = np.where(np.isin(np.arange(64), list(left)), expected, 0.0)
    shares = np.bincount(tokens.numpy(), minlength=64) / len(marks)
    assert np.abs(shares - expected / expected.sum()).max() < 3e-5
    assert (tokens.diff() >= 0).all()


@pytest.mark.parametrize("uniform", [0.0, 0.5, np.nextafter(1.0, 0.0)])
def test_the_ends_of_the_interval_draw_tokens_that_can_be(uniform: float) -> None:
    logits = torch.tensor([[-200.0, 0.0, -200.0, 1.0, -200.0]])
    for rows in (filters(1), filters(1, top_k=2), filters(1, top_p=0.99)):
        token = draw(logits, each(logits), rows, torch.tensor([uniform], dtype=torch.float64))
        assert token.item() in (1, 3)


def test_rows_keep_their_own_filters() -> None:
    logits = torch.randn(1, 64).expand(5, -1)
    mixed = Filters.of(
        np.array([0.5, 1.0, 1.0, 1.0, 2.0]),
        np.array([0, 1, 20, 0, 5]),
        np.array([1.0, 1.0, 0.9, 0.5, 1.0]),
        torch.device("cpu"),
    )
    together = draw(logits, each(logits), mixed, torch.full((5,), 0.7, dtype=torch.float64))
    for row, (temperature, top_k, top_p) in enumerate(
        [(0.5, None, None), (1.0, 1, None), (1.0, 20, 0.9), (1.0, None, 0.5), (2.0, 5, None)]
    ):
        alone = filters(1, temperature=temperature, top_k=top_k, top_p=top_p)
        token = draw(logits[:1], each(logits[:1]), alone, torch.tensor([0.7], dtype=torch.float64))
        assert together[row] == token[0]
    assert together[1] == logits[0].argmax()
