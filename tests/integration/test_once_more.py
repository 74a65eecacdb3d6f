"""Once more: failed images of a job by ``frond retry``, notices by ``frond webhooks replay``."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from typing import Any

import httpx
import pytest

from frond.contracts import keys
from frond.store import ObjectStore
from support.hooks import Hooks, hooks
from support.kafka import completed
from support.planted import planted

pytestmark = [pytest.mark.stack, pytest.mark.slow]


def api(frond: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        base_url=frond.url("ingest"), headers={"Authorization": "Bearer test-key"}, timeout=60
    )


def command(frond: Any, *args: str) -> subprocess.CompletedProcess[str]:
    """The installed ``frond`` command, as an operator or a user calls it."""
    env = {**os.environ, **frond.env, "FROND_API_URL": frond.url("ingest")}
    return subprocess.run(
        [sys.executable, "-c", "from frond.client.cli import main; main()", *args],
        env=env, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


async def two_of_three_failed(
    frond: Any, store: ObjectStore, job: str, hook: str | None = None
) -> dict[str, Any]:
    """A job that has ended: one image is good, one is text, one is not there yet."""
    await store.put(f"{job}/good.tif", planted("good.tif", 1).data)
    await store.put(f"{job}/text.tif", b"this is no raster at all")
    async with api(frond) as http:
        body = {"job_id": job, "score": 0.4, "size": 3, "webhook_url": hook}
        (await http.post("/jobs", json=body)).raise_for_status()
        names = ["good.tif", "text.tif", "late.tif"]
        # late.tif has to be there when it is named
        await store.put(f"{job}/late.tif", b"x")
        images = [{"image": store.uri(f"{job}/{n}"), "name": n} for n in names]
        (await http.post(f"/jobs/{job}/images", json={"images": images})).raise_for_status()
    event = await completed(frond.env, job)
    assert event["images"] == {"expected": 3, "completed": 1, "failed": 2}
    return event


async def test_failed_images_run_again_as_a_job_of_their_own(
    frond: Any, store: ObjectStore
) -> None:
    """The ended job keeps its bytes; the new one has the failed images alone, under the same model,
    thresholds and webhook, and says whose it is; asking twice, or at once, begins one."""
    with hooks() as hook:
        await two_of_three_failed(frond, store, "survey", hook.url)
        before = await store.get(keys.job_completed("survey"))
        await store.put("survey/late.tif", planted("late.tif", 2).data)
        async with api(frond) as http:
            key = {"Idempotency-Key": "mine"}
            answers = await asyncio.gather(
                *(http.post("/jobs/survey/retry", headers=h) for h in ({}, {}, key)),
            )
            assert [a.status_code for a in answers] == [201, 201, 201], answers[0].text
            assert {a.json()["job_id"] for a in answers} == {"survey-retry-1"}
            event = await completed(frond.env, "survey-retry-1")
            assert event["images"] == {"expected": 2, "completed": 1, "failed": 1}
            assert event["retry_of"] == "survey"
            assert [f["name"] for f in event["failures"]] == ["text.tif"]
            again = await http.post("/jobs/survey/retry", headers=key)
            assert again.json()["job_id"] == "survey-retry-1"
            assert again.headers["idempotency-replayed"] == "true"
            # of what failed again: numbered on
            third = await http.post("/jobs/survey-retry-1/retry", json={})
            assert third.json()["job_id"] == "survey-retry-2"
            assert (await completed(frond.env, "survey-retry-2"))["images"]["failed"] == 1
        specs = [
            json.loads(await store.get(keys.job_spec(j)))
            for j in ("survey", "survey-retry-1", "survey-retry-2")
        ]
        same = ("model", "thresholds", "webhook_url", "email", "tenant")
        assert all(s[k] == specs[0][k] for s in specs for k in same)
        assert await store.get(keys.job_completed("survey")) == before
        told = [json.loads(hook.posts.get(timeout=200).body)["data"] for _ in range(3)]
        assert {(t["job_id"], t.get("retry_of")) for t in told} == {
            ("survey", None), ("survey-retry-1", "survey"), ("survey-retry-2", "survey-retry-1"),
        }  # fmt: skip


async def test_a_retry_by_reason_and_what_cannot_be_retried(frond: Any, store: ObjectStore) -> None:
    """409 with a sentence: nothing failed so, nothing failed at all, not ended; 404; 422."""
    await two_of_three_failed(frond, store, "flight")
    async with api(frond) as http:
        open_job = await http.post("/jobs", json={"job_id": "open"})
        open_job.raise_for_status()
        for job, body, status, word in (
            ("open", {}, 409, "has not ended"),
            ("flight", {"reasons": ["read-timeout"]}, 409, "not-a-raster"),
            ("flight", {"reasons": ["no-such-code"]}, 422, ""),
            ("nobody", {}, 404, "nobody"),
        ):
            answer = await http.post(f"/jobs/{job}/retry", json=body)
            assert answer.status_code == status, answer.text
            assert word in answer.json()["detail"]
        await http.post("/jobs/open/cancel")
        assert (await completed(frond.env, "open"))["outcome"] == "dismissed"
        assert "was cancelled" in (await http.post("/jobs/open/retry")).json()["detail"]
    await store.put("flight/text.tif", planted("text.tif", 3).data)
    await store.put("flight/late.tif", planted("late.tif", 4).data)
    # as a person does it, and waits
    done = await asyncio.to_thread(
        command, frond, "retry", "flight", "--reason", "not-a-raster", "--wait", "--json"
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["images"]["completed"] >= 1
    done = await asyncio.to_thread(command, frond, "retry", "flight-retry-1")
    assert done.returncode == 2
    assert "No image of job 'flight-retry-1' failed" in done.stderr


async def _took(hook: Hooks) -> Any:
    return await asyncio.to_thread(hook.posts.get, timeout=60)


async def test_notices_are_sent_once_more(frond: Any, store: ObjectStore) -> None:
    """Same webhook-id and body, under a record of its own; the same Idempotency-Key is one round; by
    job, and by the time in which jobs ended; one job's refusal keeps no other from it."""
    with hooks() as hook:
        hook.status = 410
        await two_of_three_failed(frond, store, "away", hook.url)
        first = await _took(hook)
        hook.status = 200
        async with api(frond) as http:
            for _ in range(3):
                answer = await http.post(
                    "/jobs/away/webhooks/replay", headers={"Idempotency-Key": "k"}
                )
                assert answer.status_code == 202, answer.text
            (round_,) = answer.json()["webhooks"]
            assert round_["webhook_id"] == first.headers["webhook-id"]
            second = await _took(hook)
            assert second.body == first.body
            assert second.headers["webhook-id"] == first.headers["webhook-id"]
            await _states(http, "away", ["gave-up", "delivered"])
            assert hook.posts.empty()

            told = await asyncio.to_thread(command, frond, "webhooks", "list", "away", "--json")
            assert [n["round"] for n in json.loads(told.stdout)] == ["", round_["round"]]

            ended = (await http.get("/jobs/away")).json()["finished"]
            await http.post("/jobs", json={"job_id": "still-open", "webhook_url": hook.url})
            assert (await http.post("/jobs/still-open/webhooks/replay")).status_code == 409
        rounds = 1
        for args, sent in (
            (["--since", ended, "--dry-run"], False),
            (["--until", ended], False),
            (["away"], True),
            (["--since", ended], True),
        ):
            done = await asyncio.to_thread(command, frond, "webhooks", "replay", *args)
            assert done.returncode == 0, done.stderr
            assert ("away " in done.stdout) == (sent or "--dry-run" in args), done.stdout
            if sent:
                assert (await _took(hook)).body == first.body
                rounds += 1
                async with api(frond) as http:
                    await _states(http, "away", ["gave-up"] + ["delivered"] * rounds)
        assert hook.posts.empty()
        some = await asyncio.to_thread(command, frond, "webhooks", "replay", "still-open", "away")
        assert some.returncode == 1, some.stderr
        assert "refused" in some.stdout and "is being sent" in some.stdout
        assert (await _took(hook)).body == first.body
        wrong = await asyncio.to_thread(command, frond, "webhooks", "replay")
        assert wrong.returncode == 2


async def _states(http: httpx.AsyncClient, job: str, wanted: list[str]) -> None:
    async with asyncio.timeout(60):
        while True:
            answer = (await http.get(f"/jobs/{job}/webhooks")).json()
            if [n["state"] for n in answer["webhooks"]] == wanted:
                return
            # the store tells nobody when it changes
            await asyncio.sleep(0.1)
