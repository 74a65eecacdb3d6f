"""Names that would be trouble as paths, through every door: safe in the store, shown as they are."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from confluent_kafka import Producer

from frond.contracts import keys
from frond.store import ObjectStore
from support.kafka import completed
from support.planted import planted

pytestmark = [pytest.mark.stack, pytest.mark.slow]

NAMES = [
    "../../etc/passwd.tif", "a\nb.tif", "x" * 300 + ".tif", "\u202efit.evil.tif", "صورة جوية.tif",
    "航空写真 (2).tif", "<script>alert(1)</script>.tif", '"quoted", \\back.tif',
]  # fmt: skip


async def shown(store: ObjectStore, job: str) -> tuple[list[str], list[str]]:
    """The names in the job's COCO file, and the objects that its uploads became."""
    coco = json.loads(await store.get(keys.result(job, "coco.json")))
    return sorted(i["file_name"] for i in coco["images"]), [
        o.key async for o in store.list(f"{keys.UPLOADS}{job}/")
    ]


async def test_by_rest(frond: Any, store: ObjectStore) -> None:
    """PUT under the name; NUL cannot be stored by databases, and is shown as U+FFFD."""
    data = planted("a.tif", 1).data
    names = [*NAMES, "nul\x00l.tif"]
    async with httpx.AsyncClient(
        base_url=frond.url("ingest"), headers={"Authorization": "Bearer test-key"}, timeout=120
    ) as http:
        body = {"job_id": "odd-rest", "size": len(names)}
        (await http.post("/jobs", json=body)).raise_for_status()
        for name in names:
            url = f"/jobs/odd-rest/images/{quote(name, safe='')}"
            answer = await http.put(url, content=data)
            assert answer.is_success, (name, answer.text)
        event = await completed(frond.env, "odd-rest")
        assert event["outcome"] == "completed", event
        listed = (await http.get("/jobs/odd-rest/images")).json()["images"]
    wanted = sorted(n.replace("\x00", "\ufffd") for n in names)
    assert sorted(i["name"] for i in listed) == wanted
    in_coco, objects = await shown(store, "odd-rest")
    assert in_coco == wanted
    # one plain object each, below the job's own prefix
    assert len(objects) == len(names)
    for key in objects:
        last = key.removeprefix(f"{keys.UPLOADS}odd-rest/")
        assert "/" not in last and ".." not in last and last.isprintable()


async def test_by_topic_and_by_prefix(frond: Any, store: ObjectStore) -> None:
    """A publisher's name is shown as it was sent, NUL included; an object's key names its image."""
    data = planted("a.tif", 1).data
    await store.put("odd/a.tif", data)
    names = [*NAMES, "nul\x00l.tif"]
    producer = Producer({"bootstrap.servers": frond.env["FROND_KAFKA_BOOTSTRAP"]})
    for n, name in enumerate(names):
        await store.put(f"odd/{n}.tif", data)
        value = {
            "job_id": "odd-topic", "image": store.uri(f"odd/{n}.tif"), "name": name,
            "job_size": len(names),
        }  # fmt: skip
        producer.produce(
            frond.env["FROND_TOPIC_PREFIX"] + "frond.uploaded.v1", json.dumps(value).encode()
        )
    assert producer.flush(30) == 0
    assert (await completed(frond.env, "odd-topic"))["outcome"] == "completed"
    assert (await shown(store, "odd-topic"))[0] == sorted(names)
    scripts = [n for n in NAMES if "/" not in n and "\n" not in n and len(n) < 250]
    for name in scripts:
        await store.put(f"flight/{name}", data)
    async with httpx.AsyncClient(
        base_url=frond.url("ingest"), headers={"Authorization": "Bearer test-key"}, timeout=120
    ) as http:
        wish = {"job_id": "odd-prefix", "s3_url": store.uri("flight/")}
        (await http.post("/start-job", json=wish)).raise_for_status()
    assert (await completed(frond.env, "odd-prefix"))["outcome"] == "completed"
    assert (await shown(store, "odd-prefix"))[0] == sorted(scripts)
