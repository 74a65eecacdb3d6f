"""Keys, ports and environments of an installation."""

from __future__ import annotations

import base64
import shlex
import socket
import stat
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frond.stack import Endpoints
from frond.stack.develop import line_of
from frond.stack.errors import StackError
from frond.stack.installation import (
    SERVICES,
    Installation,
    read_env_file,
    settings_of,
    write_env_file,
)

ENDPOINTS = Endpoints("127.0.0.1:9092", "http://127.0.0.1:9000", "key", "secret")


def test_a_shell_can_source_the_env_file(tmp_path: Path) -> None:
    """Every variable reaches a POSIX shell as it is, and nobody else can read the file."""
    path = tmp_path / "env"
    env = {"FROND_A": "plain", "FROND_B": "a b'c\"d$HOME`x`;#", "FROND_C": ""}
    write_env_file(path, env)
    said = subprocess.run(
        ["sh", "-c", f'. {shlex.quote(str(path))}; printf "%s\\n" "$FROND_A" "$FROND_B" "$FROND_C"'],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert said.stdout.splitlines() == list(env.values())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_env_file_puts_the_commands_on_the_path(tmp_path: Path) -> None:
    """What lies in the folder is found by its name, also when the file is sourced twice; PATH is no
    variable of the installation."""
    commands = tmp_path / "it's a $folder" / "bin"
    commands.mkdir(parents=True)
    (commands / "frond-here").write_text("#!/bin/sh\necho found\n")
    (commands / "frond-here").chmod(0o755)
    path = tmp_path / "env"
    write_env_file(path, {"FROND_A": "a"}, commands)
    source = f". {shlex.quote(str(path))}"
    said = subprocess.run(
        ["sh", "-c", f"{source}; {source}; frond-here; ls {shlex.quote(str(commands))}"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert said.stdout.split() == ["found", "frond-here"]
    assert read_env_file(path) == {"FROND_A": "a"}


@given(st.dictionaries(st.from_regex(r"FROND_[A-Z]{1,8}", fullmatch=True), st.text("ab '\"$\\=;#")))
def test_the_env_file_is_read_back_as_it_was_written(env: dict[str, str]) -> None:
    """Writing and reading are inverse, whatever stands in a value."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "env"
        write_env_file(path, env)
        assert read_env_file(path) == env


def test_an_installation_keeps_its_keys(tmp_path: Path) -> None:
    """Keys are random for each installation, and the same at its next start."""
    first = Installation.load_or_make(tmp_path / "a")
    again = Installation.load_or_make(tmp_path / "a")
    other = Installation.load_or_make(tmp_path / "b")
    assert again == first
    assert other.secret_key != first.secret_key
    assert other.api_key != first.api_key
    secret = first.webhook_secret.removeprefix("whsec_")
    assert len(base64.b64decode(secret, validate=True)) == 24
    assert stat.S_IMODE((tmp_path / "a" / "installation.json").stat().st_mode) == 0o600


def test_keys_that_are_given_replace_those_that_are_kept() -> None:
    """Set and not empty: they win. What a shell only has from an env file, it may have from before
    a key was replaced: that is nobody's wish. Every other setting is."""
    made = Installation("a", "s", "frond_old", "whsec_old", ports={"ingest": 1})
    given = made.with_keys({"FROND_API_KEY": "frond_new", "FROND_WEBHOOK_SECRET": ""})
    assert (given.api_key, given.webhook_secret) == ("frond_new", "whsec_old")
    sourced = made.public_env(ENDPOINTS)
    around = {**sourced, "FROND_MAX_FILES": "5", "WEBHOOK_MAX_RETRIES": "2", "HOME": "/"}
    settings = settings_of(around)
    assert {"FROND_MAX_FILES", "WEBHOOK_MAX_RETRIES"} <= settings.keys()
    assert not {"FROND_API_KEY", "FROND_WEBHOOK_SECRET", "FROND_SOURCED", "HOME"} & settings.keys()
    set_since = {**around, "FROND_WEBHOOK_SECRET": "whsec_old whsec_new"}
    assert made.with_keys(settings_of(set_since)).webhook_secret == "whsec_old whsec_new"
    assert settings_of({"FROND_API_KEY": "frond_old"}) == {"FROND_API_KEY": "frond_old"}


def test_a_key_of_somebody_is_not_made_the_installations_own() -> None:
    """The command line's key has the same name: whoever has it in the shell would become admin."""
    made = Installation("a", "s", "frond_old", "whsec_old", ports={"ingest": 1})
    key = f"frond_{'0' * 16}_{'x' * 43}"
    with pytest.raises(StackError, match="unset FROND_API_KEY"):
        made.with_keys({"FROND_API_KEY": key})


def test_a_service_is_given_what_a_roll_hands_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over what the supervisor itself was started with; never its keys and ports."""
    monkeypatch.setenv("FROND_MAX_FILES", "5")
    monkeypatch.setenv("FROND_MAX_BANDS", "6")
    made = Installation.load_or_make(tmp_path)
    made.take_ports(("kafka", "s3", "ingest"))
    given = {"FROND_MAX_FILES": "7", "FROND_PUBLIC_URL": "http://f", "FROND_S3_SECRET_KEY": "x"}
    env = made.service_env("ingest", ENDPOINTS, tmp_path, given)
    assert (env["FROND_MAX_FILES"], env["FROND_MAX_BANDS"]) == ("7", "6")
    assert (env["FROND_PUBLIC_URL"], env["FROND_S3_SECRET_KEY"]) == ("http://f", "secret")


def test_ports_stay_unless_somebody_took_them(tmp_path: Path) -> None:
    """The next start takes the same ports, and another where one is in use by now."""
    made = Installation.load_or_make(tmp_path)
    made.take_ports(("kafka", "s3", "ingest"))
    before = dict(made.ports)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", before["s3"]))
        taken.listen()
        made.take_ports(("kafka", "s3", "ingest"))
        assert made.ports["kafka"] == before["kafka"]
        assert made.ports["ingest"] == before["ingest"]
        assert made.ports["s3"] != before["s3"]


def test_each_service_gets_its_own_port(tmp_path: Path) -> None:
    """ingest listens where clients are told to look; no other service hears of that port."""
    made = Installation.load_or_make(tmp_path)
    made.take_ports(("kafka", "s3", "ingest", "tiler"))
    ingest = made.service_env("ingest", ENDPOINTS, tmp_path)
    tiler = made.service_env("tiler", ENDPOINTS, tmp_path)
    assert made.public_env(ENDPOINTS)["FROND_API_URL"].endswith(f":{ingest['API_PORT']}")
    assert "API_PORT" not in tiler
    assert tiler["FROND_HTTP_PORT"] == str(made.ports["tiler"])
    assert tiler["FROND_S3_SECRET_KEY"] == "secret"


def test_webhooks_to_this_machine_are_the_operators_wish(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing that is not public is open to webhooks unless FROND_EGRESS_ALLOW says so, for every
    service: whoever may submit a job could reach what listens on this machine otherwise."""
    made = Installation.load_or_make(tmp_path)
    made.take_ports(("kafka", "s3", *SERVICES))
    monkeypatch.delenv("FROND_EGRESS_ALLOW", raising=False)
    for name in SERVICES:
        assert not made.service_env(name, ENDPOINTS, tmp_path).get("FROND_EGRESS_ALLOW")
    monkeypatch.setenv("FROND_EGRESS_ALLOW", "10.2.0.0/16")
    for name in SERVICES:
        env = made.service_env(name, ENDPOINTS, tmp_path)
        assert env["FROND_EGRESS_ALLOW"] == "10.2.0.0/16"


def test_an_event_is_told_on_one_line() -> None:
    """What a developer sees of an event: where it lies, its type, its fields, never two lines."""

    class Message:
        partition, offset, timestamp = 3, 15, 1_700_000_000_000
        key, headers = b"k" * 40, [("ce_type", b"frond.chunk.planned.v1")]
        value = b'{"job_id": "survey-7", "windows": {"done": 1, "failed": 0}, "note": null}'

    line = line_of("tiled", Message)
    assert "3/15" in line
    assert "chunk.planned " in line
    assert line.endswith("job_id=survey-7 windows[2]")
    Message.value = b"\xff\n\x00"
    assert "\n" not in line_of("tiled", Message)
