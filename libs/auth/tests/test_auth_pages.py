"""Whose web pages are answered where nobody is asked for a key."""

from __future__ import annotations

import pytest
from pydantic import SecretStr

from frond.auth import AuthSettings, Gate
from frond.contracts.errors import JobRejected
from frond.contracts.reasons import Reason
from frond.store import ObjectStore, StoreSettings

NO_STORE = ObjectStore(StoreSettings("http://127.0.0.1:1", "a", "b" * 8, "frond"))


@pytest.mark.parametrize(
    "headers",
    [
        {}, {"host": "127.0.0.1:8000"}, {"host": "[::1]:8000"}, {"host": "localhost"},
        {"host": "localhost.:8000"}, {"host": "ingest:8000"}, {"host": "192.168.1.4"},
        {"host": "Frond.example"}, {"host": "127.0.0.1:8000", "origin": "http://127.0.0.1:8000"},
        {"host": "127.0.0.1:8000", "origin": "https://frond.example"},
    ],
)  # fmt: skip
def test_off_is_for_its_own_page(headers: dict[str, str]) -> None:
    """Programs on this machine, the service's own page, and what comes by FROND_PUBLIC_URL."""
    gate_at("https://frond.example").require_own_page(headers)


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example:8000"}, {"host": "evil.example.:8000"}, {"host": "[::1"},
        {"host": "frond.example.evil.example"}, {"host": "127.0.0.1.evil.example"},
        {"host": "evil.example", "origin": "http://evil.example"},
        {"host": "127.0.0.1:8000", "origin": "http://evil.example"},
        {"host": "127.0.0.1:8000", "origin": "http://127.0.0.1:3000"},
        {"host": "127.0.0.1:8000", "origin": "null"}, {"host": "", "origin": "null"},
        {"host": "127.0.0.1:8000", "origin": "http://["},
    ],
)  # fmt: skip
def test_off_is_for_no_stranger_s_page(headers: dict[str, str]) -> None:
    """What a page that somebody visits sends here, by its own name or by one that leads here; where keys
    are asked for, no page has one."""
    for url in ("https://frond.example", ""):
        with pytest.raises(JobRejected, match="FROND_AUTH is off") as caught:
            gate_at(url).require_own_page(headers)
        assert caught.value.reason is Reason.FORBIDDEN
    keyed = Gate(AuthSettings(api_key=SecretStr("own")), NO_STORE, print)
    keyed.require_own_page(headers)


def gate_at(public_url: str) -> Gate:
    return Gate(AuthSettings(auth="off", public_url=public_url), NO_STORE, print)
