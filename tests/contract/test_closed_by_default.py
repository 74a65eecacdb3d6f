"""What an installation is before anybody has configured it: shut, and with no password in the files."""

from __future__ import annotations

import os
import re
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from frond.auth import AuthSettings, Gate
from frond.auth.settings import is_loopback
from frond.inference.settings import InferenceSettings
from frond.ingest.settings import IngestSettings
from frond.runtime import ServiceSettings
from frond.store import ObjectStore, StoreSettings

ROOT = Path(__file__).parents[2]


@pytest.fixture
def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return found


def test_compose_publishes_on_loopback_alone(compose: dict[str, Any]) -> None:
    """Every published port of every container names 127.0.0.1."""
    ports = [p for s in compose["services"].values() for p in s.get("ports", ())]
    assert len(ports) >= 5
    assert all(str(p).startswith("127.0.0.1:") for p in ports)


def test_compose_has_no_password() -> None:
    """Passwords come from outside and are required; keys may be empty, which opens nothing."""
    text = (ROOT / "docker-compose.yml").read_text()
    used = re.findall(r"\$\{([A-Z0-9_]+)([^}]*)\}", text)
    secret = [(n, how) for n, how in used if re.search("PASSWORD|SECRET|ACCESS_KEY|API_KEY", n)]
    assert {n for n, _ in secret} >= {"FROND_S3_SECRET_KEY", "FROND_POSTGRES_PASSWORD"}
    for name, how in secret:
        assert how.startswith(":?") or how == ":-", (name, how)
        assert "make env" in how or how == ":-"


def test_env_file_is_random_and_private(tmp_path: Path) -> None:
    """Nobody else reads it, no two are alike, and one that is there is never written over."""
    made = []
    for name in ("a", "b", "a"):
        subprocess.run(
            ["bash", str(ROOT / "tools/env.sh"), str(tmp_path / name)], check=True,
            capture_output=True,
        )  # fmt: skip
        made.append((tmp_path / name).read_text())
    assert made[0] == made[2] != made[1]
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o600
    values = dict(line.split("=", 1) for line in made[0].splitlines())
    others = dict(line.split("=", 1) for line in made[1].splitlines())
    assert set(values) >= {
        "FROND_S3_ACCESS_KEY", "FROND_S3_SECRET_KEY", "FROND_POSTGRES_PASSWORD", "FROND_API_KEY",
    }  # fmt: skip
    assert all(values[k] != others[k] for k in values)
    # what MinIO takes, and what needs no escaping in the database's URL
    assert 3 <= len(values["FROND_S3_ACCESS_KEY"]) <= 20
    assert re.fullmatch(r"[A-Za-z0-9_-]{40}", values["FROND_S3_SECRET_KEY"])
    assert re.fullmatch(r"[A-Za-z0-9_-]{40}", values["FROND_POSTGRES_PASSWORD"])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b"]


def test_services_listen_on_loopback_and_ask_for_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any setting: loopback only, no key that opens, nobody let in without one."""
    for name in list(os.environ):
        if name.startswith(("FROND_", "API_")):
            monkeypatch.delenv(name)
    for settings in (ServiceSettings(), IngestSettings(), InferenceSettings()):
        assert is_loopback(settings.http_host)
        assert settings.s3_secret_key.get_secret_value() == ""
    for doors in (IngestSettings(), InferenceSettings()):
        assert isinstance(doors, AuthSettings)
        assert doors.auth == "required" and doors.api_key.get_secret_value() == ""
    monkeypatch.setenv("FROND_AUTH", "off")
    monkeypatch.setenv("FROND_HTTP_HOST", "0.0.0.0")
    for kind in (IngestSettings, InferenceSettings):
        with pytest.raises(ValueError, match="loopback"):
            kind()


@pytest.mark.parametrize("kind", [IngestSettings, InferenceSettings])
def test_every_open_door_knows_how_clients_reach_it(
    kind: type[IngestSettings | InferenceSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nobody is asked for a key, what comes by the host of FROND_PUBLIC_URL is let in, at ingest and
    at inference."""
    monkeypatch.setenv("FROND_AUTH", "off")
    monkeypatch.setenv("FROND_PUBLIC_URL", "https://frond.example")
    store = ObjectStore(StoreSettings("http://127.0.0.1:1", "a", "b" * 8, "frond"))
    gate = Gate(kind(), store, print)
    gate.require_own_page({"host": "frond.example", "origin": "https://frond.example"})
