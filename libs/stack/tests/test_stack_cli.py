"""What ``up``, ``status`` and ``run`` tell: what is so, and nothing more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from frond.stack import control, minio_server
from frond.stack.cli import app

runner = CliRunner()


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """What the supervisor last wrote; :func:`services` fills it."""
    state: dict[str, Any] = {"phase": "ready", "stack": "native", "servers": {}, "services": []}
    monkeypatch.setenv("FROND_STATE_DIR", str(tmp_path))
    monkeypatch.setattr(control, "read_state", lambda _: state)
    monkeypatch.setattr(control, "up", lambda *_, **__: True)
    monkeypatch.setattr(control, "environment", lambda _: {"FROND_API_URL": "http://here:1"})
    return state


def services(*names: str) -> list[dict[str, Any]]:
    return [
        {"name": name, "pid": 7, "port": 9000 + n, "restarts": 0} for n, name in enumerate(names)
    ]


@pytest.mark.parametrize(
    ("phase", "deaf", "title", "code"),
    [
        ("ready", "", "ready (native)", 0),
        ("ready", "9001", "not all are ready (native)", 1),
        ("starting", "9001", "starting (native)", 1),
    ],
)
def test_ready_is_said_of_what_is(
    found: dict[str, Any], monkeypatch: pytest.MonkeyPatch,
    phase: str, deaf: str, title: str, code: int,
) -> None:  # fmt: skip
    """The title is asked for as the rows are: a service may have ended since the start."""
    monkeypatch.setattr(minio_server, "http_ok", lambda url: not deaf or deaf not in url)
    found |= {"phase": phase, "services": services("ingest", "tiler")}
    done = runner.invoke(app, ["status"])
    assert (done.exit_code, done.stdout.splitlines()[0].strip()) == (code, title)


@pytest.mark.parametrize(("names", "is_up"), [(("ingest", "tiler"), True), (("tiler",), False), ((), False)])  # fmt: skip
def test_no_door_is_told_where_none_is(
    found: dict[str, Any], names: tuple[str, ...], is_up: bool
) -> None:
    """The address of ingest, where it runs; where the variables are, ever."""
    found["services"] = services(*names)
    told = runner.invoke(app, ["up"]).stdout
    assert ("Frond is up: http://here:1" in told) == is_up == ("frond upload" in told)
    assert "source " in told and "make down" in told


def test_a_service_that_is_none(found: dict[str, Any]) -> None:
    """`make dev` names those that there are."""
    done = runner.invoke(app, ["run", "nope"])
    assert done.exit_code == 1
    assert done.stderr.startswith("There is no service nope; there are ingest, tiler, ")
