"""``frond webhooks secret``: what an operator hands to a tenant."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from frond.client.cli import app
from frond.contracts.signing import tenant_secrets

runner = CliRunner()
MASTER = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OLD = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FROND_WEBHOOK_SECRET", f"{OLD} {MASTER}")


def test_a_tenants_and_the_installations() -> None:
    """One a line, as many as the installation has, never the installation's for a tenant."""
    told = runner.invoke(app, ["webhooks", "secret", "--tenant", "acme"])
    assert told.exit_code == 0
    assert told.stdout.split() == tenant_secrets(f"{OLD} {MASTER}", "acme").split()
    assert MASTER not in told.stdout
    assert runner.invoke(app, ["webhooks", "secret"]).stdout.split() == [OLD, MASTER]


@pytest.mark.parametrize(
    ("secret", "words", "why"),
    [
        ("", ["--tenant", "acme"], "FROND_WEBHOOK_SECRET must be set"),
        ("whsec_a", ["--tenant", "acme"], "FROND_WEBHOOK_SECRET cannot be used"),
        (MASTER, ["--tenant", " "], "A tenant has a name"),
    ],
)
def test_what_cannot_be_is_told(
    secret: str, words: list[str], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FROND_WEBHOOK_SECRET", secret)
    told = runner.invoke(app, ["webhooks", "secret", *words])
    assert told.exit_code == 2
    assert told.stdout == ""
    assert why in " ".join(told.stderr.split())
