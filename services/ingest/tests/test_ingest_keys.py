"""Keys made, used and revoked by REST; a door that has none."""

# ruff: noqa: ASYNC212 (the loop has nothing else to do while a request is answered)
from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import pytest
from ingest_world import new_job, refused

from frond.stack import Endpoints
from frond.store import ObjectStore
from support.waiting import until

pytestmark = pytest.mark.stack


async def test_a_revoked_key_is_let_go_within_seconds(
    door: Any, api: httpx.Client, store: ObjectStore
) -> None:
    """Made, used and revoked by REST: requests are refused within seconds, and a stream ends.
    How many seconds a record is remembered is a test of ``frond.auth``, by a clock of its own."""
    made = api.post("/keys", json={"name": "laptop", "tenant": "acme"}).json()
    assert made["key"].startswith(f"frond_{made['id']}_") and made["state"] == "active"
    listed = api.get("/keys").json()["keys"]
    assert made["id"] in {k["id"] for k in listed}
    assert not any("key" in k or "sha256" in k for k in listed)
    headers = {"Authorization": f"Bearer {made['key']}"}
    with door.client(headers=headers) as client:
        job_id = new_job(client)
        with client.stream("GET", f"/jobs/{job_id}/events") as stream:
            lines = stream.iter_lines()
            next(lines)
            at = time.monotonic()
            assert api.delete(f"/keys/{made['id']}").json()["state"] == "revoked"
            until(lambda: client.get("/jobs").status_code == 401, 60)
            for _ in lines:
                assert time.monotonic() - at < 120
    assert api.delete("/keys/0123456789abcdef").status_code == 404
    assert api.get(f"/jobs/{job_id}").status_code == 200


def test_an_upload_ends_with_its_key(api: httpx.Client, door: Any) -> None:
    """A body that is still being sent when its key is revoked: 401, and no image."""
    made = api.post("/keys", json={"name": "laptop", "tenant": "acme"}).json()
    with door.client(headers={"Authorization": f"Bearer {made['key']}"}) as client:
        job_id = new_job(client)

        def body() -> Iterator[bytes]:
            yield b"x" * 1000
            assert api.delete(f"/keys/{made['id']}").status_code == 200
            end = time.monotonic() + 30
            while time.monotonic() < end:
                yield b"x"
                time.sleep(0.2)

        try:
            answer = client.put(f"/jobs/{job_id}/images/a.tif", content=body())
        except httpx.TransportError:
            pass  # answered and closed while the body was still being sent
        else:
            assert answer.status_code == 401, answer.text
    assert api.post(f"/jobs/{job_id}/seal", json={}).json()["images"]["expected"] == 0


def test_keys_that_cannot_be_made(api: httpx.Client) -> None:
    """422 with a sentence, and no key."""
    before = len(api.get("/keys").json()["keys"])
    for body in (
        {}, {"name": ""}, {"name": "x", "scopes": []}, {"name": "x", "scopes": ["root"]},
        {"name": "x", "tenant": "a/b"}, {"name": "x", "expires": "2020-01-01T00:00:00Z"},
        {"name": "x", "surprise": 1},
    ):  # fmt: skip
        answer = api.post("/keys", json=body)
        assert answer.status_code in (400, 422) and answer.json()["detail"], body
    assert len(api.get("/keys").json()["keys"]) == before


def test_a_door_without_any_key_is_shut(
    stack: Endpoints, start_door: Callable[..., AbstractContextManager[Any]], tmp_path: Path
) -> None:
    """Nothing configured: 401 with how to make the first key. Off: open, since it is loopback."""
    with start_door(stack, tmp_path, FROND_API_KEY="") as door:
        answer = httpx.get(f"{door.url}/jobs")
        assert answer.status_code == 401
        assert "frond keys create --store" in answer.json()["detail"]
        door.kill()
        door.env["FROND_AUTH"] = "off"
        door.start()
        assert httpx.get(f"{door.url}/jobs").status_code == 200
        for foreign in ({"Host": "evil.example"}, {"Origin": "http://evil.example"}):
            made = httpx.post(f"{door.url}/jobs", json={}, headers=foreign)
            assert refused(made, 403, "forbidden")
            assert httpx.get(f"{door.url}/health", headers=foreign).status_code == 200
        assert "FROND_AUTH is off" in door.log.read_text()
        door.kill()
        with pytest.raises(AssertionError, match="loopback"):
            door.env["API_HOST"] = "0.0.0.0"
            door.start()
