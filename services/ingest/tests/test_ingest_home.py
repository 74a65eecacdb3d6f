"""The pages for people: whole in themselves, and shut to what is not theirs."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import AsyncIterator

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
