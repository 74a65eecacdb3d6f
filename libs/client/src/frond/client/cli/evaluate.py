"""evaluate: a model on anybody's labels."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from frond.client.cli import show

if TYPE_CHECKING:
    from frond.evaluation import OnProgress

_PATIENCE_S: Final = 2.0


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command("evaluate")(evaluate)


def evaluate(
    model: Annotated[
        str, typer.Argument(help="A folder (./folder), or name, name@alias, name@digest.")
    ],
    dataset: Annotated[
        Path, typer.Argument(help="Labels in COCO's format: the file, or a folder with one.")
    ],
    images: Annotated[
        Path | None, typer.Option(help="What file names are relative to; else the labels' folder.")
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(help="In place of the model's own score threshold.")
    ] = None,
    iou: Annotated[float, typer.Option(help="From which overlap a find is a label.")] = 0.5,
    edge_band: Annotated[
        float,
        typer.Option(help="Leave out what is this near to an image's edge, in widths of a label."),
    ] = 0.0,
    map_: Annotated[
        list[str] | None,
        typer.Option(
            "--map", metavar="CATEGORY=CLASS", help="Where their names differ; repeat it."
        ),
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="A folder for figures.json, report.md and sweep.png.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """How good a model is on labelled images: AP, F1, counts, IoU, confusion, thresholds.

    Windows are cut, run and merged as for a job; nothing is sent anywhere.
    """
    import tempfile

    from frond.client.cli.modelfolders import folder_of
    from frond.evaluation import Options, as_text, sentences, tables, write
    from frond.evaluation import evaluate as judged

    options = Options(
        score=threshold, iou=iou, edge_band=edge_band, renamed=_renamed(map_ or ()), images=images
    )
    if report is not None:
        _room(report)
    with (
        tempfile.TemporaryDirectory(prefix="frond-evaluate-") as cache,
        _progress(quiet=json) as on_progress,
    ):
        told = judged(folder_of(model, Path(cache)), dataset, options, on_progress=on_progress)
    # shown first: it took long, and the report may still fail
    if json:
        typer.echo(as_text(told), nl=False)
    else:
        for sentence in sentences(told):
            show.line(sentence)
        for title, columns, rows in tables(told):
            typer.secho(f"\n{title}", bold=True)
            # a column's name may hold blanks, and a class may be called like another column
            show.table(columns, rows, right=range(1, len(columns)))
    for path in write(told, report) if report is not None else ():
        if not json:
            show.line(f"Written: {path}")


def _room(report: Path) -> None:
    """Refuse a folder that could not be made or written to, before the work."""
    there = next(p for p in (report, *report.parents) if p.exists())
    if not there.is_dir():
        raise typer.BadParameter(f"{there} is no folder.", param_hint="--report")
    if not os.access(there, os.W_OK | os.X_OK):
        raise typer.BadParameter(f"{there} may not be written to.", param_hint="--report")


def _renamed(pairs: Sequence[str]) -> dict[str, str]:
    found = {}
    for pair in pairs:
        category, sign, name = pair.partition("=")
        if not (category and sign and name):
            raise typer.BadParameter(f"{pair!r} is not CATEGORY=CLASS.", param_hint="--map")
        found[category] = name
    return found


@contextmanager
def _progress(*, quiet: bool) -> Iterator[OnProgress | None]:
    """A bar on stderr once it takes longer than two seconds; none where there is no terminal."""
    import time

    from rich import progress as bars

    out = show.console(stderr=True)
    if quiet or not out.is_terminal:
        yield None
        return
    began = time.monotonic()
    shown = bars.Progress(
        bars.TextColumn("evaluating"), bars.BarColumn(), bars.TextColumn("{task.fields[told]}"),
        bars.TimeRemainingColumn(), console=out, transient=True,
    )  # fmt: skip
    task = shown.add_task("", total=None, told="")

    def update(done: float, images: int) -> None:
        shown.update(task, total=images, completed=done, told=f"{int(done)}/{images} images")
        if time.monotonic() - began > _PATIENCE_S:
            shown.start()

    try:
        yield update
    finally:
        shown.stop()
