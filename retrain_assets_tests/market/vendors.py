"""What vendors answer, kept as JSON in `recorded/`, played to the libraries at the HTTP layer."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests
import tenacity
from curl_cffi.requests import Session
from curl_cffi.requests.models import Response as YahooResponse

RECORDED = Path(__file__).parent / "recorded"


def recorded(name: str) -> Any:
    """The answer kept under a name."""
    return json.loads((RECORDED / f"{name}.json").read_text("utf-8"))


@dataclass
class Vendor:
    """Answers in the order in which they are asked for; the last one stays.

    An answer is a status, a body (JSON or text) and headers, or an error to raise. asked: URL and
    parameters of each request. waited: the seconds between requests.
    """

    answers: list[tuple[int, Any, dict[str, str]] | Exception] = field(default_factory=list)
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    waited: list[float] = field(default_factory=list)

    def answer(self, body: Any, status: int = 200, **headers: str) -> None:
        """Put down one more answer; a name of one that is recorded stands for its JSON."""
        # Only what looks like a name: a long text is none, and no path either.
        if isinstance(body, str) and body.isidentifier() and (RECORDED / f"{body}.json").exists():
            body = recorded(body)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.answers.append((status, body, named))

    def fail(self, error: Exception) -> None:
        """Put down an error of the network."""
        self.answers.append(error)

    def next(self, url: str, params: dict[str, Any]) -> tuple[int, bytes, dict[str, str]]:
        """The answer to one request."""
        self.asked.append((url, params))
        given = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(given, Exception):
            raise given
        status, body, headers = given
        text = body if isinstance(body, str) else json.dumps(body)
        return status, text.encode(), headers


@pytest.fixture
def vendor(monkeypatch: pytest.MonkeyPatch) -> Vendor:
    """A vendor without answers yet, whom nobody waits for."""
    found = Vendor()
    monkeypatch.setattr(tenacity.nap, "sleep", found.waited.append)
    return found


@pytest.fixture
def yahoo(vendor: Vendor, monkeypatch: pytest.MonkeyPatch) -> Vendor:
    """Yahoo, behind the session of yfinance."""
    from yfinance import data

    def request(self: Session[Any], method: str, url: str, **options: Any) -> YahooResponse:
        answer = YahooResponse()
        answer.url = url
        # A cookie and a crumb are asked for first; both are refused, and needed by nobody.
        if "/chart/" not in url:
            answer.status_code, answer.content = 404, b"<html></html>"
            return answer
        status, body, headers = vendor.next(url, options["params"])
        answer.status_code, answer.content = status, body
        answer.headers.update(headers)
        return answer

    monkeypatch.setattr(Session, "request", request)
    monkeypatch.setattr(data.SingletonMeta, "_instances", {})
    # Cookies are kept in a database in the user's home otherwise.
    monkeypatch.setattr(data.YfData, "_load_cookie_curlCffi", lambda self: False)
    monkeypatch.setattr(data.YfData, "_save_cookie_curlCffi", lambda self: False)
    return vendor


@pytest.fixture
def over_requests(vendor: Vendor, monkeypatch: pytest.MonkeyPatch) -> Vendor:
    """A vendor that is asked through requests, by a library or directly."""
    monkeypatch.setattr(requests.adapters.HTTPAdapter, "send", _sender(vendor))
    return vendor


@pytest.fixture
def alpaca(over_requests: Vendor, monkeypatch: pytest.MonkeyPatch) -> Vendor:
    """Alpaca, behind the session of alpaca-py, and keys for it."""
    monkeypatch.setenv("APCA_API_KEY_ID", "AK-OURS")
    monkeypatch.setenv("APCA_API_SECRET_KEY", "not-to-be-told")
    return over_requests


def _sender(vendor: Vendor) -> Callable[..., requests.Response]:
    def send(
        self: Any, request: requests.PreparedRequest, timeout: Any = None, **options: Any
    ) -> requests.Response:
        assert timeout, "a request without a time limit may hang for ever"
        url, _, query = str(request.url).partition("?")
        status, body, headers = vendor.next(
            url, dict(pair.split("=", 1) for pair in query.split("&"))
        )
        answer = requests.Response()
        answer.status_code, answer._content, answer.request = status, body, request
        answer.url = str(request.url)
        answer.headers.update(headers)
        return answer

    return send
