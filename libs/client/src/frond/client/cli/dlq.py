"""dlq: messages that could not be read or handled."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from frond.client.cli import show

if TYPE_CHECKING:
    from frond.client.errors import FrondClientError
    from frond.client.operator import Found

app = typer.Typer(no_args_is_help=True, help="Dead letters (needs FROND_KAFKA_BOOTSTRAP).")
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
Id = Annotated[str, typer.Argument(help="As `frond dlq list` shows it.")]
Ids = Annotated[list[str] | None, typer.Argument(help="As `frond dlq list` shows them.")]
Reason = Annotated[
    str | None, typer.Option(help="All that died of this, such as bad-request or internal.")
]
Topic = Annotated[str | None, typer.Option(help="All of this topic, such as frond.uploaded.v1.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def _with_letters(work: Callable[[Any], Awaitable[Any]]) -> Any:
    import asyncio

    from frond.client.operator import dead_letters

    async def run() -> Any:
        async with dead_letters() as letters:
            return await work(letters)

    return asyncio.run(run())


def _chosen(
    verb: str, ids: list[str] | None, reason: str | None, topic: str | None, yes: bool
) -> list[Found]:
    """The letters named, or, once their count is confirmed, all open ones that fit.

    Raises:
        FrondClientError: no letter fits, dealt with or not.
    """
    if bool(ids) == bool(reason or topic):
        raise typer.BadParameter("Name letters, or give --reason or --topic.")
    found: list[Found] = _with_letters(lambda d: d.find(ids or (), reason=reason, topic=topic))
    if not (found or _with_letters(lambda d: d.find(reason=reason, topic=topic, everything=True))):
        # of a word that is misspelt, none replayed would read as if all were well
        raise _none(reason, topic)
    if ids or yes or not found:
        return found
    counts = Counter((x.letter.topic, x.letter.reason) for x in found)
    show.table(["topic", "reason", "letters"], [(*k, n) for k, n in sorted(counts.items())],
               right="letters")  # fmt: skip
    typer.confirm(f"{verb} {_letters(len(found))}?", abort=True)
    return found


def _none(reason: str | None, topic: str | None) -> FrondClientError:
    from frond.client.errors import FrondClientError

    words = [f"reason {reason}"] if reason else []
    words += [f"topic {topic}"] if topic else []
    return FrondClientError(
        f"No dead letter has the {' and the '.join(words)}; `frond dlq list` shows what there is."
    )


def _letters(count: int) -> str:
    return f"{count} dead letter{'s' if count != 1 else ''}"


@app.command("list")
def list_letters(
    all_: Annotated[bool, typer.Option("--all", help="Also those replayed or dropped.")] = False,
    reason: Reason = None,
    topic: Topic = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, the newest.")] = 50,
    json: Json = False,
) -> None:
    """Dead letters, the oldest first."""
    from frond.client.operator import told

    found = _with_letters(lambda d: d.find(reason=reason, topic=topic, everything=all_))[-limit:]
    if json:
        show.as_json([told(x) for x in found])
        return
    if not found:
        typer.echo("There are no dead letters.")
        return
    rows = [
        (x.id, show.moment(x.letter.time), f"{x.letter.topic}/{x.letter.partition}"
         f"@{x.letter.offset}", x.letter.reason, x.letter.attempts, x.letter.detail[:200],
         x.mark or "")
        for x in found
    ]  # fmt: skip
    show.table(["id", "time", "where", "reason", "attempts", "detail", ""], rows, right="attempts")


@app.command("show")
def show_letter(letter_id: Id, json: Json = False) -> None:
    """One dead letter with its headers and value."""
    from frond.client.operator import told

    async def look(letters: Any) -> Any:
        return [x async for x in letters.whole(await letters.find([letter_id]))]

    (found,) = _with_letters(look)
    facts = told(found, value=True)
    if json:
        show.as_json(facts)
        return
    value = facts.pop("value")
    headers = [("header", f"{k}: {v}") for k, v in facts.pop("headers")]
    for name, fact in [*facts.items(), *headers, ("value", value)]:
        show.line(f"{name:>10}  {fact}")


@app.command()
def replay(
    letter_ids: Ids = None, reason: Reason = None, topic: Topic = None, yes: Yes = False
) -> None:
    """Send letters to their topics again, as they were: key, value and headers.

    Name letters, or choose all that nobody has dealt with yet by --reason and --topic.
    """
    found = _chosen("Replay", letter_ids, reason, topic, yes)

    def said(x: Found) -> None:
        show.line(f"{x.id} was sent to {x.letter.topic} again.")

    if found:
        _with_letters(lambda d: d.replay(found, said))
    typer.echo(f"{_letters(len(found))} replayed.")


@app.command()
def drop(
    letter_ids: Ids = None, reason: Reason = None, topic: Topic = None, yes: Yes = False
) -> None:
    """Mark letters as dealt with; they stay on the topic until their retention ends.

    Name letters, or choose all that nobody has dealt with yet by --reason and --topic.
    """
    found = _chosen("Drop", letter_ids, reason, topic, yes)
    if found:
        _with_letters(lambda d: d.drop(found))
    for x in found:
        typer.echo(f"{x.id} is dropped.")
    typer.echo(f"{_letters(len(found))} dropped.")
