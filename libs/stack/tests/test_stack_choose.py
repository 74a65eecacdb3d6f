"""Where topics and objects lie is chosen once: another store would be an empty one."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from docker.errors import DockerException, NotFound
from typer.testing import CliRunner

from frond.stack import StackError, choose_stack, docker
from frond.stack.choose import keep_kind, kept_kind, volumes_of
from frond.stack.cli import app

AWAY = "no Docker engine answers"


class Engine:
    """What is asked of Docker, and what it answers."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.why_not = ""
        self.volumes: list[str] = []
        patch.delenv("FROND_STACK", raising=False)
        patch.setattr(docker, "why_no_docker", lambda: self.why_not)
        patch.setattr(docker, "find_volumes", self.find)

    def find(self, begin: str) -> list[str]:
        if self.why_not:
            raise StackError(self.why_not)
        return [name for name in self.volumes if name.startswith(begin)]


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    return Engine(monkeypatch)


def chosen(data: Path) -> str:
    """The kind of an ``up``, noted as ``up`` notes it."""
    stack = choose_stack(data, keys=("a", "b"), lasting=True, say=lambda _: None)
    keep_kind(data, stack)
    return stack.kind


def test_what_began_in_docker_stays_there(tmp_path: Path, engine: Engine) -> None:
    """With the engine away it does not begin anew elsewhere; the sentence says what to do."""
    assert chosen(tmp_path) == "docker"
    engine.why_not = AWAY
    with pytest.raises(StackError, match="start Docker"):
        chosen(tmp_path)
    engine.why_not = ""
    assert chosen(tmp_path) == "docker"


def test_what_began_without_docker_stays_so(tmp_path: Path, engine: Engine) -> None:
    """An engine that answers by now changes nothing."""
    engine.why_not = AWAY
    assert chosen(tmp_path) == "native"
    engine.why_not = ""
    assert chosen(tmp_path) == "native"


@pytest.mark.parametrize(("why_not", "wish"), [("", "native"), (AWAY, "docker")])
def test_a_wish_does_not_move_the_data(
    why_not: str, wish: str, tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It decides a first start alone; in a new folder it does."""
    engine.why_not = why_not
    kept = chosen(tmp_path / "a")
    engine.why_not = ""
    monkeypatch.setenv("FROND_STACK", wish)
    with pytest.raises(StackError, match=f"say {kept}.*FROND_STATE_DIR"):
        chosen(tmp_path / "a")
    assert chosen(tmp_path / "b") == wish
    monkeypatch.setenv("FROND_STACK", kept)
    assert chosen(tmp_path / "a") == kept


def test_a_start_that_failed_keeps_nothing(tmp_path: Path, engine: Engine) -> None:
    """What was chosen and never started has no data: the other kind is free to be taken."""
    choose_stack(tmp_path, lasting=True)
    engine.why_not = AWAY
    assert chosen(tmp_path) == "native"


def test_stacks_of_tests_keep_nothing(tmp_path: Path, engine: Engine) -> None:
    """They have no data that should outlive them."""
    keep_kind(tmp_path, choose_stack(tmp_path))
    engine.why_not = AWAY
    assert choose_stack(tmp_path, say=lambda _: None).kind == "native"


def test_what_an_older_version_left_tells_its_kind(
    tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It noted none: a bucket, or the read model without one. Where there are two stores, somebody must
    say once which it shall be."""
    in_docker, native = tmp_path / "a", tmp_path / "b"
    in_docker.mkdir()
    (in_docker / "frond.sqlite").touch()
    (native / "minio" / ".minio.sys").mkdir(parents=True)
    assert kept_kind(native) == "", "a store that began and was never used"
    (native / "minio" / "frond").mkdir()
    assert (kept_kind(in_docker), kept_kind(native)) == ("docker", "native")
    engine.volumes = [f"{volumes_of(native)}-minio"]
    with pytest.raises(StackError, match="two stores"):
        chosen(native)
    monkeypatch.setenv("FROND_STACK", "docker")
    assert chosen(native) == "docker"
    monkeypatch.delenv("FROND_STACK")
    assert chosen(native) == "docker", "it is noted from now on"
    engine.volumes = []
    engine.why_not = AWAY
    with pytest.raises(StackError, match="start Docker"):
        chosen(in_docker)


def test_volumes_are_named_and_removed(
    tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of this installation alone. What cannot be removed now is told with the command for later;
    where nothing was ever in Docker, nothing is said."""
    monkeypatch.setenv("FROND_STATE_DIR", str(tmp_path))
    begin = volumes_of(tmp_path / "data")
    engine.volumes = [f"{begin}-apache", f"{begin}-minio", "frond-0-minio"]
    monkeypatch.setattr(docker, "remove_volumes", engine.find)
    said = CliRunner().invoke(app, ["volumes"])
    assert said.output.split() == engine.volumes[:2]
    said = CliRunner().invoke(app, ["volumes", "--remove"])
    assert said.output.count("Removed") == 2
    engine.why_not = AWAY
    said = CliRunner().invoke(app, ["volumes", "--remove"])
    assert (said.exit_code, said.output) == (0, "")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "kind").write_text("docker\n")
    said = CliRunner().invoke(app, ["volumes", "--remove"])
    assert said.exit_code == 1
    assert f"docker volume rm {begin}-apache {begin}-minio" in said.output


class Container:
    """A container whose engine says ``error`` when it is asked."""

    def __init__(self, error: Exception | None = None, status: str = "running") -> None:
        self.error, self.status = error, status

    def get_wrapped_container(self) -> Any:
        return SimpleNamespace(reload=self.reload, start=self.reload, status=self.status)

    def reload(self) -> None:
        if self.error:
            raise self.error


@pytest.mark.parametrize("error", [ConnectionError("refused"), DockerException("starting")])
def test_an_engine_that_restarts_is_no_end(error: Exception) -> None:
    """While it does not answer nobody knows of its containers; those that it stopped are told then,
    and what it refuses is told in a sentence, which the supervisor goes on after."""
    stack = docker.DockerStack(kafka_port=1, s3_port=2)
    stack._kafka, stack._minio = Container(error), Container()
    assert stack.trouble() == []
    with pytest.raises(StackError, match=str(error)):
        stack.start_kafka()
    stack._kafka = Container(status="exited")
    assert stack.trouble() == ["kafka"]


def test_a_container_that_was_removed_is_made_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over the same volume."""
    stack = docker.DockerStack(kafka_port=1, s3_port=2)
    stack._kafka, stack._minio = Container(), Container(NotFound("no such container"))
    assert stack.trouble() == ["minio"]
    fresh = SimpleNamespace(
        start=lambda: None, get_wrapped_container=Container().get_wrapped_container
    )
    monkeypatch.setattr(stack, "_minio_container", lambda: fresh)
    monkeypatch.setattr(stack, "_minio_answers", lambda: True)
    stack.start_minio()
    assert stack._minio is fresh
    assert stack.trouble() == []
