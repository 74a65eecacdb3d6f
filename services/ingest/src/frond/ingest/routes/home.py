"""GET /: a page for people, or the service's links for programs."""

from __future__ import annotations

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
    page = files("frond.ingest").joinpath("page/index.html").read_text(encoding="utf-8")
    policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src 'self' blob: data:; base-uri 'none'; form-action 'none'"
    return HTMLResponse(page, headers={**headers, "Content-Security-Policy": policy})
