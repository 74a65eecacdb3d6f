"""upload, status, watch, jobs, cancel, retry, delete, predict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer

from frond.client.cli import show
from frond.contracts.reasons import Reason

if TYPE_CHECKING:
    from frond.client import Client

_MAY_NOT: Final = 403
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
JobId = Annotated[str, typer.Argument(help="The job's id.")]
Out = Annotated[Path | None, typer.Option(help="Fetch the results into this folder at the end.")]


class Standing(StrEnum):
    """The words that the list has. No Literal: versions of typer that are in use know none."""

    ACCEPTED = "accepted"
    RUNNING = "running"
    SUCCESSFUL = "successful"
    COMPLETED = "completed"
    COMPLETED_WITH_ERRORS = "completed_with_errors"
    FAILED = "failed"
    DISMISSED = "dismissed"


def register(app: typer.Typer) -> None:
    """Add these commands."""
    for command in (upload, status, watch, jobs, predict, cancel, retry, delete):
        app.command()(command)


def upload(
    files: Annotated[list[Path], typer.Argument(help="GeoTIFF, PNG or JPEG.")],
    job_id: Annotated[
        str | None, typer.Option(help="Its name; an interrupted upload goes on under it.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="name, name@alias or name@digest; the default model else.")
    ] = None,
    score: Annotated[
        float | None, typer.Option(min=0, max=1, help="Keep detections from this score up.")
    ] = None,
    webhook: Annotated[str | None, typer.Option(help="URL to call when it has ended.")] = None,
    email: Annotated[str | None, typer.Option(help="Whom to write to when it has ended.")] = None,
    shadow: Annotated[
        str | None,
        typer.Option(
            help="A version to run beside the model on a share of the windows, or none; else the "
            "model's standing one."
        ),
    ] = None,
    shadow_share: Annotated[
        float | None, typer.Option(min=0.0001, max=1, help="Of the windows; with --shadow.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Follow it until it has ended.")] = False,
    out: Out = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="With --wait: exit code 1 if any image failed.")
    ] = False,
    json: Json = False,
) -> None:
    """Upload images and start a job with them."""
    from frond.client import Client

    beside = _shadow(shadow, shadow_share)
    figures: dict[str, Any] = {}
    begun: list[str] = []

    def began(job: str) -> None:
        begun.append(job)
        _said(job, err=json)

    with Client() as client:
        with (
            show.left_behind(lambda: _left_open(begun, figures)),
            show.uploading(quiet=json) as progress,
        ):
            job = client.upload(
                files, job_id, model=model, thresholds=None if score is None else {"score": score},
                webhook_url=webhook, email=email, shadow=beside, progress=progress,
                began=began, sealed=figures.update,
            )  # fmt: skip
        if wait or out is not None:
            figures = show.following(client, job, quiet=json)
        if out is not None:
            from frond.client.cli.results import fetch

            fetch(client, job, [], out, quiet=json)
        if json:
            show.as_json(figures)
        elif wait or out is not None:
            show.ended(client, figures)
        else:
            typer.echo(f"Follow it:  frond watch {job}")
    _exit(figures, strict)


def _shadow(model: str | None, share: float | None) -> dict[str, Any] | Literal["none"] | None:
    if model is None or model == "none":
        if share is not None:
            raise typer.BadParameter(
                "it is of a version: name one with --shadow.", param_hint="--shadow-share"
            )
        return None if model is None else "none"
    return {"model": model} | ({} if share is None else {"share": share})


def _left_open(begun: Sequence[str], sealed: Mapping[str, Any]) -> str:
    """What an interrupted upload leaves behind; nothing before its job was made."""
    if not begun:
        return ""
    job = begun[0]
    if sealed:
        return show.goes_on(job)
    return (
        f"Job {job} is open: the same command with --job-id {job} goes on, "
        f"`frond cancel {job}` ends it."
    )


def _said(job_id: str, *, err: bool) -> None:
    typer.secho(f"job {job_id}", bold=True, err=err)


def _exit(figures: dict[str, Any], strict: bool = False) -> None:
    bad = figures["status"] in ("failed", "dismissed")
    # a key that may submit and not read is told no figures
    if bad or (strict and "images" in figures and figures["images"]["failed"]):
        raise typer.Exit(1)


def status(job_id: JobId, json: Json = False) -> None:
    """Where a job stands."""
    from frond.client import Client

    with Client() as client:
        figures = client.status(job_id)
        if json:
            show.as_json(figures)
        else:
            show.ended(client, figures)


def watch(job_id: JobId, json: Json = False) -> None:
    """Follow a job until it has ended; with --json, one event a line."""
    from frond.client import Client

    with Client() as client:
        if json:
            import sys
            from json import dumps

            from frond.client.watching import within

            with show.left_behind(lambda: show.goes_on(job_id)):
                for event in within(client.watch(job_id), job_id, None):
                    line = {"event": event.type, "id": event.id, **event.data}
                    sys.stdout.write(dumps(line, ensure_ascii=False) + "\n")
                    sys.stdout.flush()
            _exit(client.status(job_id))
            return
        figures = show.following(client, job_id)
        show.ended(client, figures)
    _exit(figures)


def jobs(
    status: Annotated[
        Standing | None,
        typer.Option(help="As the list has it; successful is completed, with errors or without."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, the newest first.")] = 20,
    json: Json = False,
) -> None:
    """List jobs, the newest first."""
    from frond.client import Client

    with Client() as client:
        found = _standing(client, status, limit)
    if json:
        show.as_json(found)
        return
    if not found:
        typer.echo("There are no jobs.")
        return
    rows = [
        (
            j["job_id"], show.standing(j), f"{j['progress']:.0f} %",
            f"{j['images']['completed'] + j['images']['failed']}/{show.expected(j['images'])}",
            j["images"]["failed"], sum(j["detections"].values()), show.moment(j["created"]),
        )
        for j in found
    ]  # fmt: skip
    show.table(
        ["job", "status", "done", "images", "failed", "detections", "created"], rows,
        right="done images failed detections",
    )  # fmt: skip


def _standing(client: Client, word: Standing | None, limit: int) -> list[dict[str, Any]]:
    """The newest jobs that stand so; None: all."""
    if word not in (Standing.COMPLETED, Standing.COMPLETED_WITH_ERRORS):
        return client.jobs(word, limit)
    # outcomes of one status, and the service lists by status
    fitting = (j for j in client.each_job(Standing.SUCCESSFUL) if show.standing(j) == word)
    return list(islice(fitting, limit))


def predict(
    file: Annotated[Path, typer.Argument(help="GeoTIFF, PNG, JPEG or npy.")],
    model: Annotated[str | None, typer.Option(help="name, name@alias or name@digest.")] = None,
    score: Annotated[float | None, typer.Option(min=0, max=1)] = None,
    gsd: Annotated[
        float | None, typer.Option(help="Metres a pixel, in place of what the image says.")
    ] = None,
    json: Json = False,
) -> None:
    """Detections in one image, at once, without a job."""
    from frond.client import Client

    with Client() as client:
        found = client.predict(file, model=model, score=score, gsd_m=gsd)
    if json:
        show.as_json(found)
        return
    rows = []
    for d in found["detections"]:
        place = d.get("lonlat")
        x, y, w, h = d["bbox"]
        rows.append(
            (
                d["class"], f"{d['score']:.3f}", f"{x:.1f}", f"{y:.1f}", f"{w:.1f}", f"{h:.1f}",
                f"{place[0]:.7f}, {place[1]:.7f}" if place else "",
            )
        )  # fmt: skip
    show.table(
        ["class", "score", "x", "y", "width", "height", "lon, lat"], rows,
        right="score x y width height",
    )  # fmt: skip
    model_name = found["model"]["name"]
    typer.echo(f"{len(rows)} detections, {found['windows']} windows, {model_name}")
    for note in found.get("notes", ()):
        show.line(f"note: {note}")


def cancel(job_id: JobId) -> None:
    """Stop a job; it ends as dismissed."""
    from frond.client import Client

    with Client() as client:
        client.cancel(job_id)
    typer.echo(f"Job {job_id} is being stopped.")


def retry(
    job_id: JobId,
    reason: Annotated[
        list[Reason] | None,
        typer.Option(
            metavar="CODE",
            help="Only what failed for this reason code; may be given several times.",
        ),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Follow it until it has ended.")] = False,
    json: Json = False,
) -> None:
    """Run the failed images of an ended job again, as a job of their own."""
    from frond.client import Client

    with Client() as client:
        figures = client.retry(job_id, reason or [])
        new_id = figures["job_id"]
        if wait:
            _said(new_id, err=json)
            figures = show.following(client, new_id, quiet=json)
        if json:
            show.as_json(figures)
        elif wait:
            show.ended(client, figures)
        else:
            # a key that may submit and not read is not told how many
            count = f"{figures['images']['expected']} images" if "images" in figures else "Images"
            typer.echo(f"{count} of job {job_id} run again.")
            typer.echo(f"Follow it:  frond watch {new_id}")
    if wait:
        _exit(figures)


def delete(
    job_id: JobId,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Stop a job if it runs, and delete its images and results."""
    from frond.client import Client

    with Client() as client:
        if not yes:
            asked = f"Delete job {job_id} with {_images_of(client, job_id)} and all results?"
            typer.confirm(asked, abort=True)
        client.delete(job_id)
    typer.echo(f"Job {job_id} is deleted.")


def _images_of(client: Client, job_id: str) -> str:
    """How many images go with a job. Raises FrondClientError where there is no such job."""
    from frond.client.errors import FrondClientError

    try:
        count = client.status(job_id)["images"]["received"]
    except FrondClientError as e:
        # to delete takes another scope than to read
        if e.status != _MAY_NOT:
            raise
        return "all of its images"
    return f"its {count} images" if count != 1 else "its one image"
