"""results: what a job gave, listed or fetched."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING, Annotated, Any

import typer

from frond.client.cli import show
from frond.client.errors import FrondClientError

if TYPE_CHECKING:
    from frond.client import Client

_WILD = frozenset("*?")


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command()(results)


def results(
    job_id: Annotated[str, typer.Argument(help="The job's id.")],
    names: Annotated[
        list[str] | None,
        typer.Argument(
            help="Which to fetch, such as coco.json, images/north.tif/stac.json or 'images/*/classes.tif' "
            "(of a segmentation)."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Fetch into this folder: NAMES, or all of the job's own where none is named."
        ),
    ] = None,
    timings: Annotated[
        bool, typer.Option("--timings", help="Where the time went, by stage.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """List a job's results, or fetch them."""
    from frond.client import Client

    with Client() as client:
        figures = client.status(job_id)
        is_fetched = bool(names) or out is not None
        if is_fetched:
            found = fetch(client, job_id, names or [], out or Path(), quiet=json)
        else:
            found = client.results(job_id)
    if json:
        show.as_json({"results": found, "timings": figures["timings"]} if timings else found)
        return
    if timings and figures["timings"] is None and figures.get("outcome"):
        show.line(
            f"Job {job_id} has no timings: none were measured, or its end was worked out from what is stored."
        )
    elif timings and figures["timings"] is None:
        show.line(f"Job {job_id} has no timings yet: {figures['message']}")
    elif timings:
        show.timings(figures)
    if timings or is_fetched:
        return
    if not found:
        show.line(f"Job {job_id} has no results yet: {figures['message']}")
        return
    rows = [(r["name"], show.size(r["size"]), r["media_type"], r["sha256"][:16]) for r in found]
    show.table(["name", "size", "type", "sha256"], rows, right="size")
    typer.echo(f"Fetch them:  frond results {job_id} --out results/")
    if figures.get("shadow"):
        typer.echo(f"What its shadow found beside it:  frond models compare {job_id}")


def fetch(
    client: Client, job_id: str, names: Sequence[str], folder: Path, *, quiet: bool = False
) -> list[dict[str, Any]]:
    """Fetch results by name, or all of the job's own, and say so; one of these that is there already is
    kept.

    ``images/*/classes.tif`` is that file of each completed image whose name fits.

    Returns each file, as the service lists it or with ``name``, ``size`` and ``sha256``, and with the
    ``path`` that it has here.
    """
    from frond.client.transfer import sha256_of

    listed = {r["name"]: r for r in client.results(job_id)}
    if not listed and not names:
        raise FrondClientError(f"Job {job_id} has no results yet. Follow it: frond watch {job_id}")
    fetched = []
    for name, path in _each(client, job_id, names or list(listed)):
        known = listed.get(name, {}).get("sha256")
        target = folder / path
        if known is None or not target.is_file() or sha256_of(target) != known:
            client.download(job_id, name, target, sha256=known)
        size = target.stat().st_size
        if not quiet:
            show.line(f"{target}  {show.size(size)}")
        row = listed.get(name) or {"name": name, "size": size, "sha256": sha256_of(target)}
        fetched.append({**row, "path": str(target)})
    return fetched


def _each(client: Client, job_id: str, names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Results, and the path of each below the folder that they are fetched into."""
    for name in names:
        pattern, _, file = name.removeprefix("images/").rpartition("/")
        is_pattern = name.startswith("images/") and bool(_WILD & set(pattern))
        if not _stays_below(file if is_pattern else name):
            raise FrondClientError(f"{name} is no result's name.")
        if _WILD & set(file if is_pattern else name):
            raise FrondClientError(
                f"In {name}, a pattern may stand for an image's name alone: images/*/classes.tif."
            )
        if not is_pattern:
            yield name, name
            continue
        before, any_fits = "", False
        for image in client.images(job_id, "completed"):
            called = image["name"]
            # brackets are part of many a name
            if not fnmatchcase(called, pattern.replace("[", "[[]")):
                continue
            any_fits = True
            # images come by name: a second one of a name has its id for one
            place = called if called != before and _stays_below(called) else image["image_id"]
            before = called
            yield f"images/{image['image_id']}/{file}", f"images/{place}/{file}"
        if not any_fits:
            raise FrondClientError(f"No completed image of job {job_id} has a name like {pattern}.")


def _stays_below(path: str) -> bool:
    """Whether it is a path below the folder that it is put into, on any system."""
    return bool(path) and not (
        {"..", "."} & set(PureWindowsPath(path).parts) or PureWindowsPath(path).anchor
    )
