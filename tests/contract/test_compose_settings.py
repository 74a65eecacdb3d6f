"""Containers are given every limit that an operator may set, and no default of their own."""

from __future__ import annotations

import os
import re
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
