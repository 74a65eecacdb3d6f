"""drift, and models reference: live windows beside training data."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from frond.client.cli import show
from frond.client.cli.moments import moment_of

if TYPE_CHECKING:
    from frond.contracts.events import DriftObserved
    from frond.drift.history import ModelHistory

Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]


def register(app: typer.Typer, models: typer.Typer) -> None:
    """Add ``frond drift`` and ``frond models reference``."""
    app.command("drift")(drift)
    models.command("reference")(reference)


def drift(
    since: Annotated[
        str, typer.Option(help="30m, 24h, 7d, 2w, or a time as 2026-05-01T12:00; UTC.")
    ] = "7d",
    model: Annotated[
        str | None, typer.Option(help="A model's name, or name@digest; 8 digits do.")
    ] = None,
    out: Annotated[Path, typer.Option(help="The page.")] = Path("drift.html"),
    json: Json = False,
) -> None:
    """How live windows compare with models' training data: a table, and a page of plots.

    Needs FROND_KAFKA_BOOTSTRAP: it reads the topic frond.drift.v1.
    """
    import asyncio

    from frond.client.drifting import read_drift
    from frond.drift.history import History
    from frond.drift.page import FIGURES, page, rows

    now = datetime.now(UTC)
    history = History(since_of(since, now), now)

    def take(event: DriftObserved) -> None:
        if model is None or _is(event, model):
            history.add(event)

    unreadable = asyncio.run(read_drift(history.since, take))
    models = history.models()
    out.write_text(page(history), encoding="utf-8")
    if json:
        show.as_json({
            "since": history.since.isoformat(), "until": now.isoformat(), "page": str(out),
            "unreadable": unreadable, "models": [_facts(m) for m in models],
        })  # fmt: skip
        return
    if not models:
        show.line(f"No period of drift has ended since {history.since:%Y-%m-%d %H:%M} UTC.")
    for one in models:
        ref = one.model
        late, whole = (one.verdict(step).value for step in (one.recent(), one.whole))
        show.line(
            f"{ref.name} {ref.version} ({ref.digest[:12]}): of late {late}, over the whole time "
            f"{whole}; {one.periods} periods"
        )
        show.table(FIGURES, rows(one), right=range(1, len(FIGURES) - 1))
    if unreadable:
        show.line(f"{unreadable} messages on the topic are no events of drift.", err=True)
    show.line(f"Written: {out}")


def reference(
    folder: Annotated[Path, typer.Argument(help="With model.onnx and model.yaml.")],
    images: Annotated[
        list[Path], typer.Option("--images", help="Training rasters, or a folder; repeat it.")
    ],
    share: Annotated[
        float, typer.Option(min=0.0001, max=1, help="Of the windows, how many are run.")
    ] = 1.0,
    json: Json = False,
) -> None:
    """Write into model.yaml what the training data looks like, for drift to be measured against.

    The images are cut into windows and run as for a job; nothing is sent anywhere. The folder
    becomes another version by it: push it afterwards.
    """
    from frond.drift.manifest import write_reference
    from frond.drift.reference import images_in, measure

    found = images_in(images)
    if not found:
        raise typer.BadParameter("there is no raster in it.", param_hint="--images")

    def on_image(done: int, of: int) -> None:
        if not json and done < of and done % max(1, of // 10) == 0:
            show.line(f"{done} of {of} images", err=True)

    told = measure(folder, found, share=share, on_image=on_image)
    kept = write_reference(folder, told.reference)
    made = told.reference
    if json:
        show.as_json({
            "folder": str(folder), "images": made.images, "windows": made.windows,
            "pixels": made.pixels, "found": made.found, "comments_kept": kept,
            "left_out": [{"image": str(p), "why": why} for p, why in told.left_out],
        })  # fmt: skip
        return
    for path, why in told.left_out:
        show.line(f"left out: {path}: {why}", err=True)
    show.line(
        f"{folder / 'model.yaml'}: reference of {made.images} images, {made.windows} windows, "
        f"{made.pixels} pixels of each band, {made.found} scores."
    )
    if not kept:
        show.line("The file was written anew: its comments and the order of its fields are gone.")
    if not made.scores:
        show.line("Nothing was found in these images: scores will not be compared.")
    show.line(f"Next: frond models push {folder}")


def since_of(text: str, now: datetime) -> datetime:
    """A time in the past; UTC.

    Raises:
        typer.BadParameter: it is none.
    """
    moment = moment_of(text, now, "--since")
    if not datetime(1970, 1, 2, tzinfo=UTC) < moment < now:
        raise typer.BadParameter(f"{text!r} does not lie in the past.", param_hint="--since")
    return moment.astimezone(UTC)


def _is(event: DriftObserved, wanted: str) -> bool:
    name, _, digest = wanted.partition("@")
    return event.model.name == name and event.model.digest.startswith(digest)


def _facts(one: ModelHistory) -> dict[str, Any]:
    figures, late = (
        {
            name: part.model_dump(mode="json", exclude={"live", "reference"})
            for name, part in one.judged(step).items()
        }
        for step in (one.whole, one.recent())
    )
    return {
        "model": one.model.model_dump(mode="json"), "periods": one.periods,
        "windows": one.whole.windows, "windows_run": one.whole.run,
        "verdict": one.verdict(one.whole).value, "figures": figures,
        "of_late": {"verdict": one.verdict(one.recent()).value, "figures": late},
    }  # fmt: skip
