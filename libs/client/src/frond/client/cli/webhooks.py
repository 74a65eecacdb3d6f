"""webhooks: what became of a job's notices, and sending them once more."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from frond.client.cli import show
from frond.client.cli.moments import moment_of

app = typer.Typer(no_args_is_help=True, help="Webhooks and e-mails that tell of a job's end.")
_OF_ONE_JOB = frozenset({404, 409, 410, 422})
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]


@app.command("list")
def list_notices(
    job_id: Annotated[str, typer.Argument(help="The job's id.")], json: Json = False
) -> None:
    """A job's webhooks and e-mails, and how far each has come."""
    from frond.client import Client

    with Client() as client:
        found = client.webhooks(job_id)
    if json:
        show.as_json(found)
        return
    if not found:
        typer.echo(f"Job {job_id} has told nobody: it has not ended, or named no address.")
        return
    rows = [
        (
            n["kind"], n["target"], n["round"] or "first", n["state"], n["attempts"],
            show.moment(n["last_attempt"]), n["last_answer"][:200], show.moment(n["next_attempt"]),
        )
        for n in found
    ]  # fmt: skip
    show.table(
        ["kind", "to", "round", "state", "attempts", "last", "answer", "next"], rows,
        right="attempts",
    )  # fmt: skip


@app.command()
def replay(
    job_ids: Annotated[list[str] | None, typer.Argument(help="Jobs that have ended.")] = None,
    since: Annotated[
        str | None,
        typer.Option(help="All jobs that ended from then on: 1h, 7d, or a time (ISO, UTC)."),
    ] = None,
    until: Annotated[
        str | None, typer.Option(help="All jobs that ended before then: 1h, 7d, or a time.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Tell what would be sent.")] = False,
    json: Json = False,
) -> None:
    """Send jobs' webhooks once more: same webhook-id, same body, signed anew.

    Name jobs, or a time in which they ended. A receiver that was away gets what it missed; one that
    was not can tell by the webhook-id that it has seen it. A job that is refused does not keep the
    others from being sent; the exit code is 1 then.
    """
    from frond.client import Client
    from frond.client.errors import FrondClientError

    now = datetime.now(UTC)
    begin = moment_of(since, now, "--since") if since else None
    end = moment_of(until, now, "--until") if until else None
    if bool(job_ids) == bool(begin or end):
        raise typer.BadParameter("Name jobs, or give --since or --until.")
    rounds: dict[str, list[dict[str, Any]]] = {}
    refused: dict[str, str] = {}
    broken: FrondClientError | None = None
    with Client() as client:
        # all of them first: what a replay sends changes nothing of the list, but time goes on
        for job in list(job_ids or client.ended(begin, end)):
            try:
                rounds[job] = (
                    _first(client.webhooks(job)) if dry_run else client.replay_webhooks(job)
                )
            except FrondClientError as e:
                if e.status not in _OF_ONE_JOB:
                    # what was sent before is told first
                    broken = e
                    break
                refused[job] = e.detail
    if json:
        show.as_json(rounds)
        for job, why in refused.items():
            show.line(f"{job}: {why}", err=True)
    else:
        _told(rounds, refused, named=bool(job_ids), dry_run=dry_run)
    if broken:
        raise broken
    if refused:
        raise typer.Exit(1)


def _told(
    rounds: dict[str, list[dict[str, Any]]], refused: dict[str, str], *, named: bool, dry_run: bool
) -> None:
    done = "would be sent" if dry_run else "is being sent"
    rows = [
        (job, notice["webhook_id"], notice["target"], done)
        for job, notices in rounds.items()
        for notice in notices
    ]
    if named:
        rows += [(job, "", "", "asked for no webhook") for job, sent in rounds.items() if not sent]
    rows += [(job, "", "", f"refused: {why}") for job, why in refused.items()]
    if rows:
        show.table(["job", "webhook-id", "to", ""], rows)
    elif not named:
        typer.echo("No job that ended in this time asked for a webhook.")


@app.command()
def secret(
    tenant: Annotated[
        str | None,
        typer.Option(help="Whose; without it, the installation's own, of jobs of no tenant."),
    ] = None,
) -> None:
    """What a tenant's receiver verifies webhooks with; made from FROND_WEBHOOK_SECRET.

    For operators: hand it to this tenant and to nobody else. While FROND_WEBHOOK_SECRET has several,
    so has the tenant, one a line, in the same order.
    """
    from frond.client.environment import frond_env
    from frond.client.errors import FrondClientError
    from frond.client.objects import required
    from frond.contracts.signing import tenant_secrets

    if tenant is not None and not tenant.strip():
        raise typer.BadParameter("A tenant has a name; leave --tenant out for the installation's.")
    (secrets,) = required(frond_env(), "FROND_WEBHOOK_SECRET")
    try:
        made = tenant_secrets(secrets, tenant)
    except ValueError as e:
        raise FrondClientError(f"FROND_WEBHOOK_SECRET cannot be used: {e}.") from None
    for one in made.split():
        typer.echo(one)


def _first(notices: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [n for n in notices if n["kind"] == "webhook" and not n["round"]]
