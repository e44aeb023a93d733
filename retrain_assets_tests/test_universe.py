"""The universe file: what the project ships, what is refused and in which words, who is chosen."""

from __future__ import annotations

from pathlib import Path

import pytest

from retrain_assets.errors import BadInput
from retrain_assets.training.policy import PlanOverrides
from retrain_assets.universe import Universe, select

SHIPPED = Path(__file__).parents[1] / "data" / "universe.yaml"
PRIORITY = {*("SPY", "QQQ", "MSFT", "AAPL", "GOOG", "NVDA", "AMD", "META", "TSLA")}
PRIORITY |= {"BTCUSD", "ETHUSD"}
GUIDE = PRIORITY | {*("ADBE", "ADSK", "AMZN", "COIN", "COUR", "CRWD", "GOOGL", "INTC", "LCID")}
GUIDE |= {*("NET", "QUBT", "U", "UNIUSD")}


@pytest.fixture(scope="module")
def shipped() -> Universe:
    return Universe.load(SHIPPED)


def loaded(tmp_path: Path, text: str) -> Universe:
    path = tmp_path / "universe.yaml"
    path.write_text(text, encoding="utf-8")
    return Universe.load(path)


def test_the_shipped_file_lists_the_guides_symbols_and_netflix(shipped: Universe) -> None:
    assert len(GUIDE) == 24
    assert sorted(shipped.symbols) == sorted([*GUIDE, "NFLX"])
    assert {s.symbol for s in shipped.stocks if s.priority} == PRIORITY
    coins = {s.symbol for s in shipped.stocks if s.calendar == "24/7"}
    assert coins == {"BTCUSD", "ETHUSD", "UNIUSD"}
    assert {s.calendar for s in shipped.stocks} == {"XNYS", "24/7"}


def test_the_guides_tesla_example_is_an_override(shipped: Universe) -> None:
    assert shipped.stock("TSLA").overrides == PlanOverrides(epochs=50, rank=20, learning_rate=5e-5)
    others = [s.symbol for s in shipped.stocks if s.overrides != PlanOverrides()]
    assert others == ["TSLA"]


def test_names_are_found_by_alias_and_case(shipped: Universe) -> None:
    assert shipped.stock("fb").symbol == "META"
    assert shipped.stock("btc-usd").symbol == "BTCUSD"
    assert shipped.aliases["FB"] == "META"
    assert shipped.stock("GOOG") != shipped.stock("GOOGL")


def test_an_unknown_name_gets_near_matches_and_the_lines_to_add(shipped: Universe) -> None:
    with pytest.raises(BadInput, match=r"did you mean AAPL.*--symbol APPL`.*`- symbol: APPL`"):
        shipped.stock("APPL")


def test_an_unlisted_symbol_with_bars_is_a_us_stock(shipped: Universe) -> None:
    assert shipped.stock("orcl", stored=["ORCL"]).calendar == "XNYS"
    assert select(shipped, ["ORCL"], stocks=["ORCL"]).symbols == ("ORCL",)
    assert select(shipped, ["ORCL"], everything=True).symbols == ("ORCL",)


def test_a_base_is_set_by_model_family(tmp_path: Path) -> None:
    text = 'first_month: "2015-01"\nstocks: [{symbol: A}]\n'
    assert loaded(tmp_path, text).bases == {}
    assert loaded(tmp_path, text + "bases: {kronos: published}\n").bases == {"kronos": "published"}
    with pytest.raises(BadInput, match=r"line 3, bases\.chronos.*no model family 'chronos'"):
        loaded(tmp_path, text + "bases: {chronos: small}\n")


def test_words_that_yaml_takes_for_values_are_symbols(tmp_path: Path) -> None:
    universe = loaded(tmp_path, 'first_month: "2020-01"\nstocks: [{symbol: ON}, {symbol: NO}]\n')
    assert universe.symbols == ("ON", "NO")


HEAD = 'first_month: "2020-01"\nstocks:\n'
MALFORMED = {
    "not YAML": ("stocks: [", r"universe\.yaml is not valid YAML"),
    "empty": ("", r"is empty: it must list"),
    "no stocks": ('first_month: "2020-01"\n', r"stocks: this field is missing"),
    "month": (
        "first_month: 2020-1\nstocks: [{symbol: A}]\n",
        r"line 1, first_month: write .*2015-01",
    ),
    "unknown field": (
        HEAD + "  - symbol: AAPL\n    calender: XNYS\n",
        r"line 4, stocks\[0\]\.calender \(AAPL\): unknown field",
    ),
    "path as symbol": (
        HEAD + "  - symbol: ../etc\n",
        r"line 3, stocks\[0\]\.symbol .*no usable symbol",
    ),
    "override out of range": (
        HEAD + "  - symbol: A\n  - symbol: TSLA\n    overrides:\n      rank: 99\n",
        r"line 5, stocks\[1\]\.overrides \(TSLA\): rank is 99: give a whole number, 1 to 64",
    ),
    "unknown override": (
        HEAD + "  - symbol: TSLA\n    overrides:\n      epohs: 50\n",
        r"line 5, stocks\[0\]\.overrides\.epohs \(TSLA\): unknown field",
    ),
    "override of the wrong type": (
        HEAD + "  - symbol: TSLA\n    overrides: {learning_rate: fast}\n",
        r"line 4, stocks\[0\]\.overrides\.learning_rate .*number.*'fast'",
    ),
    "symbol twice": (HEAD + "  - symbol: A\n  - symbol: A\n", r"A is listed for A and again for A"),
    "alias of another": (
        HEAD + "  - symbol: A\n  - {symbol: B, aliases: [a]}\n",
        r"A is listed for A and again for B",
    ),
    "key twice": (HEAD + "  - symbol: A\n    symbol: B\n", r"line 4: symbol is given twice"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_file_is_refused_with_line_field_and_remedy(tmp_path: Path, case: str) -> None:
    text, message = MALFORMED[case]
    with pytest.raises(BadInput, match=message):
        loaded(tmp_path, text)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="does not exist"):
        Universe.load(tmp_path / "universe.yaml")


def test_groups_leave_out_what_has_no_bars(shipped: Universe) -> None:
    chosen = select(shipped, ["AAPL", "NVDA", "NFLX"], priority=True)
    assert chosen.symbols == ("AAPL", "NVDA")
    assert "SPY" in chosen.without_bars
    everything = select(shipped, ["AAPL", "NVDA", "NFLX"], everything=True)
    assert set(everything.symbols) == {"AAPL", "NVDA", "NFLX"}
    assert len(everything.without_bars) == 22


def test_names_given_one_by_one_must_have_bars(shipped: Universe) -> None:
    assert select(shipped, ["META"], stocks=["FB", "META"]).symbols == ("META",)
    with pytest.raises(BadInput, match=r"no bars of SPY: import .*there are bars of META"):
        select(shipped, ["META"], stocks=["META", "SPY"])
    with pytest.raises(BadInput, match="not in the universe"):
        select(shipped, ["META"], stocks=["XXXX"])


def test_a_group_without_any_bars_is_an_error(shipped: Universe) -> None:
    with pytest.raises(BadInput, match=r"no bars of SPY, .*retrain import FILE"):
        select(shipped, [], priority=True)


@pytest.mark.parametrize("asked", [{}, {"stocks": ["A"], "priority": True}])
def test_exactly_one_choice_is_needed(shipped: Universe, asked: dict[str, object]) -> None:
    with pytest.raises(BadInput, match="say which stocks"):
        select(shipped, ["AAPL"], **asked)
