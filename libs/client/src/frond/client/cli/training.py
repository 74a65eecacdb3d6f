"""training: start, list, show, cancel."""

from collections.abc import Iterator
from typing import Annotated, Any

import typer

from frond.client.cli import show
from frond.contracts.visible import visible

app = typer.Typer(
    no_args_is_help=True,
    help="Training runs: asked for here, done by a training worker (needs a key with the scope "
    "admin).",
)
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
Wait = Annotated[bool, typer.Option("--wait", help="Follow it until it has ended.")]
RunId = Annotated[str, typer.Argument(metavar="ID", help="As `frond training list` shows it.")]
_COLOURS = {"succeeded": "green", "failed": "red", "cancelled": "yellow"}


@app.command()
def start(
    model: Annotated[str, typer.Argument(metavar="NAME", help="The model that gets a version.")],
    recipe: Annotated[
        str,
        typer.Option(help="palm or landcover, or one of the worker's configs: palm-NAME."),
    ],
    minutes: Annotated[float | None, typer.Option(help="End by then.")] = None,
    steps: Annotated[int | None, typer.Option(help="As many steps.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of all that is random.")] = None,
    why: Annotated[str, typer.Option(help="For whoever reads the list.")] = "",
    alias: Annotated[
        str | None,
        typer.Option(help="To point at the new version; never production. Left out, staging."),
    ] = None,
    wait: Wait = False,
    json: Json = False,
) -> None:
    """Ask for a model to be trained. What the options leave out, the recipe's config says."""
    from frond.client import Client

    with Client() as client:
        run = client.training.start(
            model, recipe, minutes=minutes, steps=steps, seed=seed, why=why, alias=alias
        )
        if wait:
            if not json:
                typer.secho(f"training {run['training_id']}", bold=True, err=True)
            run = _followed(client.training.watch(run["training_id"]), quiet=json)
    if json:
        show.as_json(run)
    elif wait:
        _tell(run)
    else:
        typer.echo(f"Follow it:  frond training show {run['training_id']} --wait")
    if wait:
        _exit(run)


@app.command("list")
def list_runs(
    limit: Annotated[int, typer.Option(min=1, help="At most so many, the newest first.")] = 20,
    json: Json = False,
) -> None:
    """Training runs, the newest first: people's, and drift's."""
    from frond.client import Client

    with Client() as client:
        found = client.training.list(limit)
    if json:
        show.as_json(found)
        return
    if not found:
        typer.echo("There are no training runs.")
        return
    rows = [
        (
            r["training_id"], r["model"], r["recipe"], r["status"], _steps(r),
            (r["result"] or {}).get("digest", "")[:12], show.moment(r["requested"]),
            r["requested_by"], r["why"],
        )
        for r in found
    ]  # fmt: skip
    show.table(
        ["training", "model", "recipe", "status", "steps", "version", "asked for", "by", "why"],
        rows, right="steps",
    )  # fmt: skip


@app.command("show")
def show_run(run_id: RunId, wait: Wait = False, json: Json = False) -> None:
    """Where a run stands. With --wait, exit code 1 if it fails or is cancelled."""
    from frond.client import Client

    with Client() as client:
        run = (
            _followed(client.training.watch(run_id), quiet=json)
            if wait
            else client.training.show(run_id)
        )
    if json:
        show.as_json(run)
    else:
        _tell(run)
    if wait:
        _exit(run)


@app.command()
def cancel(run_id: RunId) -> None:
    """Stop a run: one that waits at once, one that runs within seconds."""
    from frond.client import Client

    with Client() as client:
        run = client.training.cancel(run_id)
    done = "is cancelled" if run["status"] == "cancelled" else "is being stopped"
    show.line(f"Training {run['training_id']} {done}.")


def _exit(run: dict[str, Any]) -> None:
    if run["status"] != "succeeded":
        raise typer.Exit(1)


def _steps(run: dict[str, Any]) -> str:
    return "" if run["step"] is None else f"{run['step']}/{run['steps'] or '?'}"


def _metrics(run: dict[str, Any]) -> str:
    return ", ".join(f"{k} {v:.4g}" for k, v in sorted(run["metrics"].items()))


def _tell(run: dict[str, Any]) -> None:
    from rich.text import Text

    out = show.console()
    result = run["result"]
    version = f"{result['version']} {result['digest']}  @{run['alias']}" if result else "-"
    given = ", ".join(f"{k} {v}" for k, v in run["overrides"].items() if v is not None)
    who = f"{run['requested_by']}, {show.moment(run['requested'])}"
    rows = [
        ("training", run["training_id"]), ("model", run["model"]),
        ("recipe", f"{run['recipe']} ({given})" if given else run["recipe"]),
        ("status", run["status"]), ("steps", _steps(run) or "-"), ("metrics", _metrics(run) or "-"),
        ("version", version), ("asked for", who), ("why", run["why"] or "-"),
        ("started", show.moment(run["started"]) or "-"), ("ended", show.moment(run["ended"]) or "-"),
    ]  # fmt: skip
    if run["cancelled_by"]:
        rows.append(("cancelled", f"by {run['cancelled_by']}"))
    if run["detail"]:
        rows.append(("failed", run["detail"]))
    for name, value in rows:
        style = _COLOURS.get(run["status"], "cyan") if name == "status" else ""
        out.print(Text.assemble((f"{name:>10}  ", "dim"), (visible(str(value)), style)))
    if run["status"] == "succeeded":
        typer.echo(
            f"No job uses it yet:  frond models promote {run['model']} {result['digest'][:12]}"
        )


def _followed(runs: Iterator[dict[str, Any]], *, quiet: bool) -> dict[str, Any]:
    """Follow a run with a live bar until it has ended; lines where there is no terminal."""
    out = show.console(stderr=True)
    run: dict[str, Any] = {}
    if quiet or not out.is_terminal:
        said = ""
        for run in runs:
            tenth = 10 * (run["step"] or 0) // max(run["steps"] or 1, 1)
            told = f"{run['status']} {tenth}"
            if told != said and not quiet:
                said = told
                out.print(f"{run['status']} {_steps(run)} {_metrics(run)}".rstrip(), markup=False)
        return run
    from rich import progress as bars

    with bars.Progress(
        bars.TextColumn("{task.description:>9}"), bars.BarColumn(), bars.MofNCompleteColumn(),
        bars.TextColumn("{task.fields[told]}", markup=False), bars.TimeElapsedColumn(),
        bars.TimeRemainingColumn(), console=out,
    ) as shown:  # fmt: skip
        task = shown.add_task("queued", total=None, told="")
        for run in runs:
            shown.update(
                task, description=run["status"], total=run["steps"], completed=run["step"] or 0,
                told=visible(_metrics(run)),
            )  # fmt: skip
    return run
