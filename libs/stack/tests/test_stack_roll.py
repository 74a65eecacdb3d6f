"""One service after the other, each with what the roll brings; without processes."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from frond.stack import installation
from frond.stack.endpoints import Endpoints
from frond.stack.installation import Installation
from frond.stack.roll import Roll
from frond.stack.supervised import leave_s
from frond.stack.supervisor import Supervisor


@dataclass
class Process:
    """A process that is ready, or has ended, at once."""

    env: Mapping[str, str]
    ready: bool = True
    running: bool = True
    returncode: int | None = None
    leave_s: float = 0.05
    deaf: bool = False

    def terminate(self) -> None:
        if not self.deaf:
            self.running, self.returncode = False, 0

    def kill(self) -> None:
        self.running, self.returncode = False, -9


@dataclass
class One:
    """As much of a supervised service as a roll looks at."""

    name: str
    log: Path
    env: Mapping[str, str] = field(default_factory=lambda: {"FROND_A": "old"})
    child: Process | None = None
    others: list[Process] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.child = Process(self.env)

    def begin(self, env: Mapping[str, str]) -> Process:
        bad = env["FROND_A"] == "bad"
        return Process(env, ready=not bad, running=not bad)


@pytest.mark.parametrize(("second", "state"), [("new", "done"), ("bad", "failed")])
def test_a_service_keeps_the_settings_that_it_runs_with(
    second: str, state: str, tmp_path: Path
) -> None:
    """What a service is started with when it dies later is what its process was ready with: never
    settings that it could not start with."""
    services: list[Any] = [One(name, tmp_path / "log") for name in ("ingest", "tiler")]
    (tmp_path / "log").write_text("")
    lines: list[str] = []
    envs = {"ingest": {"FROND_A": "new"}, "tiler": {"FROND_A": second}}
    roll = Roll(services, envs, lines.append)
    while roll.step():
        pass
    assert roll.state == state, lines
    assert [one.env["FROND_A"] for one in services] == ["new", "new" if state == "done" else "old"]
    assert [one.child.env["FROND_A"] for one in services] == [
        one.env["FROND_A"] for one in services
    ]
    assert all(one.child.running and not one.others for one in services)


def test_a_roll_that_the_disk_has_no_room_for_ends_itself_alone(tmp_path: Path) -> None:
    """The supervisor says why, and goes on with what it has."""

    class NoRoom(One):
        def begin(self, env: Mapping[str, str]) -> Process:
            raise OSError(28, "No space left on device")

    one: Any = NoRoom("ingest", tmp_path / "log")
    lines: list[str] = []
    supervisor = Supervisor(tmp_path, tmp_path / "models", say=lines.append)
    supervisor._roll = Roll([one], {"ingest": {}}, supervisor.say)
    supervisor._tend_roll()
    assert supervisor._roll.state == "failed"
    assert one.child.running
    assert "No space left on device" in lines[-1]


def test_what_a_roll_brought_is_kept_once_the_disk_has_room_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every service has the new key by then: the roll has not failed, and whatever starts next, or reads
    the files, must have that key, too."""
    write, full = installation.write_private, [True]

    def write_private(path: Path, text: str) -> None:
        if full[0]:
            raise OSError(28, "No space left on device")
        write(path, text)

    monkeypatch.setattr(installation, "write_private", write_private)
    one: Any = One("ingest", tmp_path / "log")
    one.module = "ingest"
    lines: list[str] = []
    supervisor = Supervisor(tmp_path, tmp_path / "models", say=lines.append)
    supervisor._installation = Installation(
        "user", "secret", "first", "whsec_", ports={"ingest": 1}
    )
    supervisor._stack = cast(Any, SimpleNamespace(endpoints=Endpoints("h:1", "http://h:2", "", "")))
    supervisor._supervised = [one]
    (tmp_path / "roll").write_text('{"FROND_A": "new", "FROND_API_KEY": "second"}')
    while supervisor._roll is None or supervisor._roll.state == "running":
        supervisor._tend_roll()
    supervisor._tend_roll()
    assert supervisor._roll.state == "unkept"
    assert one.env["FROND_API_KEY"] == "second"
    assert len([line for line in lines if "No space left on device" in line]) == 1
    full[0] = False
    supervisor._tend_roll()
    assert supervisor._roll.state == "done"
    assert Installation.load_or_make(tmp_path).api_key == "second"
    assert "FROND_API_KEY=second" in (tmp_path / "env").read_text()


def test_an_old_process_has_as_long_as_its_own_settings_give_it(tmp_path: Path) -> None:
    """It is killed then, and not before."""
    one: Any = One("ingest", tmp_path / "log")
    old = one.child = Process({}, leave_s=0.3, deaf=True)
    lines: list[str] = []
    roll = Roll([one], {"ingest": {"FROND_A": "new"}}, lines.append)
    began = time.monotonic()
    while roll.step():
        pass
    assert time.monotonic() - began >= 0.3
    assert old.returncode == -9 and roll.state == "done"


@pytest.mark.parametrize(("told", "s"), [(None, 60), ("", 60), ("120", 155), ("long", 60)])
def test_nobody_is_killed_in_the_middle_of_a_drain(told: str | None, s: float) -> None:
    """FROND_DRAIN_S and more, of the process's own environment; what a service would refuse counts for
    nothing."""
    assert leave_s({} if told is None else {"FROND_DRAIN_S": told}) == s
