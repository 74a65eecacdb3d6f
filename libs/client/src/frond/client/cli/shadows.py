"""models shadow, and models compare: a version beside production, and what both found."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from frond.client.cli import show

if TYPE_CHECKING:
    from frond.client import Client

Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]


def register(models: typer.Typer) -> None:
    """Add these commands to ``frond models``."""
    models.command("shadow")(shadow)
    models.command("compare")(compare)


def shadow(
    name: Annotated[str, typer.Argument(help="The model's name.")],
    version: Annotated[
        str | None, typer.Argument(help="An alias, a digest, or 8 digits of one.")
    ] = None,
    share: Annotated[
        float, typer.Option(min=0.0001, max=1, help="Of the windows, chosen by hash.")
    ] = 0.1,
    off: Annotated[bool, typer.Option("--off", help="Let none run any more.")] = False,
    why: Annotated[str, typer.Option(help="For its history.")] = "",
    untried: Annotated[
        bool,
        typer.Option("--untried", help="Do not run it here first (for a GPU's or a server's)."),
    ] = False,
) -> None:
    """Let a version run beside production on a share of the windows, its results kept apart.

    Jobs of production that begin from now on take it, unless they say another or none; jobs that
    began keep what they have.
    """
    from frond.client import Client

    if off == (version is not None):
        raise typer.BadParameter("name a version, or say --off.", param_hint="VERSION")
    with Client() as client:
        if version is None:
            client.registry.drop_shadow(name, why=why)
            typer.echo(f"{name} has no shadow now.")
            return
        if not untried:
            _try(client, f"{name}@{version}")
        ref = client.registry.set_shadow(name, version, share=share, why=why)
    typer.echo(
        f"{ref['version']} {ref['digest'][:12]} runs beside {name}@production on {share:.4g} of the "
        "windows of new jobs. When one has ended: frond models compare JOB"
    )


def _try(client: Client, ref: str) -> None:
    import tempfile

    from frond.models.session import ModelSession

    if client.registry.version(ref)["manifest"]["server"] is not None:
        return  # only the installation may be where the server can be asked from
    with tempfile.TemporaryDirectory(prefix="frond-shadow-") as folder:
        client.registry.fetch(ref, Path(folder))
        ModelSession(Path(folder))


def compare(
    job_id: Annotated[str, typer.Argument(help="The job's id.")],
    out: Annotated[
        Path | None, typer.Option(help="GeoJSON of what both, and one alone, have found.")
    ] = None,
    json: Json = False,
) -> None:
    """How far a job's model and its shadow agree on the windows that both saw, by class."""
    from rich.progress import Progress

    from frond.client import Client
    from frond.client.comparing import compare as compared

    with Client() as client, Progress(
        console=show.console(stderr=True), transient=True, disable=json
    ) as bar:  # fmt: skip
        images = client.status(job_id)["images"]["completed"]
        task = bar.add_task("comparing", total=images)
        told = compared(client, job_id, out, lambda done: bar.update(task, completed=done))
    if json:
        show.as_json(told)
        return
    _tell(told)
    if out is not None:
        show.line(f"Written: {out}")


def _tell(told: dict[str, Any]) -> None:
    model, other = told["model"], told["shadow"]["model"]
    show.line(
        f"production {model['name']} {model['version']} ({model['digest'][:12]}), "
        f"shadow {other['name']} {other['version']} ({other['digest'][:12]})"
    )
    state = "" if told["status"] in ("successful", "failed") else f" (the job is {told['status']})"
    show.line(
        f"{told['windows']} windows of {told['images']} images, "
        f"{100 * told['shadow']['share']:.4g} % of them{state}"
    )
    if told["chunks_without"]:
        show.line(
            f"{told['chunks_without']} of {told['chunks']} chunks have no shadow result, because:"
        )
        for one in told["reasons"]:
            show.line(f"  {one['chunks']}: {one['reason']}")
    rows = list(told["classes"].items())
    if told["task"] == "segmentation":
        show.table(
            ["class", "production px", "shadow px", "both px", "IoU"],
            [(name, c["production_pixels"], c["shadow_pixels"], c["both_pixels"], _figure(c["iou"]))
             for name, c in rows],
            right=range(1, 5),
        )  # fmt: skip
        show.line(f"Pixels that agree: {_figure(told['agreement'])} of {told['pixels']}")
    else:
        show.table(
            ["class", "both", "only production", "only shadow", "as another class", "mean IoU",
             "score, shadow − production"],
            [(name, c["both"], c["only_production"], c["only_shadow"], c["other_class"],
              _figure(c["mean_iou"]), _figure(c["mean_score_difference"], sign=True))
             for name, c in rows],
            right=range(1, 7),
        )  # fmt: skip
    if told["confusions"]:
        show.table(
            ["production says", "shadow says", "times"],
            [(c["production"], c["shadow"], c["count"]) for c in told["confusions"][:20]],
            right="times",
        )


def _figure(value: float | None, *, sign: bool = False) -> str:
    if value is None:
        return "–"
    return f"{value:+.4f}" if sign else f"{value:.4f}"
