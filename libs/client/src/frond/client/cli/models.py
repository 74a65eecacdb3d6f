"""models: list, push, show, promote, rollback; with folders: ``modelfolders``; beside production:
``shadows``."""

from pathlib import Path
from typing import Annotated

import typer

from frond.client.cli import show

app = typer.Typer(
    no_args_is_help=True,
    help="Model folders and their registry. To change it takes a key with the scope admin.",
)
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
Name = Annotated[str, typer.Argument(help="The model's name.")]
Why = Annotated[str, typer.Option(help="For the alias's history.")]


@app.command("list")
def list_models(json: Json = False) -> None:
    """All models, their versions and where their aliases point."""
    from frond.client import Client

    with Client() as client:
        found = client.models()
    if json:
        show.as_json(found)
        return
    rows = []
    for model in found["models"]:
        for digest, version in sorted(model["versions"].items(), key=lambda kv: (kv[1], kv[0])):
            aliases = [a for a, w in sorted(model["aliases"].items()) if w["digest"] == digest]
            if (beside := model.get("shadow")) and beside["digest"] == digest:
                aliases.append(f"shadow {beside['share']:.4g}")
            name = model["name"]
            default = "default" if name == found["default"] and "production" in aliases else ""
            rows.append((name, version, digest[:12], ", ".join(aliases), default))
    show.table(["model", "version", "digest", "aliases", ""], rows)


@app.command()
def push(
    folder: Annotated[Path, typer.Argument(help="With model.yaml, and model.onnx or a server.")],
    alias: Annotated[str, typer.Option(help="Point this alias at it; '' for none.")] = "production",
    why: Why = "",
    untried: Annotated[
        bool,
        typer.Option("--untried", help="Do not run it here first (for a GPU's or a server's)."),
    ] = False,
) -> None:
    """Try a model folder, and store it as a new immutable version."""
    from frond.client import Client

    if not untried:
        from frond.models.session import ModelSession

        # one that cannot run must not become what jobs are given
        ModelSession(folder)
    with Client() as client:
        ref = client.registry.push(folder, alias=alias or None, why=why)
    said = f"{ref['name']} {ref['version']}  {ref['digest']}"
    typer.echo(f"{said}  @{alias}" if alias else said)


@app.command("show")
def show_model(
    ref: Annotated[str, typer.Argument(help="name, name@alias or name@digest.")],
    json: Json = False,
) -> None:
    """A version's manifest, where the model's aliases point, and how they came to."""
    from frond.client import Client

    with Client() as client:
        found = client.registry.version(ref)
        held = client.registry.model(found["name"])
        aliases, shadow = held["aliases"], held.get("shadow")
    if json:
        show.as_json({**found, "aliases": aliases, "shadow": shadow})
        return
    import yaml

    typer.secho(f"{found['name']}@{found['digest']}", bold=True)
    if (known := found["manifest"].get("reference")) is not None:
        # histograms are for machines: --json has them
        known["bands"], known["scores"] = "…", "…"
    typer.echo(yaml.safe_dump(found["manifest"], sort_keys=False, allow_unicode=True).rstrip())
    typer.echo()
    rows = [
        (f"{alias} {'→' if n == 0 else ' '}", m["digest"][:12], m["version"], (m["at"] or "")[:19],
         m["who"], m["why"])
        for alias, held in sorted(aliases.items())
        for n, m in enumerate(held["moves"] or [_move(held)])
    ]  # fmt: skip
    show.table(["alias", "digest", "version", "since", "by", "why"], rows)
    if shadow is not None:
        show.table(
            ["shadow", "digest", "version", "share", "since", "by", "why"],
            [("→" if n == 0 else " ", (m["digest"] or "none")[:12], m["version"], m["share"],
              (m["at"] or "")[:19], m["who"], m["why"]) for n, m in enumerate(shadow["moves"])],
        )  # fmt: skip


def _move(held: dict[str, str]) -> dict[str, str]:
    """An alias that was moved before histories were kept."""
    return {**held, "at": held["moved_at"]}


@app.command()
def promote(
    name: Name,
    digest: Annotated[str, typer.Argument(help="The version; 8 digits do, or an alias of it.")],
    alias: Annotated[str, typer.Option(help="Which alias to move.")] = "production",
    why: Why = "",
) -> None:
    """Point an alias at a version; new jobs use it, running ones keep theirs."""
    from frond.client import Client

    with Client() as client:
        # as other commands name a version
        version = digest.removeprefix(f"{name}@")
        ref = client.registry.promote(name, version, alias=alias, why=why)
    typer.echo(f"{ref['name']}@{alias} is {ref['version']} {ref['digest'][:12]} now.")


@app.command()
def rollback(
    name: Name,
    alias: Annotated[str, typer.Option(help="Which alias to move.")] = "production",
    why: Why = "",
) -> None:
    """Point an alias back at the version before."""
    from frond.client import Client

    with Client() as client:
        ref = client.registry.rollback(name, alias=alias, why=why)
    typer.echo(f"{ref['name']}@{alias} is {ref['version']} {ref['digest'][:12]} again.")
