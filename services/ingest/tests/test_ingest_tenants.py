"""Every door, tried by those it is not for: no key, too small a key, another tenant's key."""

# ruff: noqa: ASYNC212 (the loop has nothing else to do while a request is answered)
from __future__ import annotations

import itertools
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from ingest_world import Tenants, fresh, new_job, on_topic

from frond.bus import EventProducer, Outgoing
from frond.contracts import keys, topics
from frond.contracts.events import ImageUploaded
from frond.contracts.jobs import JobSpec, ModelRef
from frond.store import ObjectStore
from support.waiting import until

pytestmark = pytest.mark.stack

OPEN = {("get", "/"), ("get", "/health"), ("get", "/ready"), ("get", "/metrics")}


def is_admins(method: str, path: str) -> bool:
    """Keys; training; whatever changes models; and their weights."""
    changes = method not in ("get", "head") and path.startswith("/models")
    return path.startswith(("/keys", "/training")) or changes or "/files/" in path


def routes(door: Any) -> list[tuple[str, str]]:
    """Every operation that the door's own document lists."""
    paths = httpx.get(f"{door.url}/openapi.json").json()["paths"]
    return sorted((method, path) for path, item in paths.items() for method in item)


def filled(path: str, job_id: str) -> str:
    known = {
        "job_id": job_id, "name": "a.tif", "key_id": "0123456789abcdef", "alias": "staging",
        "version": "production", "file": "model.onnx",
        "training_id": "0123456789abcdef0123456789abcdef",
    }  # fmt: skip
    # a new parameter needs a value here: KeyError
    return path.format(**known)


def told(answer: httpx.Response, job_id: str) -> dict[str, Any]:
    """What an answer says, but for what differs in any two."""
    body = json.loads(answer.text.replace(job_id, "JOB")) if answer.text else {}
    body = {k: v for k, v in body.items() if k != "trace_id"}
    names = sorted(k for k in answer.headers if k not in ("date", "traceparent", "content-length"))
    return {"status": answer.status_code, "body": body, "headers": names}


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
    job_id = new_job(tenants.acme)
    for method, path in routes(door):
        if (method, path) in OPEN:
            continue
        url = filled(path, job_id)
        wrong = tenants.submits if method in ("get", "head") else tenants.reads
        answer = wrong.request(method, url)
        assert answer.status_code == 403, (method, path, answer.text)
        if is_admins(method, path):
            answer = tenants.acme.request(method, url)
            assert answer.status_code == 403 and answer.json()["reason"] == "forbidden"
    assert tenants.acme.get(f"/jobs/{job_id}").json()["status"] == "accepted"


def test_another_tenants_job_is_no_job(door: Any, tenants: Tenants) -> None:
    """At every route with a job in it: word for word the answer for a job that does not exist."""
    mine, none = new_job(tenants.acme), fresh()
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
    mine = {new_job(tenants.acme) for _ in range(3)}
    theirs = new_job(tenants.beta)
    nobodys = new_job(api)

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
    running, deleted = new_job(tenants.acme), new_job(tenants.acme)
    assert tenants.acme.delete(f"/jobs/{deleted}").status_code == 204
    nobodys = new_job(api)
    begun_by_topic = fresh()
    spec = JobSpec.model_validate_json(await store.get(keys.job_spec(running)))
    other = spec.model_copy(update={"job_id": begun_by_topic})
    await store.put(keys.job_spec(begun_by_topic), other.model_dump_json().encode())
    own = new_job(tenants.beta)
    assert tenants.beta.put(f"/jobs/{own}/images/a.tif", content=b"x").status_code == 201
    where_ = until(lambda: where(tenants.beta, own))
    for job_id in (running, deleted, nobodys, begun_by_topic):
        answers = [
            tenants.beta.post("/jobs", json={"job_id": job_id}),
            tenants.beta.post("/upload", files={"f": ("a.tif", b"x")}, data={"job_id": job_id}),
            tenants.beta.post("/start-job", json={"job_id": job_id, "s3_url": where_}),
        ]
        for answer in answers:
            assert answer.status_code == 409, answer.text
            assert (
                answer.json()["detail"] == f"Job id {job_id!r} cannot be used. Choose another one."
            )
    assert tenants.acme.get(f"/jobs/{running}/images").json()["images"] == []
    assert [i async for i in store.list(f"uploads/{running}/")] == []


def test_two_tenants_begin_one_id_at_once(tenants: Tenants) -> None:
    """By whichever ways: one of them has the job, and its images alone; the other is refused, and
    is told nothing of it."""

    def by_json(client: httpx.Client, job_id: str) -> httpx.Response:
        return client.post("/jobs", json={"job_id": job_id})

    def by_form(client: httpx.Client, job_id: str) -> httpx.Response:
        data, names = {"job_id": job_id}, ("one.tif", "two.tif")
        return client.post("/upload", data=data, files=[("f", (n, b"x")) for n in names])

    ways = (by_json, by_form)
    pairs = list(itertools.product(ways, ways)) * 3
    clients = (tenants.acme, tenants.beta)
    with ThreadPoolExecutor(2) as pool:
        for pair in pairs:
            job_id = fresh()
            sent = [pool.submit(w, c, job_id) for w, c in zip(pair, clients, strict=True)]
            answers = [s.result() for s in sent]
            codes = [a.status_code for a in answers]
            assert sorted(c < 300 for c in codes) == [False, True], codes
            lost = int(codes[0] < 300)
            assert codes[lost] == 409
            detail = f"Job id {job_id!r} cannot be used. Choose another one."
            assert answers[lost].json()["detail"] == detail
            assert clients[lost].get(f"/jobs/{job_id}").status_code == 404
            has = clients[1 - lost].get(f"/jobs/{job_id}").json()["images"]["expected"]
            assert has == (2 if pair[1 - lost] is by_form else None)


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
    images = client.get(f"/jobs/{job_id}/images").json()["images"]
    return str(images[0]["image"]) if images else ""


async def test_places_that_may_be_named(
    door: Any, api: httpx.Client, tenants: Tenants, store: ObjectStore
) -> None:
    """In the installation's bucket a tenant names uploads of its own jobs, and nothing else: what
    is another's is answered like what is not there."""
    form = tenants.acme.post("/upload", files={"f": ("a.tif", b"acme")}).json()["job_id"]
    put = new_job(tenants.acme)
    assert tenants.acme.put(f"/jobs/{put}/images/b.tif", content=b"acme").status_code == 201
    own = [until(lambda j=j: where(tenants.acme, j)) for j in (form, put)]  # type: ignore[misc]
    long = new_job(tenants.beta, job_id=put + "0")
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
    mine = new_job(tenants.beta)
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
    new_job(tenants.beta, job_id=f"u-{fresh()}")


async def test_jobs_from_the_topic(
    api: httpx.Client, tenants: Tenants, send: EventProducer, store: ObjectStore
) -> None:
    """The event's tenant sees the job; of two that are named for one job, the one in its settings."""

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
    spec = JobSpec(job_id=both, model=ModelRef(name="m", digest="0" * 64), tenant="acme")
    await store.put(keys.job_spec(both), spec.model_dump_json().encode())
    assert tenants.acme.get(f"/jobs/{both}").status_code == 200
    assert tenants.beta.get(f"/jobs/{both}").status_code == 404


async def test_a_message_of_another_tenant_hides_no_job(
    api: httpx.Client, tenants: Tenants, send: EventProducer
) -> None:
    """Its image is rejected elsewhere; whose job it is stays as it was, at every route and in lists."""
    mine = new_job(tenants.acme)
    event = ImageUploaded(job_id=mine, image="s3://elsewhere/a.tif", tenant="beta")
    await send.send([Outgoing(topics.UPLOADED, event)])
    until(lambda: api.get(f"/jobs/{mine}").json()["images"]["received"] == 1)
    assert tenants.acme.get(f"/jobs/{mine}").status_code == 200
    assert tenants.acme.get("/jobs").json()["jobs"][0]["job_id"] == mine
    assert tenants.beta.get(f"/jobs/{mine}").status_code == 404


async def test_a_job_of_a_key_says_so_and_so_do_its_messages(
    door: Any, api: httpx.Client, tenants: Tenants, store: ObjectStore
) -> None:
    """What came by messages is told from what came by a tenant's key; one from before that said it is
    the same job when it is asked for again."""
    mine, nobodys = new_job(tenants.acme), new_job(api)
    specs = [await store.get(keys.job_spec(job_id)) for job_id in (mine, nobodys)]
    assert [JobSpec.model_validate_json(s).by_key for s in specs] == [True, False]
    assert tenants.acme.put(f"/jobs/{mine}/images/a.tif", content=b"x").status_code == 201
    sent = [e for e in await on_topic(door, mine) if isinstance(e, ImageUploaded)]
    assert [e.tenant for e in sent] == ["acme"]
    before = json.loads(specs[0])
    del before["by_key"]
    await store.put(keys.job_spec(mine), json.dumps(before).encode())
    assert tenants.acme.post("/jobs", json={"job_id": mine}).status_code == 201


async def test_who_may_submit_alone_reads_nothing(tenants: Tenants, store: ObjectStore) -> None:
    """Whatever changes a job answers that it is there and whether it goes on: no figures, no images, no
    results, of a job that has ended either, or of the first answer that another key got."""
    mine, head = tenants.submits, {"Idempotency-Key": fresh("key")}
    job = new_job(tenants.acme)
    image = f"s3://{store.bucket}/uploads/{job}/a.tif"
    assert tenants.acme.put(f"/jobs/{job}/images/a.tif", content=b"x").status_code == 201
    first = tenants.acme.post("/jobs", json={"job_id": job}, headers=head)
    assert "images" in first.json()
    files = {"f": ("a.tif", b"x")}
    answers = {
        "create": mine.post("/jobs", json={}),
        "again": mine.post("/jobs", json={"job_id": job}),
        "the first": mine.post("/jobs", json={"job_id": job}, headers=head),
        "upload": mine.post("/upload", files=files, headers=head),
        "uploaded": mine.post("/upload", files=files, headers=head),
        "start": mine.post("/start-job", json={"s3_url": image}),
        "seal": mine.post(f"/jobs/{job}/seal", json={}),
        "cancel": mine.post(f"/jobs/{job}/cancel"),
        "ended": mine.post("/jobs", json={"job_id": job}),
    }
    for what, answer in answers.items():
        assert answer.is_success, (what, answer.text)
        told = set(answer.json())
        assert told == {"job_id", "type", "status", "created", "links"}, (what, told)
    for what in ("the first", "uploaded"):
        assert answers[what].headers["idempotency-replayed"] == "true"
    assert answers["create"].headers["location"].endswith(answers["create"].json()["job_id"])
    assert answers["cancel"].json()["status"] == "dismissed"
    whole = tenants.acme.post(f"/jobs/{job}/seal", json={}).json()
    assert whole["images"]["expected"] == 1
