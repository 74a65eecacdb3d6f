"""The command as a person meets it: help, errors, exit codes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import typer
from typer.testing import CliRunner

from frond.client.cli import app, show
from frond.client.cli.app import Group
from frond.client.cli.jobs import Standing

runner = CliRunner()


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No installation leads anywhere unless a test says so."""
    for name in list(os.environ):
        if name.startswith("FROND_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def test_every_command_explains_itself() -> None:
    for words in (
        [], ["upload"], ["status"], ["watch"], ["jobs"], ["results"], ["predict"], ["cancel"],
        ["delete"], ["run"], ["demo"], ["models"], ["models", "push"], ["models", "rollback"],
        ["models", "init"], ["models", "check"], ["models", "diff"],
        ["dlq"], ["dlq", "replay"], ["stack"], ["keys"], ["keys", "create"], ["keys", "revoke"],
    ):  # fmt: skip
        done = runner.invoke(app, [*words, "--help"])
        assert done.exit_code == 0, done.output


def test_options_are_of_types_that_older_typers_know() -> None:
    """Of a Literal, which typer learnt after 0.16, the whole command would end at its start."""
    asked = [hint for command in commands(app) for hint in get_type_hints(command).values()]
    assert Standing | None in asked
    assert not [hint for hint in asked if "Literal" in str(hint)]


def commands(of: typer.Typer) -> Iterator[Callable[..., Any]]:
    """What runs them, those of groups as well."""
    yield from (c.callback for c in of.registered_commands if c.callback is not None)
    for group in of.registered_groups:
        if group.typer_instance is not None:
            yield from commands(group.typer_instance)


def test_help_comes_at_once() -> None:
    """Nothing heavy is imported for it: no HTTP, no Kafka, no pixels."""
    code = (
        "import sys, frond.client.cli\n"
        "heavy = {'httpx', 'aiokafka', 'numpy', 'rasterio', 'PIL', 'pydantic', 'yaml', 'minio'}\n"
        "sys.exit(repr(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["upload", "none.tif"], "There is no file none.tif."),
        (["run", "none.yaml"], "There is no file none.yaml."),
        (["predict", "x.tif"], "FROND_INFERENCE_URL is not set"),
        (["dlq", "list"], "FROND_KAFKA_BOOTSTRAP must be set"),
        (["keys", "list", "--store"], "FROND_S3_ENDPOINT"),
    ],
)
def test_errors_are_one_sentence(words: list[str], told: str) -> None:
    """Exit code 2: what was asked for cannot be. Nothing on stdout, no traceback."""
    done = runner.invoke(app, words)
    assert done.exit_code == 2
    assert told in done.stderr
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1


def test_a_service_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Told within seconds."""
    monkeypatch.setenv("FROND_API_URL", "http://127.0.0.1:9")
    started = time.monotonic()
    done = runner.invoke(app, ["jobs"])
    assert done.exit_code == 1
    assert "does not answer at http://127.0.0.1:9" in done.stderr
    assert time.monotonic() - started < 15


def test_a_broker_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sentence says that it is Kafka, and where it was looked for."""
    monkeypatch.setenv("FROND_KAFKA_BOOTSTRAP", "127.0.0.1:9")
    done = runner.invoke(app, ["dlq", "list"])
    assert done.exit_code == 1
    assert "Kafka does not answer at 127.0.0.1:9" in done.stderr


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (FileExistsError(17, "File exists", "out"), "out: File exists."),
        (OSError(28, "No space left on device"), "No space left on device."),
        (TimeoutError(), "TimeoutError."),
    ],
)
def test_what_the_system_refuses_is_one_sentence(error: OSError, told: str) -> None:
    """A folder that is a file, a full disk: exit code 1, no traceback."""
    failing = typer.Typer(cls=Group, pretty_exceptions_enable=False)

    @failing.callback()
    def root() -> None: ...

    @failing.command()
    def work() -> None:
        raise error

    done = runner.invoke(failing, ["work"])
    assert (done.exit_code, done.stdout, done.stderr) == (1, "", f"{told}\n")


def test_stages_without_time_are_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody measured them."""
    show.timings({"timings": {"plan": 0.0, "infer": 2.0, "wait": 0.0}})
    told = capsys.readouterr().out
    assert "plan" not in told
    assert "100 %" in told
    assert "waited in queues" in told
