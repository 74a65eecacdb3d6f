"""dlq: messages that could not be read or handled."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import typer

from frond.client.cli import show

app = typer.Typer(no_args_is_help=True, help="Dead letters (needs FROND_KAFKA_BOOTSTRAP).")
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
Id = Annotated[str, typer.Argument(help="As `frond dlq list` shows it.")]


def _with_letters(work: Callable[[Any], Awaitable[Any]]) -> Any:
    import asyncio

    from frond.client.operator import dead_letters

    async def run() -> Any:
        async with dead_letters() as letters:
            return await work(letters)

    return asyncio.run(run())


@app.command("list")
def list_letters(
    all_: Annotated[bool, typer.Option("--all", help="Also those replayed or dropped.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, the newest.")] = 50,
    json: Json = False,
) -> None:
    """Dead letters, the oldest first."""
    from frond.client.operator import told

    found = _with_letters(lambda d: d.list(limit=limit, everything=all_))
    if json:
        show.as_json([told(x) for x in found])
        return
    if not found:
        typer.echo("There are no dead letters.")
        return
    rows = [
        (x.id, show.moment(x.letter.time), f"{x.letter.topic}/{x.letter.partition}"
         f"@{x.letter.offset}", x.letter.reason, x.letter.detail[:200], x.mark or "")
        for x in found
    ]  # fmt: skip
    show.table(["id", "time", "where", "reason", "detail", ""], rows)


@app.command("show")
def show_letter(letter_id: Id, json: Json = False) -> None:
    """One dead letter with its headers and value."""
    from frond.client.operator import told

    found = _with_letters(lambda d: d.get(letter_id))
    facts = told(found, value=True)
    if json:
        show.as_json(facts)
        return
    for name, value in facts.items():
        typer.echo(f"{name:>10}  {value}")


@app.command()
def replay(letter_id: Id) -> None:
    """Send it to its topic again, as it was: key, value and headers."""
    found = _with_letters(lambda d: d.replay(letter_id))
    typer.echo(f"{letter_id} was sent to {found.letter.topic} again.")


@app.command()
def drop(letter_id: Id) -> None:
    """Mark it as dealt with; it stays on the topic until its retention ends."""
    _with_letters(lambda d: d.drop(letter_id))
    typer.echo(f"{letter_id} is dropped.")
