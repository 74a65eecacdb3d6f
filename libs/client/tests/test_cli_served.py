"""models init and check of a model that a server runs, as a person meets them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from frond.client.cli import app
from frond.models import load_manifest
from frond.models.testing import blob_model
from frond.models.testing_server import ModelServer, model_server

runner = CliRunner()


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No installation leads anywhere: these commands need none."""
    for name in list(os.environ):
        if name.startswith("FROND_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ModelServer]:
    with model_server(blob_model(tmp_path / "local", size=64, margin=8)) as made:
        yield made


def run(*words: object) -> Result:
    return runner.invoke(app, ["models", *map(str, words)])


def test_init_and_check_of_a_servers_model(server: ModelServer, tmp_path: Path) -> None:
    """From its address to a folder that fits, on one's own machine without any setting."""
    done = run("init", f"{server.url}/v2/models/blob", "--out", "mine")
    assert done.exit_code == 0, done.output
    assert "decoder centerpoint, 1 class, windows of 64×64" in done.stdout
    told = load_manifest(tmp_path / "mine").server
    assert told is not None
    assert (told.url, told.model, told.version) == (server.url, "blob", "2")
    checked = run("check", "mine")
    assert f"The server at {server.url} runs it" in checked.stdout
    assert "does not fit" not in checked.stdout, checked.stdout
    assert checked.exit_code == 0


def test_addresses_that_lead_nowhere_are_told_in_words(server: ModelServer) -> None:
    """No model's address, a model that the server has not, nobody who answers: no stack trace."""
    for address, code, words in (
        (f"{server.url}/models/blob", 2, "is no address of a model"),
        ("file:///v2/models/blob", 2, "is no address of a model"),
        (f"{server.url}/v2/models/other", 2, "no such model"),
        ("http://nowhere.invalid:1/v2/models/blob", 1, "does not answer well"),
    ):
        done = run("init", address)
        assert done.exit_code == code, (address, done.output)
        assert words in " ".join(done.stderr.split())
        assert "Traceback" not in done.output
