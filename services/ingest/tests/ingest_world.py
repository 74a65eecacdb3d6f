"""What tests at the REST door share: waiting, names, forms, a job's events, tenants."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx
from aiokafka import AIOKafkaConsumer, TopicPartition

from frond.auth import KeyStore, Scope
from frond.contracts import topics
from frond.contracts.envelope import decode
from frond.contracts.events import Event
from frond.contracts.reasons import Reason
from frond.store import ObjectStore

BOTH = (Scope.SUBMIT, Scope.READ)


def fresh(name: str = "job") -> str:
    return f"{name}-{secrets.token_hex(4)}"


def files(*named: tuple[str, bytes]) -> list[tuple[str, tuple[str, bytes]]]:
    return [(f"f{n}", item) for n, item in enumerate(named)]


async def on_topic(door: Any, job_id: str) -> Sequence[Event]:
    """All events of a job on the uploaded topic, up to its end of now."""
    env = door.env
    name = topics.UPLOADED.named(env["FROND_TOPIC_PREFIX"])
    consumer = AIOKafkaConsumer(bootstrap_servers=env["FROND_KAFKA_BOOTSTRAP"], group_id=None)
    await consumer.start()
    try:
        parts = [TopicPartition(name, p) for p in consumer.partitions_for_topic(name) or ()]
        if not parts:
            await consumer._client.force_metadata_update()
            parts = [TopicPartition(name, p) for p in range(topics.UPLOADED.partitions)]
        consumer.assign(parts)
        await consumer.seek_to_beginning(*parts)
        ends = await consumer.end_offsets(parts)
        out: list[Event] = []
        while any([await consumer.position(p) < ends[p] for p in parts]):
            for messages in (await consumer.getmany(timeout_ms=200)).values():
                out += [decode(topics.UPLOADED, m.value, m.headers).event for m in messages]
        return [e for e in out if e.job_id == job_id]
    finally:
        await consumer.stop()


def is_problem(answer: httpx.Response, status: int, reason: Reason) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert body["reason"] == reason.value and body["status"] == status
    assert len(body["trace_id"]) == 32 and "Traceback" not in answer.text
    assert {"type", "title", "detail", "instance"} <= set(body)
    return dict(body)


def refused(answer: httpx.Response, status: int, reason: str) -> str:
    """The sentence of a problem with this status and reason."""
    return str(is_problem(answer, status, Reason(reason))["detail"])


def new_job(client: httpx.Client, **body: Any) -> str:
    answer = client.post("/jobs", json={"job_id": fresh(), **body})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["job_id"])


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
