"""``frond keys`` from the first key on: in the real object store, at a real door."""

from __future__ import annotations

import contextlib
import json
from datetime import UTC, datetime, timedelta

import pytest
from typer.testing import CliRunner, Result

from frond.auth import Scope
from frond.client.cli import app, keys
from frond.client.cli.keys import expiry
from frond.client.demo import own_key
from frond.client.errors import FrondClientError
from support.waiting import until

runner = CliRunner()


def frond(*words: str, code: int = 0) -> Result:
    done = runner.invoke(app, list(words))
    assert done.exit_code == code, (words, done.output)
    return done


@pytest.mark.stack
def test_from_the_first_key_to_a_revoked_one(door: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first key goes by the store, the next by the service; each opens what it was made for."""
    assert "frond keys create --store" in frond("jobs", code=2).stderr
    first = frond("keys", "create", "--store", "--name", "first", "--scope", "admin")
    assert "not shown again" in first.stderr and first.stdout.count("\n") == 1
    monkeypatch.setenv("FROND_API_KEY", first.stdout.strip())
    frond("jobs")
    made = frond("keys", "create", "--name", "drone team", "--tenant", "acme", "--expires", "90d")
    key = made.stdout.strip()
    assert key.startswith("frond_") and "acme" in made.stderr
    listed = json.loads(frond("keys", "list", "--json").stdout)
    assert [(k["name"], k["tenant"], k["state"]) for k in listed] == [
        ("first", None, "active"), ("drone team", "acme", "active"),
    ]  # fmt: skip
    assert key not in frond("keys", "list").stdout and "sha256" not in json.dumps(listed)
    table = frond("keys", "list", "--store").stdout
    rows = [line for line in table.splitlines() if "active" in line]
    assert len(rows) == 2 and len({line.index("active") for line in rows}) == 1
    mine = listed[1]["id"]
    with monkeypatch.context() as patch:
        patch.setenv("FROND_API_KEY", key)
        frond("jobs")
        assert "admin" in frond("keys", "list", code=2).stderr
        frond("keys", "revoke", mine, "--store")
        until(lambda: runner.invoke(app, ["jobs"]).exit_code != 0, 60)
        assert "revoked" in frond("jobs", code=2).stderr
    assert "revoked" in frond("keys", "revoke", mine).stdout
    assert "revoked" in frond("keys", "revoke", key).stdout
    assert frond("keys", "make", "--name", "also so").stdout.startswith("frond_")
    assert "There is no key" in frond("keys", "revoke", "0123", code=2).stderr


@pytest.mark.stack
def test_the_demo_has_a_key_of_its_own(door: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tenant demo, to submit and read; revoked however the demo ends. An admin's key makes it."""
    admin = frond("keys", "create", "--store", "--name", "a", "--scope", "admin").stdout.strip()
    monkeypatch.setenv("FROND_API_KEY", admin)

    def known() -> list[tuple[str, str, list[str], str]]:
        told = json.loads(frond("keys", "list", "--json").stdout)
        return [(k["name"], k["tenant"], sorted(k["scopes"]), k["state"]) for k in told[1:]]

    for ends in (True, False):
        with contextlib.suppress(InterruptedError), own_key() as client:
            assert client.jobs() == []
            assert known()[-1] == ("frond demo", "demo", ["read", "submit"], "active")
            if not ends:
                raise InterruptedError
    assert [k[3] for k in known()] == ["revoked"] * 2
    mine = frond("keys", "create", "--name", "no admin").stdout.strip()
    monkeypatch.setenv("FROND_API_KEY", mine)
    with pytest.raises(FrondClientError, match="'admin'"), own_key():
        pass


@pytest.mark.parametrize("where", [[], ["--store"]])
def test_a_scope_that_is_none(where: list[str]) -> None:
    """Those that there are, in the words of the option; all that the service has."""
    told = frond("keys", "create", "--name", "n", "--scope", "root", *where, code=2).stderr
    words = " ".join(told.replace("│", " ").split())
    assert "'--scope'" in words and "'submit', 'read', 'admin'" in words
    assert [s.value for s in Scope] == [s.value for s in keys.Scope]


def test_make_is_create() -> None:
    """For those who look for it under this name; help shows one."""
    assert "make " not in frond("keys", "--help").stdout
    assert "goes to stdout" in frond("keys", "make", "--help").stdout


def test_when_a_key_ends() -> None:
    """Spans and dates; anything else is told what may be written."""
    now = datetime(2026, 3, 1, tzinfo=UTC)
    assert expiry("90d", now) == now + timedelta(days=90)
    assert expiry("12h", now) == now + timedelta(hours=12)
    assert expiry("8w", now) == now + timedelta(weeks=8)
    assert expiry("2027-01-31", now) == datetime(2027, 1, 31, tzinfo=UTC)
    for text in ("soon", "0d", "-1d", "90", "1y", ""):
        with pytest.raises(FrondClientError, match="90d"):
            expiry(text, now)
