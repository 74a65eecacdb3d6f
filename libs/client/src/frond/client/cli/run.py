"""run: a batch out of a YAML file."""

from pathlib import Path
from typing import Annotated

import typer

from frond.client.cli import show


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command()(run)


def run(
    pipeline: Annotated[Path, typer.Argument(help="A YAML file: inputs, model, outputs.")],
    job_id: Annotated[
        str | None, typer.Option(help="Its name; else made from the file and its inputs' bytes.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Run a pipeline file to its end. The same file and inputs give the same bytes.

    Its fields: inputs (globs, from the file's own folder), outputs (a folder), model, version,
    thresholds (score, nms_iou, merge_iou), seed, artifacts, webhook_url, email, job_id.
    """
    from frond.client import Client, pipelines

    spec = pipelines.load(pipeline)
    with Client() as client:
        with show.uploading(quiet=json) as progress:
            job = pipelines.start(client, spec, job_id=job_id, progress=progress)
        figures = show.following(client, job, quiet=json)
        if figures["status"] == "successful":
            from frond.client.cli.results import fetch

            fetched = fetch(client, job, spec.artifacts, spec.outputs, quiet=json)
            pipelines.write_record(spec, figures, fetched)
        if json:
            show.as_json(figures)
        else:
            show.ended(client, figures)
    if figures["status"] != "successful":
        raise typer.Exit(1)
