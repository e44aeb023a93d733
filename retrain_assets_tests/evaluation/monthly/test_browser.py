"""The report in headless Chromium: accessible, quiet, no wider than the screen it is read on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from retrain_assets.evaluation.monthly.facts import MonthFacts, SeenBars
from retrain_assets.evaluation.monthly.page import page
from retrain_assets_tests.browser import browser
from retrain_assets_tests.evaluation.monthly.made import MONTH, MONTHS, live, month_of, record_of
from retrain_assets_tests.finished import Finished

__all__ = ["browser"]
PHONE, DESKTOP = 390, 1280
LONG = "a_word_that_is_longer_than_any_screen_is_wide_" * 4


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A month in which everything there is happened."""
    facts = month_of(
        [record_of("AAA"), record_of("BRK.B", reason=LONG)],
        months=MONTHS,
        live={"AAA": live("AAA", drifted=True)},
        bars={"AAA": SeenBars(500, "2021-09-01", f"{MONTH}-31", False, LONG, ["odd", "bars"])},
        facts={
            "AAA": {"stale": {"kronos_params": "searched with another adapter"}},
            "CCC": {"failures": {"run": f"it died\n{LONG}\n  of it"}, "missing": ["comparison"]},
            "DDD": {"vanished": "no bars of this month"},
        },
    )
    path = tmp_path_factory.mktemp("report") / "month.html"
    path.write_text(page(facts), encoding="utf-8")
    return path


def looked_at(
    browser: Any, file: Path, width: int, scheme: str, *, paper: bool = False
) -> dict[str, Any]:
    """What a reader's browser makes of a file, on a screen or on paper.

    `violations` of axe's rules, `console` lines, addresses `asked` for, the `width` it takes.
    """
    from axe_playwright_python.sync_playwright import Axe

    # axe is a script, and the page forbids those.
    context = browser.new_context(
        viewport={"width": width, "height": 844}, color_scheme=scheme, bypass_csp=True
    )
    console: list[str] = []
    asked: list[str] = []
    try:
        shown = context.new_page()
        shown.on("console", lambda message: console.append(message.text))
        shown.on("pageerror", lambda error: console.append(str(error)))
        shown.on("request", lambda request: asked.append(request.url))
        shown.goto(file.as_uri())
        if paper:
            shown.emulate_media(media="print")
        for details in shown.locator("details").all():
            details.evaluate("one => one.open = true")
        violations = Axe().run(shown).response["violations"]
        wide = shown.evaluate("document.documentElement.scrollWidth")
    finally:
        context.close()
    told = [f"{v['id']}: {node['html'][:200]}" for v in violations for node in v["nodes"]]
    return {"violations": told, "console": console, "asked": asked, "width": wide}


LATER = pytest.mark.long


@pytest.mark.parametrize(
    ("width", "scheme"),
    [
        (PHONE, "dark"),
        pytest.param(DESKTOP, "light", marks=LATER),
        pytest.param(PHONE, "light", marks=LATER),
        pytest.param(DESKTOP, "dark", marks=LATER),
    ],
)
def test_it_is_accessible_quiet_and_fits(browser: Any, file: Path, width: int, scheme: str) -> None:
    found = looked_at(browser, file, width, scheme)
    assert found == {"violations": [], "console": [], "asked": [file.as_uri()], "width": width}


def test_the_look_would_find_what_is_wrong(browser: Any, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.html"
    wrong.write_text(
        "<html lang=en><title>t</title><main><h1 style='color:#ccc;background:#ddd'>pale</h1>"
        "<div style='width:2000px'>wide</div><img alt='' src='http://127.0.0.1:9/none.png'></main>",
        encoding="utf-8",
    )
    found = looked_at(browser, wrong, PHONE, "light")
    assert [line.split(":")[0] for line in found["violations"]] == ["color-contrast"]
    assert found["console"]
    assert len(found["asked"]) == 2
    assert found["width"] > PHONE


@pytest.mark.long
def test_it_is_printed_dark_on_light_whatever_the_screen(browser: Any, file: Path) -> None:
    found = looked_at(browser, file, DESKTOP, "dark", paper=True)
    assert (found["violations"], found["console"]) == ([], [])


@pytest.mark.long
@pytest.mark.parametrize("facts", [MonthFacts(MONTH), None], ids=["empty", "failed"])
def test_a_month_without_results_reads_as_well(
    browser: Any, tmp_path: Path, facts: MonthFacts | None
) -> None:
    failed = {"AAA": {"failures": {"run": "it died"}}}
    path = tmp_path / "month.html"
    path.write_text(page(facts or month_of([], facts=failed)), encoding="utf-8")
    found = looked_at(browser, path, PHONE, "dark")
    assert (found["violations"], found["console"], found["width"]) == ([], [], PHONE)


@pytest.mark.long
@pytest.mark.parametrize("width", [PHONE, DESKTOP])
def test_the_report_of_a_real_run_reads_as_well(
    browser: Any, finished: Finished, width: int
) -> None:
    (report,) = (file for file in finished.files if file.suffix == ".html")
    found = looked_at(browser, report, width, "light")
    assert found == {"violations": [], "console": [], "asked": [report.as_uri()], "width": width}
