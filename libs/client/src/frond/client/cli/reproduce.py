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
    from frond.client.reproducing import begin, compare, drop, sent_again

    def began(again: str) -> None:
        typer.secho(f"job {again} runs {job_id} again", bold=True, err=True)

    with Client() as client:
        old = client.summary(job_id)
        begun = begin(client, old, new_id, began)
        again = begun.job_id
        show.following(client, again, quiet=json)
        new = client.summary(again)
        sent = len(sent_again(old))
        found = list(_counted(compare(client, old, new), sent, quiet=json))
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
            "not_sent": len(old["images"]) - sent,
            "software": [old["generator"], new["generator"]],
            "differences": [{"image": i, "file": f, "what": w} for i, f, w in differ],
        })  # fmt: skip
    else:
        if not same:
            show.line(f"{old['generator']} made the first, {new['generator']} the second.")
        if sent < len(old["images"]):
            show.line(f"{len(old['images']) - sent} images had no object, and were not sent.")
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
