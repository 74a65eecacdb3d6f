"""Every door, tried by those it is not for: no key, too small a key, another tenant's key."""

# ruff: noqa: ASYNC212 (the loop has nothing else to do while a request is answered)
from __future__ import annotations

import asyncio
import itertools
import json
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from minio import Minio

from frond.auth import KeyStore, Scope
from frond.bus import EventProducer, Outgoing
from frond.contracts import keys, topics
from frond.contracts.events import ImageUploaded
from frond.contracts.jobs import JobSpec
from frond.stack import Endpoints
from frond.store import ObjectStore

pytestmark = pytest.mark.stack

OPEN = {("get", "/"), ("get", "/health"), ("get", "/ready"), ("get", "/metrics")}
ADMINS = "/keys"
BOTH = (Scope.SUBMIT, Scope.READ)


def until(look: Callable[[], Any], seconds: float = 30) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := look():
            return found
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds} s")


def fresh(name: str = "job") -> str:
    return f"{name}-{secrets.token_hex(4)}"


async def a_key(store: ObjectStore, tenant: str | None, *scopes: Scope) -> str:
    _, key = await KeyStore(store).create("test", tenant=tenant, scopes=scopes or BOTH)
    return key


@dataclass
class Tenants:
    """Clients of two tenants at one door."""

    acme: httpx.Client
    beta: httpx.Client
    reads: httpx.Client
    submits: httpx.Client
    nobody: httpx.Client


@pytest.fixture(scope="module")
def tenants(door: Any) -> Iterator[Tenants]:
    async def make() -> dict[str, str]:
        store = door.store()
        try:
            return {
                "acme": await a_key(store, "acme"),
                "beta": await a_key(store, "beta"),
                "reads": await a_key(store, "acme", Scope.READ),
                "submits": await a_key(store, "acme", Scope.SUBMIT),
                "nobody": "frond_0123456789abcdef_" + "A" * 43,
            }
        finally:
            store.close()

    clients = {
        name: door.client(headers={"Authorization": f"Bearer {key}"})
        for name, key in asyncio.run(make()).items()
    }
    yield Tenants(**clients)
    for client in clients.values():
        client.close()


def routes(door: Any) -> list[tuple[str, str]]:
    """Every operation that the door's own document lists."""
    paths = httpx.get(f"{door.url}/openapi.json").json()["paths"]
    return sorted((method, path) for path, item in paths.items() for method in item)


def filled(path: str, job_id: str) -> str:
    known = {"job_id": job_id, "name": "a.tif", "key_id": "0123456789abcdef"}
    # a new parameter needs a value here: KeyError
    return path.format(**known)


def told(answer: httpx.Response, job_id: str) -> dict[str, Any]:
    """What an answer says, but for what differs in any two."""
    body = json.loads(answer.text.replace(job_id, "JOB")) if answer.text else {}
    body = {k: v for k, v in body.items() if k != "trace_id"}
    names = sorted(k for k in answer.headers if k not in ("date", "traceparent", "content-length"))
    return {"status": answer.status_code, "body": body, "headers": names}


def begun(client: httpx.Client, **body: Any) -> str:
    answer = client.post("/jobs", json={"job_id": fresh(), **body})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["job_id"])


def test_no_route_without_a_key(door: Any, tenants: Tenants) -> None:
    """401 for everything but the page, the docs and the operations, before anything is read."""
    found = routes(door)
    assert set(found) >= OPEN and len(found) > 20
    with httpx.Client(base_url=door.url) as bare:
        for method, path in found:
            if (method, path) in OPEN:
                continue
            url = filled(path, "some-job")
            for client in (bare, tenants.nobody):
                answer = client.request(method, url, content=b"{not json")
                assert answer.status_code == 401, (method, path, answer.text)
                assert answer.headers["www-authenticate"] == "Bearer"
        assert bare.get("/no/such/path").status_code == 401
        for path in ("/", "/docs", "/openapi.json", "/health"):
            assert bare.get(path).status_code == 200, path
        # what only looks like an open path is none
        for path in ("//jobs", "/jobs/", "/docs/../jobs", "/%2e/jobs", "/health/x", "/docs%2f"):
            url = httpx.URL(door.url).copy_with(raw_path=path.encode())
            assert bare.get(url).status_code == 401, path


def test_every_route_needs_its_scope(door: Any, tenants: Tenants) -> None:
    """403 with the scope's name: reading keys change nothing, submitting ones read nothing."""
    job_id = begun(tenants.acme)
    for method, path in routes(door):
        if (method, path) in OPEN:
            continue
        url = filled(path, job_id)
        wrong = tenants.submits if method in ("get", "head") else tenants.reads
        answer = wrong.request(method, url)
        assert answer.status_code == 403, (method, path, answer.text)
        if path.startswith(ADMINS):
            answer = tenants.acme.request(method, url)
            assert answer.status_code == 403 and answer.json()["reason"] == "forbidden"
    assert tenants.acme.get(f"/jobs/{job_id}").json()["status"] == "accepted"


def test_another_tenants_job_is_no_job(door: Any, tenants: Tenants) -> None:
    """At every route with a job in it: word for word the answer for a job that does not exist."""
    mine, none = begun(tenants.acme), fresh()
    before = tenants.acme.get(f"/jobs/{mine}").json()
    tried = 0
    for method, path in routes(door):
        if "{job_id}" not in path:
            continue
        for content in (None, b"{}"):
            theirs = tenants.beta.request(method, filled(path, mine), content=content)
            nobodys = tenants.beta.request(method, filled(path, none), content=content)
            assert theirs.status_code == 404, (method, path, theirs.text)
            assert told(theirs, mine) == told(nobodys, none), (method, path)
            tried += 1
    assert tried >= 20
    assert tenants.acme.get(f"/jobs/{mine}").json() == before
    assert tenants.acme.post(f"/jobs/{mine}/seal", json={}).status_code == 200


def test_lists_hold_ones_own(api: httpx.Client, tenants: Tenants) -> None:
    """A tenant lists its jobs, over all pages; an admin those of all, and those of nobody."""
    mine = {begun(tenants.acme) for _ in range(3)}
    theirs = begun(tenants.beta)
    nobodys = begun(api)

    def listed(client: httpx.Client) -> set[str]:
        found, cursor = set(), None
        while True:
            query = {"limit": 2, **({"cursor": cursor} if cursor else {})}
            page = client.get("/jobs", params=query).json()
            found |= {j["job_id"] for j in page["jobs"]}
            cursor = page["next_cursor"]
            if not cursor:
                return found

    assert mine <= listed(tenants.acme) and not {theirs, nobodys} & listed(tenants.acme)
    assert theirs in listed(tenants.beta) and not (mine | {nobodys}) & listed(tenants.beta)
    assert mine | {theirs, nobodys} <= listed(api)
    assert tenants.acme.get(f"/status/{nobodys}").status_code == 404
    assert api.get(f"/status/{theirs}").status_code == 200


async def test_an_id_that_another_has(
    api: httpx.Client, tenants: Tenants, store: ObjectStore
) -> None:
    """Every way to begin a job answers 409 with one sentence, whatever became of the other's job,
    and adds nothing to it."""
    running, deleted = begun(tenants.acme), begun(tenants.acme)
    assert tenants.acme.delete(f"/jobs/{deleted}").status_code == 204
    nobodys = begun(api)
    begun_by_topic = fresh()
    spec = JobSpec.model_validate_json(await store.get(keys.job_spec(running)))
    other = spec.model_copy(update={"job_id": begun_by_topic})
    await store.put(keys.job_spec(begun_by_topic), other.model_dump_json().encode())
    await store.put("uploads/x/a.tif", b"x")
    for job_id in (running, deleted, nobodys, begun_by_topic):
        answers = [
            tenants.beta.post("/jobs", json={"job_id": job_id}),
            tenants.beta.post("/upload", files={"f": ("a.tif", b"x")}, data={"job_id": job_id}),
        ]
        for answer in answers:
            assert answer.status_code == 409, answer.text
            assert (
                answer.json()["detail"] == f"Job id {job_id!r} cannot be used. Choose another one."
            )
    assert tenants.acme.get(f"/jobs/{running}/images").json()["images"] == []
    assert [i async for i in store.list(f"uploads/{running}/")] == []


def test_two_tenants_begin_one_id_at_once(tenants: Tenants) -> None:
    """One of them has the job, the other is refused; never both."""
    for _ in range(5):
        job_id = fresh()
        codes = []
        for client in (tenants.acme, tenants.beta):
            codes.append(client.post("/jobs", json={"job_id": job_id}).status_code)
        assert codes == [201, 409]


def test_idempotency_keys_are_a_tenants_own(tenants: Tenants) -> None:
    """The same key of two tenants is two requests: neither answer is the other's."""
    headers = {"Idempotency-Key": fresh("key")}
    first = tenants.acme.post("/jobs", json={}, headers=headers)
    other = tenants.beta.post("/jobs", json={}, headers=headers)
    again = tenants.acme.post("/jobs", json={}, headers=headers)
    assert first.status_code == other.status_code == 201
    assert first.json()["job_id"] == again.json()["job_id"] != other.json()["job_id"]
    assert again.headers["idempotency-replayed"] == "true"
    uploads = [
        c.post("/upload", files={"f": ("a.tif", b"x")}, headers=headers)
        for c in (tenants.acme, tenants.beta)
    ]
    assert [u.status_code for u in uploads] == [202, 202]
    assert len({u.json()["job_id"] for u in uploads}) == 2


def where(client: httpx.Client, job_id: str) -> str:
    (image,) = client.get(f"/jobs/{job_id}/images").json()["images"]
    return str(image["image"])


async def test_places_that_may_be_named(
    door: Any, api: httpx.Client, tenants: Tenants, store: ObjectStore
) -> None:
    """In the installation's bucket a tenant names uploads of its own jobs, and nothing else: what
    is another's is answered like what is not there."""
    form = tenants.acme.post("/upload", files={"f": ("a.tif", b"acme")}).json()["job_id"]
    put = begun(tenants.acme)
    assert tenants.acme.put(f"/jobs/{put}/images/b.tif", content=b"acme").status_code == 201
    own = [until(lambda j=j: where(tenants.acme, j)) for j in (form, put)]  # type: ignore[misc]
    long = begun(tenants.beta, job_id=put + "0")
    assert tenants.beta.put(f"/jobs/{long}/images/c.tif", content=b"beta").status_code == 201
    await store.put("survey/north.tif", b"somebody's")
    bucket = store.bucket
    folders = [uri.rsplit("/", 1)[0] + "/" for uri in own]
    for uri in own + folders:
        assert tenants.acme.post("/start-job", json={"s3_url": uri}).status_code == 202, uri
        answer = tenants.beta.post("/start-job", json={"s3_url": uri})
        absent = f"s3://{bucket}/uploads/{fresh()}/{uri.rsplit('/', 1)[1]}"
        none = tenants.beta.post("/start-job", json={"s3_url": absent})
        assert (answer.status_code, answer.json()["reason"]) == (422, "object-missing"), uri
        assert told(answer, uri) == told(none, absent)
    mine = begun(tenants.beta)
    for uri in own:
        answer = tenants.beta.post(f"/jobs/{mine}/images", json={"images": [uri]})
        assert answer.json()["reason"] == "object-missing"
    closed = [
        f"s3://{bucket}/{k}"
        for k in ("", "survey/", "survey/north.tif", "uploads/", f"uploads/{put}", "u", "upl",
                  "uploads/u-", "up/../keys/x.tif")
    ]  # fmt: skip
    for uri in closed:
        answer = tenants.acme.post("/start-job", json={"s3_url": uri})
        assert answer.status_code == 422, (uri, answer.text)
    internal = ("jobs", "models", "keys", "open", "deliveries", "deleted", "untold")
    for prefix, client in itertools.product(internal, (tenants.acme, api)):
        for rest in ("", "x.tif"):
            uri = f"s3://{bucket}/{prefix}/{rest}"
            answer = client.post("/start-job", json={"s3_url": uri})
            assert answer.json()["reason"] == "bucket-not-allowed", (uri, answer.text)
    # an admin names whatever else is there, as before there were tenants
    assert api.post("/start-job", json={"s3_url": f"s3://{bucket}/survey/"}).status_code == 202


def test_ids_of_uploads_are_no_job_ids(tenants: Tenants) -> None:
    """Nobody begins a job whose folder of uploads is another's form."""
    for job_id in ("u-" + "0" * 24, "u-" + "0" * 12 + "-" + "1" * 24):
        answer = tenants.beta.post("/jobs", json={"job_id": job_id})
        assert (answer.status_code, answer.json()["reason"]) == (422, "bad-job-id")
    begun(tenants.beta, job_id=f"u-{fresh()}")


async def test_jobs_from_the_topic(
    api: httpx.Client, tenants: Tenants, send: EventProducer
) -> None:
    """The event's tenant sees the job; two tenants named for one job are none."""

    async def publish(job_id: str, name: str, tenant: str | None) -> None:
        image = f"s3://elsewhere/{name}.tif"
        event = ImageUploaded(job_id=job_id, image=image, tenant=tenant)
        await send.send([Outgoing(topics.UPLOADED, event)])

    mine, nobodys, both = fresh(), fresh(), fresh()
    await publish(mine, "a", None)
    await publish(mine, "b", "acme")
    await publish(nobodys, "a", None)
    await publish(both, "a", "acme")
    await publish(both, "b", "beta")
    until(lambda: tenants.acme.get(f"/jobs/{mine}").status_code == 200)
    assert tenants.beta.get(f"/jobs/{mine}").status_code == 404

    def seen(job_id: str, images: int) -> bool:
        answer = api.get(f"/jobs/{job_id}")
        return answer.status_code == 200 and answer.json()["images"]["received"] == images

    until(lambda: seen(nobodys, 1) and seen(both, 2))
    for job_id, client in itertools.product((nobodys, both), (tenants.acme, tenants.beta)):
        assert client.get(f"/jobs/{job_id}").status_code == 404


async def test_a_revoked_key_is_let_go_within_seconds(
    door: Any, api: httpx.Client, store: ObjectStore
) -> None:
    """Made, used and revoked by REST: requests are refused within 5 s, and a stream ends."""
    made = api.post("/keys", json={"name": "laptop", "tenant": "acme"}).json()
    assert made["key"].startswith(f"frond_{made['id']}_") and made["state"] == "active"
    listed = api.get("/keys").json()["keys"]
    assert made["id"] in {k["id"] for k in listed}
    assert not any("key" in k or "sha256" in k for k in listed)
    headers = {"Authorization": f"Bearer {made['key']}"}
    with door.client(headers=headers) as client:
        job_id = begun(client)
        with client.stream("GET", f"/jobs/{job_id}/events") as stream:
            lines = stream.iter_lines()
            next(lines)
            at = time.monotonic()
            assert api.delete(f"/keys/{made['id']}").json()["state"] == "revoked"
            until(lambda: client.get("/jobs").status_code == 401, 7)
            assert time.monotonic() - at < 6
            for _ in lines:
                assert time.monotonic() - at < 12
    assert api.delete("/keys/0123456789abcdef").status_code == 404
    assert api.get(f"/jobs/{job_id}").status_code == 200


def test_an_upload_ends_with_its_key(api: httpx.Client, door: Any) -> None:
    """A body that is still being sent when its key is revoked: 401, and no image."""
    made = api.post("/keys", json={"name": "laptop", "tenant": "acme"}).json()
    with door.client(headers={"Authorization": f"Bearer {made['key']}"}) as client:
        job_id = begun(client)

        def body() -> Iterator[bytes]:
            yield b"x" * 1000
            assert api.delete(f"/keys/{made['id']}").status_code == 200
            end = time.monotonic() + 12
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


def test_limits_answer_clearly(
    stack: Endpoints, start_door: Callable[..., AbstractContextManager[Any]], tmp_path: Path
) -> None:
    """Open jobs a tenant, requests/s and bytes/s a key, and places a tenant, each configured."""
    imagery = f"imagery-{secrets.token_hex(4)}"
    limits = {
        "FROND_MAX_OPEN_JOBS": "2", "FROND_REQUEST_RATE": "20", "FROND_UPLOAD_RATE": "2000000",
        "FROND_ALLOWED_BUCKETS": imagery,
        "FROND_TENANT_PLACES": f"acme=s3://{imagery}/acme, gamma=s3://{imagery}/gamma/",
    }  # fmt: skip
    s3 = Minio(
        stack.s3_endpoint.removeprefix("http://"), stack.access_key, stack.secret_key, secure=False
    )
    s3.make_bucket(imagery)
    with start_door(stack, tmp_path, **limits) as door:

        async def make() -> list[str]:
            store = door.store()
            try:
                return [await a_key(store, tenant) for tenant in ("acme", "beta")]
            finally:
                store.close()

        acme, beta = (
            door.client(headers={"Authorization": f"Bearer {key}"}) for key in asyncio.run(make())
        )
        admin = door.client()
        for place in ("acme", "acme-too"):
            s3.fput_object(imagery, f"{place}/a.tif", __file__)
        ok = acme.post("/start-job", json={"s3_url": f"s3://{imagery}/acme/"})
        assert ok.status_code == 202
        for client, key in ((acme, "acme-too/"), (acme, "acme"), (acme, ""), (beta, "acme/a.tif")):
            answer = client.post("/start-job", json={"s3_url": f"s3://{imagery}/{key}"})
            assert answer.json()["reason"] == "bucket-not-allowed", (key, answer.text)

        first = begun(acme)
        for answer in (
            acme.post("/jobs", json={}),
            acme.post("/upload", files={"f": ("a.tif", b"x")}),
            acme.post("/start-job", json={"s3_url": f"s3://{imagery}/acme/"}),
        ):
            assert answer.status_code == 429 and "retry-after" in answer.headers
            assert answer.json()["reason"] == "too-many" and "acme" in answer.json()["detail"]
        assert acme.post("/jobs", json={"job_id": first}).status_code == 201
        begun(beta)
        for _ in range(3):
            begun(admin)
        assert acme.post(f"/jobs/{first}/cancel").status_code == 200
        until(lambda: acme.get(f"/jobs/{first}").json()["status"] == "dismissed")
        second = begun(acme)

        at = time.monotonic()
        body = b"x" * 6_000_000
        assert acme.put(f"/jobs/{second}/images/a.tif", content=body).status_code == 201
        assert time.monotonic() - at > 1.5
        large = acme.post(f"/jobs/{second}/images/b.tif/multipart", json={"size": 200_000_000})
        assert large.status_code == 201
        late = acme.put(f"/jobs/{second}/images/c.tif", content=b"x")
        assert late.status_code == 429 and int(late.headers["retry-after"]) > 30
        assert late.json()["reason"] == "rate-limited"

        codes = [beta.get("/jobs") for _ in range(120)]
        refused = [c for c in codes if c.status_code == 429]
        assert refused and int(refused[0].headers["retry-after"]) >= 1
        assert acme.get("/jobs").status_code == 200
        for client in (acme, beta, admin):
            client.close()
    for place in ("acme", "acme-too"):
        s3.remove_object(imagery, f"{place}/a.tif")
    s3.remove_bucket(imagery)


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
        assert "FROND_AUTH is off" in door.log.read_text()
        door.kill()
        with pytest.raises(AssertionError, match="loopback"):
            door.env["API_HOST"] = "0.0.0.0"
            door.start()
