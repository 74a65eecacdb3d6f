"""reproduce: a job run again, and what differs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated, Final

import typer

from frond.client.cli import show

if TYPE_CHECKING:
    from frond.client.reproducing import Compared

_TOLD: Final = 100


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command()(reproduce)


def reproduce(
    job_id: Annotated[str, typer.Argument(help="The job's id; it has ended.")],
    new_id: Annotated[
        str | None,
        typer.Option("--as", help="The new job's id; an interrupted one goes on, and stays."),
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Do not delete the new job.")] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Run a job again, and say which bytes of its results differ. Exit code 1 if any do."""
    # needed at the end: better missed before hours of work than after
    import pyarrow.parquet  # noqa: F401

    from frond.client import Client
    from frond.client.reproducing import again_of, begin, compare, drop

    def began(again: str) -> None:
        typer.secho(f"job {again} runs {job_id} again", bold=True, err=True)

    with Client() as client:
        old = client.summary(job_id)
        chosen = again_of(client, old)
        begun = begin(client, old, chosen.images, new_id, began)
        again = begun.job_id
        show.following(client, again, quiet=json)
        new = client.summary(again)
        compared = compare(client, old, chosen.images, new)
        found = list(_counted(compared, len(chosen.images), quiet=json))
        if begun.is_new and not keep:
            drop(client, again)
    if not begun.is_new and not keep:
        typer.echo(f"Job {again} was there before, and stays: frond delete {again}", err=True)
    differ = [(c.image, file, what) for c in found for file, what in c.differences]
    files = sum(c.files for c in found)
    same = old["generator"] == new["generator"]
    if json:
        show.as_json({
            "job_id": job_id, "again": again, "images": len(found), "files": files,
            "not_sent": chosen.no_part + chosen.own_way,
            "software": [old["generator"], new["generator"]],
            "differences": [{"image": i, "file": f, "what": w} for i, f, w in differ],
        })  # fmt: skip
    else:
        if not same:
            show.line(f"{old['generator']} made the first, {new['generator']} the second.")
        if chosen.no_part:
            show.line(
                f"{chosen.no_part} images were not sent: there was no object to read, or they asked for "
                "another model or tenant than the job's."
            )
        if chosen.own_way:
            show.line(
                f"{chosen.own_way} images were not sent: the ingest topic gave them thresholds of their "
                "own, or names that are too long for REST."
            )
        if differ:
            show.table(["image", "file", "what"], differ[:_TOLD])
        more = f", of which {_TOLD} are shown" if len(differ) > _TOLD else ""
        show.line(
            f"{len(found)} images, {files} files: {len(differ)} differences{more}."
            if differ else f"{len(found)} images, {files} files: every byte is the same, "
            "and of Parquet every row."
        )  # fmt: skip
    if differ:
        raise typer.Exit(1)


def _counted(compared: Iterable[Compared], total: int, *, quiet: bool) -> Iterator[Compared]:
    from rich.progress import track

    yield from track(
        compared, "comparing", total, console=show.console(stderr=True), transient=True,
        disable=quiet,
    )  # fmt: skip
