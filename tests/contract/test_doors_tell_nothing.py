"""What no door may tell, whatever it is asked, by whom, and whatever is away."""

# ruff: noqa: ASYNC210 (the loop has nothing else to do while a request is answered)
from __future__ import annotations

import itertools
import json
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from frond.stack import NativeStack
from frond.stack import testing as stack_testing
from support import nosy
from support.services import Services, installation, open_store, prepare
from support.waiting import until

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]

ADMIN = {"Authorization": "Bearer test-key"}
TENANT = f"acme-{secrets.token_hex(4)}"
SCENE = f"vineyard-{secrets.token_hex(4)}.tif"


def a_key(frond: Services, tenant: str) -> dict[str, str]:
    """The headers of a new key."""
    made = httpx.post(
        frond.url("ingest") + "/keys", json={"name": f"of {tenant}", "tenant": tenant},
        headers=ADMIN, timeout=60,
    )  # fmt: skip
    assert made.status_code == 201, made.text
    return {"Authorization": f"Bearer {made.json()['key']}", "id": made.json()["id"]}


NAMES = {
    "name": SCENE, "key_id": "0123456789abcdef", "alias": "staging", "version": "production",
    "file": "model.onnx", "training_id": "0123456789abcdef0123456789abcdef",
}  # fmt: skip


@dataclass
class Nosy:
    """Somebody with a key of their own, and what they must not learn."""

    frond: Services
    headers: dict[str, str]
    job: str
    hidden: list[str]

    def client(self, service: str, **headers: str) -> httpx.Client:
        return httpx.Client(
            base_url=self.frond.url(service), headers={**self.headers, **headers}, timeout=60
        )


def nosy_at(frond: Services) -> Nosy:
    """Another tenant has a job; this one knows its id, and asks."""
    theirs = a_key(frond, TENANT)
    job = f"harvest-{secrets.token_hex(4)}"
    with httpx.Client(base_url=frond.url("ingest"), headers=theirs, timeout=60) as client:
        assert client.post("/jobs", json={"job_id": job}).status_code == 201
        assert client.put(f"/jobs/{job}/images/{SCENE}", content=b"no raster").status_code == 201
        assert client.post(f"/jobs/{job}/seal").status_code == 200
    hidden = [*nosy.insides(frond.env, frond.logs), TENANT, SCENE, theirs["id"]]
    return Nosy(frond, a_key(frond, "beta"), job, hidden)


@pytest.fixture(scope="module")
def beta(frond: Services) -> Nosy:
    return nosy_at(frond)


def operations(client: httpx.Client) -> list[tuple[str, str]]:
    paths = client.get("/openapi.json").json()["paths"]
    return [
        (m, p) for p, item in paths.items() for m in item if m != "parameters"
        if not p.endswith("/events")
    ]  # fmt: skip


def asked(client: httpx.Client, job: str) -> Iterator[httpx.Response]:
    """Answers of every operation, to odd bodies, headers, parameters and ids."""
    odd = {
        "limit": "many",
        "cursor": "WyJ4Il0",
        "since": "yesterday",
        "score": "9",
        "model": "../x",
    }
    for method, path in operations(client):
        for job_id in (job, "no-such-job", "a%00b", "x" * 4000, "..", "%2e%2e%2fkeys"):
            url = httpx.URL(path.format_map({**NAMES, "job_id": job_id}))
            yield client.request(method, url)
        url = httpx.URL(path.format_map({**NAMES, "job_id": job}))
        yield client.request(method, url, params=odd)
        if method not in ("get", "head"):
            for body in nosy.BODIES:
                yield client.request(method, url, content=body, headers=nosy.JSON)
        for headers in nosy.HEADERS:
            yield client.request(method, url, headers=headers)
    for path in ("/nowhere", "/jobs/", "//", "/docs/../keys", "/predict/x", "/static/../../x"):
        yield client.get(path)


def test_ingest(beta: Nosy) -> None:
    """Every route, with every mistake: a sentence, and nothing of the service, its places, or the
    tenant whose job's id is known."""
    with beta.client("ingest") as client:
        count = 0
        for answer in asked(client, beta.job):
            # the id was theirs to say
            nosy.check(answer, beta.hidden)
            assert answer.status_code != 500, answer.text
            count += 1
        assert count > 300
        for key in nosy.NO_KEYS:
            answer = client.get("/jobs", headers={"Authorization": key.encode("latin-1")})  # type: ignore[dict-item]
            assert answer.status_code in (400, 401), (key[:40], answer.text)
            nosy.check(answer, beta.hidden)
        for path in ("/jobs?limit=1000", "/models", "/metrics", "/health", "/ready"):
            answer = client.get(path)
            assert answer.status_code == 200
            nosy.check(answer, [*beta.hidden, beta.job])


def test_predict(beta: Nosy) -> None:
    """Bytes that are no image, images that are traps, models that are not there."""
    trap = '<VRTDataset rasterXSize="1" rasterYSize="1"><VRTRasterBand dataType="Byte" band="1">' \
        '<SimpleSource><SourceFilename>/etc/passwd</SourceFilename></SimpleSource>' \
        "</VRTRasterBand></VRTDataset>"  # fmt: skip
    images = (
        b"", b"no raster", trap.encode(), b"II*\x00" + b"\xff" * 60, b"MM\x00*" + b"\x00" * 60,
        b"\x89PNG\r\n\x1a\n" + b"\x00" * 40, b"\xff\xd8\xff\xe0" + b"x" * 50, b"\x93NUMPY\x01\x00",
        b"\x93NUMPY\x01\x00\x46\x00{'descr': '|O', 'fortran_order': False, 'shape': (1,), }\n",
    )  # fmt: skip
    with beta.client("inference") as client:
        for answer in asked(client, beta.job):
            nosy.check(answer, beta.hidden)
            assert answer.status_code != 500, answer.text
        for image, model in itertools.product(images, ("blob", "blob@production")):
            answer = client.post(f"/predict?model={model}", content=image)
            assert answer.status_code in (400, 413, 422), (image[:20], answer.text)
            assert answer.json()["detail"]
            nosy.check(answer, [*beta.hidden, "root:"])
        for model in ("../keys", "nobody", "blob@" + "0" * 64, "a\x00b", "s3://x/y", "/etc/passwd"):
            answer = client.post("/predict", params={"model": model}, content=b"x")
            assert answer.status_code in (404, 422), answer.text
            nosy.check(answer, beta.hidden)
        for key in nosy.NO_KEYS:
            answer = client.post("/predict", headers={"Authorization": key.encode("latin-1")})  # type: ignore[dict-item]
            assert answer.status_code in (400, 401), (key[:40], answer.text)
            nosy.check(answer, beta.hidden)


@pytest.mark.parametrize("service", ["ingest", "tiler", "inference", "aggregator", "notifier"])
def test_ports(beta: Nosy, service: str) -> None:
    """Bytes that are no HTTP, and what asks for no key: no insides; and the service goes on."""
    hidden = [*beta.hidden, beta.job]
    for got in nosy.raw(beta.frond.url(service)):
        told = got.decode("latin-1")
        assert not [h for h in hidden if h in told], told[:2000]
        assert b" 500 " not in got
    with beta.client(service, Authorization="") as client:
        for method, path in itertools.product(
            ("GET", "POST", "DELETE", "TRACE"), ("/health", "/ready", "/metrics", "/nope", "/../x")
        ):
            nosy.check(client.request(method, path, content=b"{"), hidden)
        assert client.get("/health").json() == {"status": "ok"}


def test_a_revoked_key_opens_neither_door(frond: Services) -> None:
    """Within the seconds for which a process remembers a key, at both."""
    headers = a_key(frond, "beta")
    key = {"Authorization": headers["Authorization"]}

    def codes() -> tuple[int, int]:
        jobs = httpx.get(frond.url("ingest") + "/jobs", headers=key, timeout=60)
        found = httpx.post(frond.url("inference") + "/predict", headers=key, timeout=60)
        return jobs.status_code, found.status_code

    assert codes() == (200, 422)
    gone = httpx.delete(f"{frond.url('ingest')}/keys/{headers['id']}", headers=ADMIN, timeout=60)
    assert gone.status_code == 200
    until(lambda: codes() == (401, 401), 60, every=0.2)


async def test_an_outage(private_stack: NativeStack, make_services: Any, tmp_path: Path) -> None:
    """The store away, then the broker: 503 and a sentence at every door; which hosts those are, and
    how they failed, is for the log."""
    endpoints = private_stack.endpoints
    names = ("ingest", "inference", "aggregator", "notifier")
    with stack_testing.fresh_bucket(endpoints) as bucket:
        env = installation(endpoints, stack_testing.new_prefix(), bucket, tmp_path)
        services: Services = make_services(env, "services")
        store = open_store(env)
        await prepare(env, store, tmp_path / "blob")
        store.close()
        services.start(*names)
        await services.ready(*names)
        beta = nosy_at(services)
        hidden = [*beta.hidden, str(tmp_path)]
        body = json.dumps({"job_id": "x"}).encode()
        for away in (private_stack.minio, private_stack.kafka):
            away.kill()
            seen = set()
            with beta.client("ingest", **nosy.JSON) as door, beta.client("inference") as other:
                answers = [door.request(m, p.format_map({**NAMES, "job_id": beta.job}), content=body)
                           for m, p in operations(door)]  # fmt: skip
                answers.append(other.post("/predict", content=b"x"))
                answers.append(other.post("/predict?model=blob@staging", content=b"x"))
                for service in names:
                    for path in ("/health", "/ready", "/metrics"):
                        answers.append(httpx.get(services.url(service) + path, timeout=60))
            for answer in answers:
                nosy.check(answer, hidden)
                seen.add(answer.status_code)
            assert 503 in seen and 500 not in seen
            away.start()
            await services.ready(*names)
