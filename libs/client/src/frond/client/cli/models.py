"""models: list, push, show, promote, rollback; what is done with folders: ``modelfolders``."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from frond.client.cli import show

app = typer.Typer(
    no_args_is_help=True,
    help="Model folders and their registry (which needs FROND_S3_…, but for list).",
)
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
Name = Annotated[str, typer.Argument(help="The model's name.")]


def with_registry(work: Callable[[Any], Awaitable[Any]]) -> Any:
    """Do some work on the registry that FROND_S3_… lead to."""
    import asyncio
    import getpass

    from frond.client.operator import open_store
    from frond.models.registry import Registry

    async def run() -> Any:
        store = open_store()
        try:
            return await work(Registry(store, who=getpass.getuser()))
        finally:
            store.close()

    return asyncio.run(run())


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
            name = model["name"]
            default = "default" if name == found["default"] and "production" in aliases else ""
            rows.append((name, version, digest[:12], ", ".join(aliases), default))
    show.table(["model", "version", "digest", "aliases", ""], rows)


@app.command()
def push(
    folder: Annotated[Path, typer.Argument(help="With model.onnx and model.yaml.")],
    alias: Annotated[str, typer.Option(help="Point this alias at it; '' for none.")] = "production",
) -> None:
    """Store a model folder as a new immutable version."""
    ref = with_registry(lambda r: r.push(folder, alias or None))
    said = f"{ref.name} {ref.version}  {ref.digest}"
    typer.echo(f"{said}  @{alias}" if alias else said)


@app.command("show")
def show_model(
    ref: Annotated[str, typer.Argument(help="name, name@alias or name@digest.")],
    json: Json = False,
) -> None:
    """A version's manifest, and where the model's aliases point."""

    async def look(registry: Any) -> Any:
        found = await registry.resolve(ref)
        return found, await registry.manifest(found), await registry.list(found.name)

    found, manifest, listings = with_registry(look)
    aliases = {a: w for m in listings for a, w in m.aliases.items()}
    told = manifest.model_dump(mode="json")
    if json:
        where = {a: w.model_dump(mode="json") for a, w in aliases.items()}
        show.as_json({"digest": found.digest, "manifest": told, "aliases": where})
        return
    import yaml

    typer.secho(f"{found.name}@{found.digest}", bold=True)
    typer.echo(yaml.safe_dump(told, sort_keys=False, allow_unicode=True).rstrip())
    rows = [
        (a, w.digest[:12], w.version, str(w.moved_at)[:19], w.who, len(w.before))
        for a, w in sorted(aliases.items())
    ]
    show.table(["alias", "digest", "version", "since", "by", "moves before"], rows)


@app.command()
def promote(
    name: Name,
    digest: Annotated[str, typer.Argument(help="The version; 8 digits do.")],
    alias: Annotated[str, typer.Option(help="Which alias to move.")] = "production",
) -> None:
    """Point an alias at a version; new jobs use it, running ones keep theirs."""
    ref = with_registry(lambda r: r.promote(name, alias, digest))
    typer.echo(f"{ref.name}@{alias} is {ref.version} {ref.digest[:12]} now.")


@app.command()
def rollback(
    name: Name, alias: Annotated[str, typer.Option(help="Which alias to move.")] = "production"
) -> None:
    """Point an alias back at the version before."""
    ref = with_registry(lambda r: r.rollback(name, alias))
    typer.echo(f"{ref.name}@{alias} is {ref.version} {ref.digest[:12]} again.")
