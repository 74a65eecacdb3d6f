"""Shadows at the door: set for a model, asked for by a job, told of."""

from __future__ import annotations

import asyncio
import secrets
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from frond.contracts.reasons import Reason
from frond.ingest import desk
from frond.models.testing import blob_model
from frond.store import ObjectStore, StoreSettings

pytestmark = pytest.mark.stack


@pytest.fixture
def two(api: httpx.Client, tmp_path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """A model's production, and the version that is to run beside it."""
    name = f"roofs-{secrets.token_hex(4)}"
    return push(api, tmp_path, name, "1"), push(api, tmp_path, name, "2", "staging")


def push(
    api: httpx.Client, at: Path, name: str, version: str, alias: str = "production", **more: Any
) -> dict[str, Any]:
    folder = blob_model(at / version, name=name, version=version, **more)
    files = [("f", (p.name, p.read_bytes())) for p in sorted(folder.iterdir())]
    answer = api.post("/models", files=files, data={"alias": alias})
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


def test_a_standing_shadow(api: httpx.Client, two: Any) -> None:
    """Jobs of production that begin take it and say so; jobs that began keep theirs; it ends."""
    own, shadow = two
    name = own["name"]
    before = api.post("/jobs", json={"model": name}).json()
    assert before["shadow"] is None
    put = api.put(f"/models/{name}/shadow", json={"version": "staging", "share": 0.2, "why": "new"})
    assert put.json() == shadow, put.text
    assert api.get(f"/models/{name}").json()["shadow"]["moves"][0]["why"] == "new"
    told = {"model": shadow, "share": 0.2}
    began = api.post("/jobs", json={"model": name}).json()
    assert began["shadow"] == told
    assert api.get(f"/jobs/{began['job_id']}").json()["shadow"] == told
    assert api.get(f"/jobs/{before['job_id']}").json()["shadow"] is None
    for body in ({"model": name, "shadow": "none"}, {"model": f"{name}@{own['digest']}"}):
        assert api.post("/jobs", json=body).json()["shadow"] is None

    gone = api.request("DELETE", f"/models/{name}/shadow", params={"why": "seen enough"})
    assert gone.status_code == 204
    held = api.get(f"/models/{name}").json()["shadow"]
    assert (held["digest"], held["why"], len(held["moves"])) == (None, "seen enough", 2)
    assert all(m["who"] for m in held["moves"])
    # a job that began goes on, whatever stands by now
    again = api.post("/jobs", json={"job_id": began["job_id"], "model": name})
    assert (again.status_code, again.json()["shadow"]) == (201, told)
    assert api.post("/jobs", json={"model": name}).json()["shadow"] is None


def test_a_job_asks_for_a_shadow(api: httpx.Client, two: Any) -> None:
    """It is pinned to a digest; the same request again is the same job, another shadow is not."""
    own, shadow = two
    job = f"job-{secrets.token_hex(4)}"
    body = {"job_id": job, "model": own["name"],
            "shadow": {"model": f"{own['name']}@staging", "share": 0.5}}  # fmt: skip
    assert api.post("/jobs", json=body).json()["shadow"] == {"model": shadow, "share": 0.5}
    assert api.post("/jobs", json=body).status_code == 201
    for other in ("none", {"model": f"{own['name']}@staging", "share": 0.4}):
        assert api.post("/jobs", json=body | {"shadow": other}).status_code == 409
    # the alias moves on to what the job runs anyway: an interrupted sender goes on all the same
    api.put(f"/models/{own['name']}/aliases/staging", json={"digest": own["digest"]})
    again = api.post("/jobs", json=body)
    assert (again.status_code, again.json()["shadow"]["model"]) == (201, shadow)
    # what cannot be met is no reason to take a job for one that was asked for so
    for version, share in ((own["digest"], 0.5), ("staging", 0.4)):
        wish = {"model": f"{own['name']}@{version}", "share": share}
        other = api.post("/jobs", json=body | {"shadow": wish})
        assert 400 <= other.status_code < 500, other.text


def test_a_job_without_a_shadow_is_not_one_with(api: httpx.Client, two: Any) -> None:
    """Though nobody knows the shadow that is asked for."""
    own, _ = two
    body = {"job_id": f"job-{secrets.token_hex(4)}", "model": own["name"]}
    assert api.post("/jobs", json=body).status_code == 201
    other = api.post("/jobs", json=body | {"shadow": {"model": f"{own['name']}@nowhere"}})
    assert 400 <= other.status_code < 500, other.text


def test_an_alias_with_a_long_name(api: httpx.Client, two: Any) -> None:
    """Moves on as any other does: an interrupted sender goes on, with what was pinned."""
    own, shadow = two
    name = own["name"]
    api.put(f"/models/{name}/aliases/candidate", json={"digest": shadow["digest"]})
    body = {"job_id": f"job-{secrets.token_hex(4)}", "model": f"{name}@production",
            "shadow": {"model": f"{name}@candidate"}}  # fmt: skip
    assert api.post("/jobs", json=body).status_code == 201
    api.put(f"/models/{name}/aliases/production", json={"digest": shadow["digest"]})
    api.put(f"/models/{name}/aliases/candidate", json={"digest": own["digest"]})
    again = api.post("/jobs", json=body)
    assert (again.status_code, again.json()["shadow"]["model"]) == (201, shadow), again.text


async def test_a_status_does_not_wait_for_a_silent_store() -> None:
    """More than a moment: a job is told of without its shadow."""

    over = asyncio.Event()

    async def silent(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await over.wait()
        writer.close()

    async with await asyncio.start_server(silent, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        store = ObjectStore(StoreSettings(f"http://{host}:{port}", "key", "secret", "things"))
        began = time.monotonic()
        ingest: Any = SimpleNamespace(store=store, specs={})
        assert await desk.shadow_of(ingest, "job") is None
        assert time.monotonic() - began < 10
        over.set()
        store.close()


def test_a_form_asks_for_a_shadow(api: httpx.Client, two: Any) -> None:
    """By the fields shadow and shadow_share."""
    own, shadow = two
    sent = [("f", ("a.tif", b"no raster"))]
    ref = f"{own['name']}@staging"
    form = {"model": own["name"], "shadow": ref, "shadow_share": "0.3"}
    made = api.post("/upload", files=sent, data=form).json()
    assert made["shadow"] == {"model": shadow, "share": 0.3}
    assert api.post("/upload", files=sent, data={"shadow": "none"}).json()["shadow"] is None
    for wrong in ({"shadow_share": "0.3"}, {"shadow": ref, "shadow_share": "2"}):
        answer = api.post("/upload", files=sent, data=form | {"shadow": ""} | wrong)
        assert (answer.status_code, answer.json()["reason"]) == (422, Reason.BAD_REQUEST)


def test_what_cannot_be_a_shadow_is_refused_at_the_door(
    api: httpx.Client, two: Any, tmp_path: Path
) -> None:
    """With a sentence, for a model and for a job; nothing of the job is there then."""
    own, _ = two
    name = own["name"]
    small = push(api, tmp_path, name, "3", "small", size=128)
    for version, reason in (
        (small["digest"], Reason.BAD_MODEL), ("nowhere", Reason.UNKNOWN_MODEL),
        (own["digest"], Reason.CONFLICT),
    ):  # fmt: skip
        for answer in (
            api.put(f"/models/{name}/shadow", json={"version": version}),
            api.post("/jobs", json={"job_id": f"no-{name}", "model": name,
                                    "shadow": {"model": f"{name}@{version}"}}),
        ):  # fmt: skip
            assert 400 <= answer.status_code < 500
            assert answer.json()["reason"] == reason, answer.text
            assert len(answer.json()["detail"]) > 40
    assert api.get(f"/jobs/no-{name}").status_code == 404
    for body in ({"version": "staging", "share": 0}, {"version": "staging", "share": True}, {}):
        assert api.put(f"/models/{name}/shadow", json=body).status_code == 422
