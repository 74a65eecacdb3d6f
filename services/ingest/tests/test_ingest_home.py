"""The pages for people: whole in themselves, and shut to what is not theirs."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess
from collections.abc import AsyncIterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import httpx
import pytest

from frond.ingest.app import make_app
from frond.ingest.context import Ingest


@pytest.fixture
async def anyone(alone: Ingest) -> AsyncIterator[httpx.AsyncClient]:
    """A client without a key."""
    transport = httpx.ASGITransport(make_app(alone))
    async with httpx.AsyncClient(transport=transport, base_url="http://frond") as client:
        yield client


@pytest.mark.parametrize("path", ["/", "/docs"])
async def test_a_page_runs_nothing_but_its_own_script(anyone: httpx.AsyncClient, path: str) -> None:
    """Whoever runs a script here can read the key. Nothing is loaded from elsewhere, nothing is set as
    HTML, the policy names the page's own script and style by hash and nothing else, and no page frames
    it."""
    answer = await anyone.get(path)
    page = answer.text
    policy = dict(
        part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";")
    )
    for tag in ("script", "style"):
        (own,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(own.encode()).digest()).decode()
        assert policy[f"{tag}-src"] == f"'sha256-{digest}'"
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert policy["connect-src"] == "'self'"
    for foreign in ("http://", "https://", "//cdn", " src=", " on", "innerHTML", "style="):
        assert not re.search(rf"<[^>]*{re.escape(foreign)}", page), foreign
    assert "innerHTML" not in page and "insertAdjacentHTML" not in page


async def test_a_page_works_behind_a_path(anyone: httpx.AsyncClient) -> None:
    """A proxy may have it at /frond/docs: what a page asks for and links to stands beside it."""
    for path in ("/", "/docs"):
        page = (await anyone.get(path)).text
        asked = re.findall(r"""(?:fetch|ask)\(["`']([^"`']*)|href="([^"]*)""", page)
        assert asked and not [a or b for a, b in asked if (a or b).startswith(("/", "http"))]


async def test_a_link_sets_no_key(anyone: httpx.AsyncClient) -> None:
    """Else whoever sends a link has somebody work, and upload, with a key that is not theirs."""
    page = (await anyone.get("/")).text
    assert "location.hash" not in page and page.count('setItem("frond-key"') == 1


async def test_no_page_of_a_cdn_is_left(anyone: httpx.AsyncClient) -> None:
    """FastAPI's own documentation pages load scripts from elsewhere."""
    key = {"Authorization": "Bearer test-key"}
    for path in ("/redoc", "/docs/oauth2-redirect"):
        assert (await anyone.get(path)).status_code == 401
        assert (await anyone.get(path, headers=key)).status_code == 404


def shown(
    answers: dict[str, tuple[int, object]], *clicks: str, key: str | None = "k"
) -> dict[str, Any]:
    """What the page at / shows over these answers, by path, after clicks on what has these ids."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("needs node")
    told = {
        path: {"status": status, "text": body if isinstance(body, str) else json.dumps(body)}
        for path, (status, body) in answers.items()
    }
    page = files("frond.ingest").joinpath("page/index.html").read_text(encoding="utf-8")
    asked = json.dumps({"page": page, "answers": told, "key": key, "clicks": clicks})
    done = subprocess.run(
        [node, str(Path(__file__).with_name("page.js"))], input=asked, capture_output=True,
        text=True, timeout=60, check=True,
    )  # fmt: skip
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def job(n: int, **more: object) -> dict[str, object]:
    counts = {"expected": 300, "received": 300, "running": 0, "completed": 60, "failed": 240}
    return {
        "job_id": f"job-{n}", "status": "successful", "outcome": None, "progress": 100,
        "message": "Done.", "images": counts, "windows": {"done": 1, "total": 1, "skipped": 0},
        "detections": {}, "model": None, "created": "2026-01-01T00:00:00Z", "artifacts": [],
        "failures": [], **more,
    }  # fmt: skip


def test_the_page_says_that_there_are_more_jobs() -> None:
    """Beyond the newest, a button; beyond what one request may ask for, it follows the cursor."""
    first = {"jobs": [job(n) for n in range(50)], "next_cursor": "c&1"}
    second = {"jobs": [job(n) for n in range(60)], "next_cursor": None}
    answers = {"jobs?limit=50": (200, first), "jobs?limit=100": (200, second)}
    newest = shown(answers)
    assert "newest 50" in newest["more"] and "job-59" not in newest["text"]
    every = shown(answers, "more")
    assert every["more"] == "" and "job-59" in every["text"]
    short = {"jobs": [job(n) for n in range(30)], "next_cursor": "c&1"}
    rest = {"jobs": [job(n) for n in range(30, 50)], "next_cursor": None}
    both = shown({"jobs?limit=50": (200, short), "jobs?limit=20&cursor=c%261": (200, rest)})
    assert "job-49" in both["text"] and len(both["asked"]) == 2


def test_the_page_says_that_more_images_failed() -> None:
    """A job's document has a hundred of them."""
    failures = [{"name": f"{n}.tif", "detail": "x", "reason": "truncated"} for n in range(100)]
    answers = {"jobs?limit=50": (200, {"jobs": [job(1)], "next_cursor": None})}
    all_told = shown({**answers, "jobs/job-1": (200, job(1, failures=failures))}, "job-1")
    assert "100 of 240" in all_told["text"] and "job-1/images?status=failed" in all_told["text"]
    away = shown({**answers, "jobs/job-1": (502, "<html>")}, "job-1")
    assert "502" in away["text"]


@pytest.mark.parametrize(
    ("answer", "told", "form"),
    [
        ((502, "<html>Bad gateway"), "502", False), ((200, "<html>Log in"), "200", False),
        ((503, {"detail": "The store is away.", "reason": "unavailable"}), "store is away", False),
        ((401, {"detail": "Not known here.", "reason": "unauthorized"}), "Not known here.", True),
        ((403, {"detail": "This needs 'read'.", "reason": "forbidden"}), "needs 'read'", True),
    ],
)  # fmt: skip
def test_the_page_tells_why_it_shows_nothing(
    answer: tuple[int, object], told: str, form: bool
) -> None:
    """Whatever answers in the service's place; a key that may not read can be replaced like one that
    is not known."""
    found = shown({"jobs?limit=50": answer})
    assert told in found["message"] and found["form"] is form


def test_the_page_asks_for_a_key_and_waits_for_the_service() -> None:
    unknown = {"jobs?limit=50": (401, {"detail": "Send a key.", "reason": "unauthorized"})}
    asking = shown(unknown, key=None)
    assert asking["form"] and "A key is needed" in asking["message"] and not asking["bad"]
    assert "does not answer" in shown({})["message"]
