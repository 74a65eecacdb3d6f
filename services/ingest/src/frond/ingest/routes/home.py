"""GET /: a page for people, or the service's links for programs. GET /docs: the interface, for people.

Both pages are whole: a private network has no CDN, and who runs a script here can read the key that the
tab keeps.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import re
from importlib.resources import files

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse

from frond.ingest import views

router = APIRouter(tags=["operations"])


@router.get(
    "/", summary="A page that shows jobs live; links with Accept: application/json",
    response_class=HTMLResponse,
)  # fmt: skip
async def home(request: Request) -> Response:
    accept = request.headers.get("accept", "")
    headers = {"Vary": "Accept"}
    if "application/json" in accept and "text/html" not in accept:
        here = views.base(request)
        links = [
            views.Link(rel="self", href=f"{here}/"),
            views.Link(rel="service-desc", href=f"{here}/openapi.json"),
            views.Link(rel="service-doc", href=f"{here}/docs", type="text/html"),
            views.Link(rel="jobs", href=f"{here}/jobs"),
            views.Link(rel="models", href=f"{here}/models"),
        ]
        body = {"name": "frond", "links": [link.model_dump(exclude_none=True) for link in links]}
        return JSONResponse(body, headers=headers)
    page, policy = _page("index.html")
    return HTMLResponse(page, headers={**headers, "Content-Security-Policy": policy})


@router.get("/docs", include_in_schema=False)
async def docs() -> Response:
    page, policy = _page("docs.html")
    return HTMLResponse(page, headers={"Content-Security-Policy": policy})


@functools.cache
def _page(name: str) -> tuple[str, str]:
    """A page, and the policy by which nothing but its own script and style counts, and nobody frames it."""
    page = files("frond.ingest").joinpath(f"page/{name}").read_text(encoding="utf-8")
    own = {tag: _hash(re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)[0])
           for tag in ("script", "style")}  # fmt: skip
    return page, (
        f"default-src 'none'; style-src {own['style']}; script-src {own['script']}; "
        "connect-src 'self'; img-src 'self' blob: data:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
