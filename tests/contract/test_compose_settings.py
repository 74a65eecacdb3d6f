"""Containers are given every limit that an operator may set, and no default of their own."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from frond.aggregator.settings import AggregatorSettings
from frond.inference.settings import InferenceSettings
from frond.ingest.settings import IngestSettings
from frond.notifier.settings import NotifierSettings
from frond.runtime import ServiceSettings
from frond.tiler.settings import TilerSettings

ROOT = Path(__file__).parents[2]
KINDS: dict[str, type[ServiceSettings]] = {
    "ingest": IngestSettings, "tiler": TilerSettings, "inference": InferenceSettings,
    "aggregator": AggregatorSettings, "notifier": NotifierSettings,
}  # fmt: skip


DOCS = [ROOT / "docs/limits.md", ROOT / "docs/runbook.md", *ROOT.glob("services/*/README.md")]
OTHERWISE = {
    "FROND_KAFKA_BOOTSTRAP": "Compose's own broker",
    "FROND_S3_ENDPOINT": "Compose's own store",
    "FROND_S3_ACCESS_KEY": "has to be set: the store is made with it",
    "FROND_S3_SECRET_KEY": "has to be set: the store is made with it",
    "FROND_S3_BUCKET": "has the default of the code",
    "FROND_DATABASE_URL": "Compose's own database",
    "FROND_PRESIGN_WITH": "one of two words, neither of them empty",
    "FROND_LOG_LEVEL": "one of a few words, none of them empty",
}
"""What is given, but not as it stands in somebody's environment, and why."""
NEVER = {
    "FROND_AUTH": "`off` is for loopback only, and containers do not listen there",
    "FROND_CACHE_DIR": "the image's volume",
    "FROND_HTTP_HOST": "the image's: what is published is Compose's `ports`",
    "FROND_HTTP_PORT": "the image's: what is published is Compose's `ports`",
}
"""What containers are not given, and why."""
NO_SERVICES = {
    "FROND_STACK": "the supervisor's, which Compose takes the place of",
    "FROND_TRAINING_LEASE_S": "the training worker's, which is not in Compose",
    "FROND_TRAINING_OUT": "the training worker's, which is not in Compose",
}
"""What no service reads, and who does."""


@pytest.fixture
def given() -> dict[str, dict[str, Any]]:
    """What Compose gives each service, where nobody has set anything: variables without a default
    are empty."""
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return {name: dict(compose["services"][name]["environment"]) for name in KINDS}


def limits() -> set[str]:
    """The settings of the table in docs/limits.md."""
    rows = [r for r in (ROOT / "docs/limits.md").read_text().splitlines() if r.startswith("| ")]
    cells = [row.split("|")[2] for row in rows]
    return {name for cell in cells for name in re.findall(r"`((?:FROND|WEBHOOK)_[A-Z_]+)`", cell)}


def reads(kind: type[ServiceSettings], name: str) -> bool:
    """Whether a service has a setting of this name."""
    names = set()
    for field, info in kind.model_fields.items():
        alias = info.validation_alias
        names |= {str(c) for c in alias.choices} if alias else {f"FROND_{field.upper()}"}  # type: ignore[union-attr]
    return name in names


def test_every_limit_can_be_set_in_compose(given: dict[str, dict[str, Any]]) -> None:
    """Each setting of the table reaches every service that reads it, with no second default."""
    wanted = limits()
    assert len(wanted) >= 17
    for name in sorted(wanted):
        readers = [service for service, kind in KINDS.items() if reads(kind, name)]
        assert readers, f"nobody reads {name}"
        for service in readers:
            assert given[service].get(name) == f"${{{name}:-}}", (service, name)


def named() -> set[str]:
    """The settings that docs tell to set, by their whole names."""
    text = "".join(path.read_text() for path in DOCS)
    return set(re.findall(r"\b(FROND_[A-Z0-9_]+)\b(?![…*])", text))


def test_what_docs_name_can_be_set_in_compose(given: dict[str, dict[str, Any]]) -> None:
    """Whatever somebody is told to set reaches each service that reads it, unless it is written above
    why not."""
    wanted = named()
    assert len(wanted) >= 70
    assert {*OTHERWISE, *NEVER, *NO_SERVICES} <= wanted, "exceptions that are none any more"
    for name in sorted(wanted):
        readers = [service for service, kind in KINDS.items() if reads(kind, name)]
        assert bool(readers) != (name in NO_SERVICES), f"who reads {name}?"
        for service in readers:
            there = given[service].get(name)
            if name in NEVER:
                assert there is None, (service, name)
            elif name in OTHERWISE:
                assert there, (service, name)
            else:
                assert there == f"${{{name}:-}}", (service, name)


@pytest.mark.parametrize("service", ["ingest", "notifier"])
def test_addresses_follow_the_published_ports(
    service: str, given: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    """Where nobody has set how clients come here, links and presigned addresses name the ports that
    are published; where somebody has, those are taken."""
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    command = [word.replace("$$", "$") for word in compose["services"][service]["command"]]
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\nenv; echo "ran $*"\n')
    python.chmod(0o755)

    def ran(**settings: str) -> set[str]:
        env = {name: settings.get(name, "") for name in given[service]}
        env |= {"FROND_API_PORT": "8123", "FROND_S3_PORT": "9123"}
        env["PATH"] = f"{tmp_path}:{os.environ['PATH']}"
        said = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
        return set(said.stdout.splitlines())

    told = ran()
    assert {"FROND_PUBLIC_URL=http://localhost:8123", f"ran -m frond.{service}"} <= told
    if service == "ingest":
        assert "FROND_S3_PUBLIC_ENDPOINT=http://127.0.0.1:9123" in told
    set_ = {
        "FROND_PUBLIC_URL": "https://f.example",
        "FROND_S3_PUBLIC_ENDPOINT": "https://s.example",
    }
    wanted = {f"{n}={value}" for n, value in set_.items() if n in given[service]}
    assert wanted <= ran(**set_)


def test_no_container_s_log_grows_for_ever() -> None:
    """Of each one as much is kept, those that Frond did not make as well."""
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    assert len(services) >= 11
    for name, service in services.items():
        assert service.get("logging") == {
            "driver": "json-file", "options": {"max-size": "50m", "max-file": "5"},
        }, name  # fmt: skip


def test_every_setting_of_drift_can_be_set_in_compose(given: dict[str, dict[str, Any]]) -> None:
    """Inference is given each of them."""
    names = [f"FROND_{f.upper()}" for f in InferenceSettings.model_fields if f.startswith("drift")]
    assert len(names) >= 8
    for name in names:
        assert given["inference"].get(name) == f"${{{name}:-}}", name


def test_what_readmes_tell_to_set_can_be_set_in_compose(given: dict[str, dict[str, Any]]) -> None:
    """Who sends e-mails and which model jobs have that name none, where it is read."""
    assert given["notifier"].get("FROND_MAIL_FROM") == "${FROND_MAIL_FROM:-}"
    for service in KINDS:
        assert given[service].get("FROND_DEFAULT_MODEL") == "${FROND_DEFAULT_MODEL:-}", service


@pytest.mark.parametrize("service", KINDS)
def test_what_is_not_set_in_compose_is_the_default(
    service: str, given: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An empty number is none: the service starts, with the defaults of its code."""
    for name in list(os.environ):
        if name.startswith(("FROND_", "WEBHOOK_", "API_", "DATABASE_")):
            monkeypatch.delenv(name)
    plain = KINDS[service]()
    empty = [n for n, how in given[service].items() if str(how) == f"${{{n}:-}}"]
    assert limits() & set(empty)
    for name in empty:
        monkeypatch.setenv(name, "")
    assert KINDS[service]() == plain


def test_an_empty_number_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts may be empty, and what is no number is told."""
    monkeypatch.setenv("FROND_DATABASE_PATH", "")
    monkeypatch.setenv("FROND_JWT_TENANT_CLAIM", "")
    monkeypatch.setenv("FROND_DEFAULT_MODEL", "")
    made = IngestSettings()
    assert made.database_path == IngestSettings.model_fields["database_path"].default
    assert made.jwt_tenant_claim == ""
    assert made.default_model == "palm-detector"
    monkeypatch.setenv("FROND_MAX_FILES", "many")
    with pytest.raises(ValueError, match="max_files"):
        IngestSettings()
