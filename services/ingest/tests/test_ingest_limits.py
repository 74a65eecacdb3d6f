"""What may be sent, how much of it, and how fast: each limit with its answer, also when requests
meet."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import select
import socket
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import partial
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

import httpx
import pytest
from ingest_world import a_key, files, is_problem, new_job, refused
from minio import Minio

from frond.contracts import keys
from frond.contracts.reasons import Reason
from frond.stack import Endpoints
from support.waiting import until

pytestmark = pytest.mark.stack


def test_limits_are_told(stack: Any, tmp_path: Path, start_door: Any) -> None:
    """Too large: 413. Too many: 422. Each names the limit; nothing is left in the store."""
    limits = {"FROND_MAX_FILES": "2", "FROND_MAX_FILE_BYTES": "1000"}
    with start_door(stack, tmp_path, **limits) as door, door.client() as api:
        large = api.post("/upload", files=files(("a.tif", b"x" * 1001)))
        assert "1000" in is_problem(large, 413, Reason.TOO_LARGE)["detail"]
        many = api.post("/upload", files=files(*((f"{n}.tif", b"x") for n in range(3))))
        assert "2" in is_problem(many, 422, Reason.TOO_MANY)["detail"]
        job = api.post("/jobs", json={}).json()["job_id"]
        put = api.put(f"/jobs/{job}/images/a.tif", content=b"x" * 1001)
        is_problem(put, 413, Reason.TOO_LARGE)
        streamed = api.put(f"/jobs/{job}/images/a.tif", content=iter([b"x" * 1001]))
        is_problem(streamed, 413, Reason.TOO_LARGE)
        for n in range(2):
            assert api.put(f"/jobs/{job}/images/{n}.tif", content=b"x").status_code == 201
        is_problem(api.put(f"/jobs/{job}/images/9.tif", content=b"x"), 422, Reason.TOO_MANY)
        left = list(door.store().s3.list_objects(door.bucket, "uploads/u-", recursive=True))
        assert left == []


def test_a_declared_size_does_not_lift_the_limit(
    stack: Any, tmp_path: Path, start_door: Any
) -> None:
    """A job may not be made, nor sealed, with more images than a job may have; with as many it may,
    and takes no more than those."""
    with start_door(stack, tmp_path, FROND_MAX_FILES="2") as door, door.client() as api:
        is_problem(api.post("/jobs", json={"size": 3}), 422, Reason.TOO_MANY)
        job = new_job(api)
        is_problem(api.post(f"/jobs/{job}/seal", json={"job_size": 3}), 422, Reason.TOO_MANY)
        whole = api.post("/jobs", json={"size": 2}).json()["job_id"]
        for n in range(2):
            assert api.put(f"/jobs/{whole}/images/{n}.tif", content=b"x").status_code == 201
        is_problem(api.put(f"/jobs/{whole}/images/9.tif", content=b"x"), 409, Reason.JOB_CLOSED)
        # one that was begun when more were allowed
        sealed = json.dumps({"job_size": 5, "declared": True}).encode()
        door.store().s3.put_bytes(door.bucket, keys.job_sealed(job), sealed, {})
        for n in range(2):
            assert api.put(f"/jobs/{job}/images/{n}.tif", content=b"x").status_code == 201
        is_problem(api.put(f"/jobs/{job}/images/9.tif", content=b"x"), 422, Reason.TOO_MANY)
        again = api.post(f"/jobs/{job}/seal")
        assert again.status_code == 200 and again.json()["images"]["expected"] == 5


def test_limits_of_parts_and_prefixes(stack: Any, tmp_path: Path, start_door: Any) -> None:
    """What went past us into the store is measured; a prefix is refused, never cut; URLs are
    signed for the address that clients know."""
    limits = {"FROND_MAX_FILES": "2", "FROND_MAX_FILE_BYTES": "1000",
              "FROND_S3_PUBLIC_ENDPOINT": stack.s3_endpoint.replace("127.0.0.1", "localhost")}  # fmt: skip
    with start_door(stack, tmp_path, **limits) as door, door.client() as api:
        job = new_job(api)
        begun = api.post(f"/jobs/{job}/images/a.tif/multipart", json={"size": 10}).json()
        assert begun["part_urls"][0].startswith("http://localhost:")
        put = httpx.put(begun["part_urls"][0], content=b"x" * 1001)
        assert put.status_code == 200, put.text
        body = {"upload_id": begun["upload_id"],
                "parts": [{"number": 1, "etag": put.headers["etag"]}]}  # fmt: skip
        assert "1000" in refused(api.post(begun["complete"], json=body), 413, "too-large")
        assert api.put(f"/jobs/{job}/images/a.tif", content=b"x").status_code == 201
        s3 = door.store().s3
        for n in range(3):
            s3.put_bytes(door.bucket, f"in/{n}.tif", b"x", {})
        many = api.post("/start-job", json={"s3_url": f"s3://{door.bucket}/in/"})
        assert "2" in refused(many, 422, "too-many")
        # what came by PUT is nobody's input unless it is asked for
        whole = api.post("/start-job", json={"s3_url": f"s3://{door.bucket}"})
        refused(whole, 422, "too-many")
        s3.remove_object(door.bucket, "in/2.tif")
        whole = api.post("/start-job", json={"s3_url": f"s3://{door.bucket}"})
        assert whole.status_code == 202 and whole.json()["images"]["expected"] == 2
        asked = api.post("/start-job", json={"s3_url": f"s3://{door.bucket}/uploads/"})
        assert asked.json()["images"]["expected"] == 1


def test_limits_answer_clearly(
    stack: Endpoints, start_door: Callable[..., AbstractContextManager[Any]], tmp_path: Path
) -> None:
    """Open jobs a tenant, bytes/s a key, and places a tenant, each configured."""
    imagery = f"imagery-{secrets.token_hex(4)}"
    limits = {
        "FROND_MAX_OPEN_JOBS": "2", "FROND_UPLOAD_RATE": "2000000",
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

        first = new_job(acme)
        for answer in (
            acme.post("/jobs", json={}),
            acme.post("/upload", files={"f": ("a.tif", b"x")}),
            acme.post("/start-job", json={"s3_url": f"s3://{imagery}/acme/"}),
        ):
            assert answer.status_code == 429 and "retry-after" in answer.headers
            assert answer.json()["reason"] == "too-many" and "acme" in answer.json()["detail"]
        assert acme.post("/jobs", json={"job_id": first}).status_code == 201
        new_job(beta)
        # the installation's own key has no tenant, and a limit all the same
        mine = [new_job(admin) for _ in range(2)]
        above = admin.post("/jobs", json={})
        assert above.status_code == 429 and "FROND_MAX_OPEN_JOBS" in above.json()["detail"]
        assert admin.post(f"/jobs/{mine[0]}/cancel").status_code == 200
        until(lambda: admin.get(f"/jobs/{mine[0]}").json()["status"] == "dismissed")
        new_job(admin)
        assert acme.post(f"/jobs/{first}/cancel").status_code == 200
        until(lambda: acme.get(f"/jobs/{first}").json()["status"] == "dismissed")
        second = new_job(acme)

        at = time.monotonic()
        body = b"x" * 6_000_000
        assert acme.put(f"/jobs/{second}/images/a.tif", content=body).status_code == 201
        assert time.monotonic() - at > 1.5
        large = acme.post(f"/jobs/{second}/images/b.tif/multipart", json={"size": 200_000_000})
        assert large.status_code == 201
        late = acme.put(f"/jobs/{second}/images/c.tif", content=b"x")
        assert late.status_code == 429 and int(late.headers["retry-after"]) > 30
        assert late.json()["reason"] == "rate-limited"
        for client in (acme, beta, admin):
            client.close()
    for place in ("acme", "acme-too"):
        s3.remove_object(imagery, f"{place}/a.tif")
    s3.remove_bucket(imagery)


def test_requests_are_counted_a_key(
    stack: Endpoints, start_door: Callable[..., AbstractContextManager[Any]], tmp_path: Path
) -> None:
    """Above the rate and what may come at once, 429 says when to come again; other keys have theirs.
    The installation's own key has a limit as all others."""
    # a tenth of a request a second: no machine is too slow to be above it
    with start_door(stack, tmp_path, FROND_REQUEST_RATE="0.1") as door:

        async def make() -> list[str]:
            store = door.store()
            try:
                return [await a_key(store, tenant) for tenant in ("acme", "beta")]
            finally:
                store.close()

        acme, beta = (
            door.client(headers={"Authorization": f"Bearer {key}"}) for key in asyncio.run(make())
        )
        with acme, beta, door.client() as admin:
            for client in (beta, acme, admin):
                answers = [client.get("/jobs") for _ in range(10)]
                assert answers[0].status_code == 200, answers[0].text
                late = answers[-1]
                assert late.status_code == 429 and late.json()["reason"] == "rate-limited"
                assert 1 <= int(late.headers["retry-after"]) <= 10


def at_once(works: Sequence[Callable[[], httpx.Response]]) -> list[httpx.Response]:
    """The answers of requests that are sent together, in order."""
    together = threading.Barrier(len(works))

    def one(work: Callable[[], httpx.Response]) -> httpx.Response:
        together.wait(30)
        return work()

    with ThreadPoolExecutor(len(works)) as pool:
        return list(pool.map(one, works))


def test_limits_hold_when_requests_meet(
    stack: Endpoints, start_door: Callable[..., AbstractContextManager[Any]], tmp_path: Path
) -> None:
    """However many come at once, by whichever way and key of a tenant: as many jobs, images and
    bytes a second as there may be; never one more, and none less for a name that was sent twice."""
    limits = {"FROND_MAX_OPEN_JOBS": "3", "FROND_MAX_FILES": "4", "FROND_UPLOAD_RATE": "1000000"}
    with start_door(stack, tmp_path, **limits) as door, contextlib.ExitStack() as clients:

        async def make() -> list[str]:
            store = door.store()
            try:
                await store.put("in/a.tif", b"x")
                await store.put("in/b.tif", b"x")
                return [await a_key(store, t) for t in ("acme", "acme", "beta", "gamma")]
            finally:
                store.close()

        one, two, beta, gamma = (
            clients.enter_context(door.client(headers={"Authorization": f"Bearer {key}"}))
            for key in asyncio.run(make())
        )
        admin = clients.enter_context(door.client())

        def by_form(client: httpx.Client) -> httpx.Response:
            return client.post("/upload", files=files(("a.tif", b"x")))

        def by_json(client: httpx.Client) -> httpx.Response:
            return client.post("/jobs", json={})

        ways = [partial(way, client) for way in (by_form, by_json) for client in (one, two)]
        answers = at_once(ways * 4)
        begun = [a for a in answers if a.status_code in (201, 202)]
        assert len(begun) == 3
        assert {a.status_code for a in answers} <= {201, 202, 429}
        job = begun[0].json()["job_id"]
        assert one.post(f"/jobs/{job}/cancel").status_code == 200
        until(lambda: one.get(f"/jobs/{job}").json()["status"] == "dismissed")
        assert [a.status_code < 300 for a in at_once(ways * 2)].count(True) == 1

        def put(job_id: str, name: str) -> httpx.Response:
            return beta.put(f"/jobs/{job_id}/images/{name}.tif", content=b"x")

        def name(job_id: str) -> httpx.Response:
            images = [f"s3://{door.bucket}/in/{n}.tif" for n in "ab"]
            return admin.post(f"/jobs/{job_id}/images", json={"images": images})

        many = new_job(beta)
        answers = at_once([partial(put, many, str(n)) for n in range(12)])
        assert sorted(a.status_code for a in answers) == [201] * 4 + [422] * 8
        assert {a.json()["reason"] for a in answers if a.status_code == 422} == {"too-many"}
        again, named = new_job(beta), new_job(beta)
        assert all(a.status_code < 300 for a in at_once([partial(put, again, "same")] * 4))
        assert [put(again, str(n)).status_code for n in range(4)] == [201, 201, 201, 422]
        assert any(a.status_code == 201 for a in at_once([partial(name, named)] * 2))
        assert [put(named, str(n)).status_code for n in range(3)] == [201, 201, 422]

        slow = new_job(gamma)
        body = bytes(500_000)
        began = time.monotonic()
        answers = at_once(
            [partial(gamma.put, f"/jobs/{slow}/images/{n % 4}.tif", content=body) for n in range(6)]
        )
        assert {a.status_code for a in answers} == {200, 201}
        # a second's worth is let in at once
        assert time.monotonic() - began > 1.9


def test_bodies_that_stop_coming_are_given_up(
    stack: Endpoints, start_door: Callable[..., AbstractContextManager[Any]], tmp_path: Path
) -> None:
    """Answered, so that the client sends it again; a slow one is none. Of one key, as many come in at
    once as may."""
    limits = {"FROND_BODIES_AT_ONCE": "2", "FROND_BODY_SILENCE_S": "5"}
    with start_door(stack, tmp_path, **limits) as door, door.client() as api:
        path = f"/jobs/{new_job(api)}/images"

        def asked_for(name: str) -> socket.socket:
            """A PUT of 7 bytes, from when the first of them is waited for."""
            head = (
                f"PUT {path}/{name}.tif HTTP/1.1\r\nHost: x\r\nContent-Length: 7\r\n"
                f"Expect: 100-continue\r\nAuthorization: {api.headers['authorization']}\r\n\r\n"
            )
            made = left.enter_context(socket.create_connection(("127.0.0.1", door.port), 60))
            made.sendall(head.encode())
            assert made.recv(4096).startswith(b"HTTP/1.1 100")
            return made

        with contextlib.ExitStack() as left:
            silent, slow = asked_for("silent"), asked_for("slow")
            above = api.put(f"{path}/a.tif", content=b"x")
            assert "2 bodies" in refused(above, 429, "rate-limited")
            assert int(above.headers["retry-after"]) > 0
            for _ in range(7):
                time.sleep(1)
                slow.sendall(b"x")
            assert _answer(slow).status_code == 201
            given_up = _answer(silent)
            assert "Send it again" in refused(given_up, 503, "unavailable")
            assert int(given_up.headers["retry-after"]) > 0
        for name in ("silent", "a"):
            assert api.put(f"{path}/{name}.tif", content=b"x").status_code == 201


def _answer(connection: socket.socket) -> httpx.Response:
    got = HTTPResponse(connection)
    got.begin()
    return httpx.Response(got.status, headers=got.getheaders(), content=got.read())


def test_a_key_whose_bodies_all_come_in_can_look_and_cancel(
    stack: Endpoints, start_door: Callable[..., AbstractContextManager[Any]], tmp_path: Path
) -> None:
    """Nothing that has no body counts as one: answers are streamed to their end, and POSTs taken."""
    with start_door(stack, tmp_path, FROND_BODIES_AT_ONCE="1") as door, door.client() as api:
        job, other = new_job(api), new_job(api)

        def begun(name: str) -> socket.socket:
            head = (
                f"PUT /jobs/{job}/images/{name}.tif HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n"
                f"Authorization: {api.headers['authorization']}\r\n\r\n"
            )
            made = left.enter_context(socket.create_connection(("127.0.0.1", door.port), 60))
            made.sendall(head.encode() + b"x")
            return made

        with contextlib.ExitStack() as left:
            pair = [begun(name) for name in "ab"]
            ((late,), _, _) = select.select(pair, [], [], 60)
            assert late.recv(4096).startswith(b"HTTP/1.1 429")
            (coming,) = (s for s in pair if s is not late)
            with api.stream("GET", f"/jobs/{other}/events") as events:
                lines = events.iter_lines()
                assert next(lines).startswith("retry:")
                assert any(line.startswith(":") for line in lines)
            assert api.post(f"/jobs/{other}/cancel").status_code == 200
            coming.sendall(b"x")
            assert coming.recv(4096).startswith(b"HTTP/1.1 201")


def test_event_streams_are_counted_a_key(
    stack: Endpoints, start_door: Callable[..., AbstractContextManager[Any]], tmp_path: Path
) -> None:
    """One more is told to come later; one that its client has left makes room."""
    with start_door(stack, tmp_path, FROND_STREAMS_AT_ONCE="2") as door, door.client() as api:
        path = f"/jobs/{new_job(api)}/events"
        with api.stream("GET", path) as first, contextlib.ExitStack() as left:
            second = left.enter_context(api.stream("GET", path))
            assert {first.status_code, second.status_code} == {200}
            assert first.headers["content-type"].startswith("text/event-stream")
            above = api.get(path)
            assert "2 event streams" in refused(above, 429, "rate-limited")
            assert int(above.headers["retry-after"]) > 0
            left.close()

            def again() -> bool:
                with api.stream("GET", path) as third:
                    return third.status_code == 200

            until(again)
