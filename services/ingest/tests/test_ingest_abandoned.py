"""What must hold when the process dies that takes a form."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from frond.contracts import keys
from frond.ingest import places
from frond.ingest.intake import File
from frond.runtime.crashpoints import ENVIRONMENT, FIRED
from frond.stack import Endpoints

pytestmark = pytest.mark.stack
FILES = [("f", (f"{n}.tif", b"II*\x00" + bytes([n]) * 100)) for n in range(2)]


@pytest.fixture
def armed(stack: Endpoints, start_door: Any, tmp_path: Path) -> Iterator[Any]:
    """An ingest that forgets forms after six seconds, longer than a form takes, and dies where it is told to."""
    points = tmp_path / "points"
    points.mkdir()
    more = {ENVIRONMENT: str(points), "FROND_ABANDONED_SECONDS": "6"}
    with start_door(stack, tmp_path, **more) as door:
        yield door, points


async def listed(door: Any, prefix: str) -> list[str]:
    store = door.store()
    try:
        return [found.key async for found in store.list(prefix)]
    finally:
        store.close()


async def gone(door: Any, prefix: str, *, but: int = 0, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while len(left := await listed(door, prefix)) > but:
        assert time.monotonic() < deadline, left
        await asyncio.sleep(0.1)


def die(door: Any, points: Path, point: str, job_id: str, *, again: bool = True) -> None:
    (points / f"{point}.1").touch()
    with door.client() as api, pytest.raises(httpx.TransportError):
        api.post("/upload", data={"job_id": job_id}, files=FILES)
    assert (points / FIRED / f"{point}.1").exists()
    door.process.wait(30)
    if again:
        door.start()


async def test_a_form_that_no_job_knows_leaves_nothing(armed: Any) -> None:
    """Its sender never comes back: its objects are removed, and so is the note of them."""
    door, points = armed
    die(door, points, "ingest.form-stored", f"form-{secrets.token_hex(4)}")
    await gone(door, keys.UPLOADS)
    await gone(door, keys.RECEIVING)


async def test_a_form_that_still_comes_in_is_left_alone(armed: Any) -> None:
    """However long it takes: its first file is there when its last one is."""
    door, _ = armed
    head = "--x\r\nContent-Disposition: form-data; name=f; filename={}.tif\r\n\r\n{}"

    def body() -> Iterator[bytes]:
        yield (head.format(0, "II*\r\n") + head.format(1, "II*")).encode()
        # twice as long as a form is left alone that nothing comes of
        for _ in range(24):
            time.sleep(0.5)
            yield b"x"
        yield b"\r\n--x--\r\n"

    with door.client() as api:
        form = {"Content-Type": "multipart/form-data; boundary=x"}
        taken = api.post("/upload", content=body(), headers=form)
    assert taken.status_code == 202, taken.text
    assert len(await listed(door, keys.UPLOADS)) == 2
    assert await listed(door, keys.RECEIVING) == []


async def test_a_form_that_became_a_job_stays(armed: Any) -> None:
    """Its manifest is stored: the sweeper goes on with it, and its objects are its job's."""
    door, points = armed
    job_id = f"form-{secrets.token_hex(4)}"
    die(door, points, "ingest.manifest-stored", job_id)
    await gone(door, keys.RECEIVING)
    assert len(await listed(door, keys.UPLOADS)) == len(FILES)
    assert await listed(door, places.manifest(job_id))


async def test_names_that_were_only_claimed_are_recorded_when_they_come_again(armed: Any) -> None:
    """Killed between claim and record, the same form sent again is answered, and is all there."""
    door, points = armed
    job_id = f"open-{secrets.token_hex(4)}"
    with door.client() as api:
        assert api.post("/jobs", json={"job_id": job_id}).status_code == 201
    die(door, points, "ingest.name-claimed", job_id)
    with door.client() as api:
        assert api.post("/upload", data={"job_id": job_id}, files=FILES).status_code == 202
        sealed = api.post(f"/jobs/{job_id}/seal", json={})
        assert sealed.json()["images"]["expected"] == len(FILES)
    await gone(door, keys.RECEIVING)
    assert len(await listed(door, keys.UPLOADS)) == len(FILES)


async def first_is_claimed(door: Any, points: Path) -> str:
    """An open job, and a form for it whose process died between the first and the second claim."""
    job_id = f"open-{secrets.token_hex(4)}"
    with door.client() as api:
        assert api.post("/jobs", json={"job_id": job_id}).status_code == 201
    die(door, points, "ingest.form-named", job_id, again=False)
    store = door.store()
    try:
        (first, _) = sorted(await listed(door, keys.UPLOADS))
        name, data = FILES[0][1]
        mark = f"sha256:{hashlib.sha256(data).hexdigest()}"
        claim = File(name=name, image=store.uri(first), mark=mark, size=len(data), by="dead")
        await store.put(places.claim(job_id, name), claim.model_dump_json().encode())
    finally:
        store.close()
    door.start()
    # the other one is nobody's
    await gone(door, keys.UPLOADS, but=1)
    assert await listed(door, keys.UPLOADS) == [first]
    return job_id


async def test_half_claimed_forms_leave_what_comes_again(armed: Any) -> None:
    """What no claim has is removed; what one has waits, for its sender may come back."""
    door, points = armed
    job_id = await first_is_claimed(door, points)
    assert len(await listed(door, keys.RECEIVING)) == 1
    with door.client() as api:
        assert api.post("/upload", data={"job_id": job_id}, files=FILES).status_code == 202
        sealed = api.post(f"/jobs/{job_id}/seal", json={})
        assert sealed.json()["images"]["expected"] == len(FILES)
    await gone(door, keys.RECEIVING)
    assert len(await listed(door, keys.UPLOADS)) == len(FILES)


async def test_half_claimed_forms_leave_nothing_with_a_job_that_is_over(armed: Any) -> None:
    """Their sender never comes back, and the job takes no more images."""
    door, points = armed
    job_id = await first_is_claimed(door, points)
    with door.client() as api:
        assert api.post(f"/jobs/{job_id}/cancel").status_code == 200
    await gone(door, keys.UPLOADS)
    await gone(door, keys.RECEIVING)
