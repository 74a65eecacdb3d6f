"""The read model's process and the service's: neither outlives the other."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import httpx
import pytest
from ingest_world import fresh

from support.waiting import until

pytestmark = pytest.mark.stack


def keeper_of(door: Any) -> int:
    """The id of the process that keeps this ingest's read model."""
    pid = door.process.pid
    (keeper,) = map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    return keeper


def is_gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return True
    return state == "Z"


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_the_keeper_ends_with_the_service(door: Any, how: signal.Signals) -> None:
    """Killed, or asked to end: nothing writes to the database any more, and it begins again."""
    keeper = keeper_of(door)
    code = door.kill(how)
    assert code == (0 if how is signal.SIGTERM else -how)
    until(lambda: is_gone(keeper))
    door.start()


def test_the_service_ends_with_the_keeper(door: Any, api: httpx.Client) -> None:
    """No half of it lingers: it exits, whoever supervises it starts it again, and it goes on."""
    job = api.post("/jobs", json={"job_id": fresh(), "size": 1}).json()["job_id"]
    os.kill(keeper_of(door), signal.SIGKILL)
    assert door.process.wait(60) == 1
    door.start()
    assert api.put(f"/jobs/{job}/images/a.tif", content=b"x").status_code == 201
    until(lambda: api.get(f"/jobs/{job}").json()["images"]["received"] == 1)


def test_the_keeper_is_not_asked_by_others_to_end(door: Any, api: httpx.Client) -> None:
    """A terminal or a supervisor signals the whole group: it goes on until the service stops it."""
    keeper = keeper_of(door)
    for sig in (signal.SIGTERM, signal.SIGINT):
        os.kill(keeper, sig)
    job = api.post("/jobs", json={"job_id": fresh()}).json()["job_id"]
    assert api.put(f"/jobs/{job}/images/a.tif", content=b"x").status_code == 201
    until(lambda: api.get(f"/jobs/{job}").json()["images"]["received"] == 1)
    assert keeper_of(door) == keeper
    told = api.get("/metrics").text
    applied = next(x for x in told.splitlines() if x.startswith("frond_ingest_applied_total"))
    assert float(applied.split()[1]) >= 1
