"""keys: create, list, revoke."""

import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any

import typer

from frond.client.cli import show
from frond.client.errors import FrondClientError

app = typer.Typer(no_args_is_help=True, help="API keys (needs a key with the scope admin).")
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
Store = Annotated[
    bool,
    typer.Option(
        "--store", help="Go by the object store (FROND_S3_…), not the service: for the first key."
    ),
]
_UNITS = {"h": "hours", "d": "days", "w": "weeks"}


class Scope(StrEnum):
    """The service's, which not every installation of the client has at hand."""

    SUBMIT = "submit"
    READ = "read"
    ADMIN = "admin"


def expiry(text: str, now: datetime) -> datetime:
    """``90d``, ``12h``, ``8w``, or a date. Raises FrondClientError."""
    m = re.fullmatch(r"([1-9]\d{0,4})([hdw])", text)
    if m:
        return now + timedelta(**{_UNITS[m.group(2)]: int(m.group(1))})
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise FrondClientError(
            f"--expires {text!r} is no time: write 90d, 12h, 8w, or a date such as 2027-01-31."
        ) from None
    return when if when.tzinfo else when.replace(tzinfo=UTC)


def _by_store(work: Callable[[Any], Awaitable[Any]]) -> Any:
    import asyncio

    from frond.auth import KeyStore
    from frond.client.objects import open_store

    async def run() -> Any:
        store = open_store()
        try:
            await store.ensure_bucket()
            return await work(KeyStore(store))
        finally:
            store.close()

    return asyncio.run(run())


def _shown(record: Any) -> dict[str, Any]:
    told = record.model_dump(mode="json", exclude={"sha256"})
    return {**told, "state": record.state(datetime.now(UTC))}


def _create_in_store(
    name: str, tenant: str | None, scopes: list[Scope], expires: datetime | None
) -> dict[str, Any]:
    from frond.auth import DEFAULT_TENANT
    from frond.auth import Scope as Stored

    if tenant is None and Scope.ADMIN not in scopes:
        tenant = DEFAULT_TENANT
    record, key = _by_store(
        lambda k: k.create(name, tenant=tenant, scopes=map(Stored, scopes), expires=expires)
    )
    return {**_shown(record), "key": key}


@app.command("make", hidden=True)
@app.command()
def create(
    name: Annotated[str, typer.Option(help="Who or what has it, for people.")],
    tenant: Annotated[
        str | None,
        typer.Option(
            help="Whose jobs it makes and sees; left out, default, and nobody's for an admin's key."
        ),
    ] = None,
    scope: Annotated[
        list[Scope] | None, typer.Option(help="May be given again; without it, submit and read.")
    ] = None,
    expires: Annotated[str | None, typer.Option(help="90d, 12h, 8w, or a date.")] = None,
    store: Store = False,
    json: Json = False,
) -> None:
    """Make a key: it goes to stdout, once. Whoever has it is let in."""
    scopes = scope or [Scope.SUBMIT, Scope.READ]
    when = expiry(expires, datetime.now(UTC)) if expires else None
    if store:
        made = _create_in_store(name, tenant, scopes, when)
    else:
        from frond.client import Client

        with Client() as client:
            made = client.keys.create(name, tenant=tenant, scopes=scopes, expires=when)
    if json:
        show.as_json(made)
        return
    typer.echo(made["key"])
    whose = f"tenant {made['tenant']}" if made["tenant"] else "all tenants"
    until = f" until {show.moment(made['expires'])}" if made["expires"] else ""
    typer.secho(
        f"Key {made['id']}: {', '.join(made['scopes'])} for {whose}{until}. "
        f"It is not shown again; `frond keys revoke {made['id']}` ends it.",
        err=True,
    )


@app.command("list")
def list_keys(store: Store = False, json: Json = False) -> None:
    """All keys, the oldest first, without their secrets."""
    if store:
        found = [_shown(r) for r in _by_store(lambda k: k.list())]
    else:
        from frond.client import Client

        with Client() as client:
            found = client.keys.list()
    if json:
        show.as_json(found)
        return
    rows = [
        (
            k["id"], k["name"], k["tenant"] or "(all)", " ".join(k["scopes"]), k["state"],
            show.moment(k["created"]), show.moment(k["expires"]) or "never",
        )
        for k in found
    ]  # fmt: skip
    show.table(["id", "name", "tenant", "scopes", "state", "created", "expires"], rows)


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="As `frond keys list` shows it.")],
    store: Store = False,
) -> None:
    """Make a key good for nothing, within five seconds."""
    # whoever has the whole key at hand need not take it apart, and it stays out of logs
    whole = re.fullmatch(r"frond_([0-9a-f]{16})_.+", key_id)
    key_id = whole.group(1) if whole else key_id
    if store:
        from frond.contracts.errors import ObjectMissing

        try:
            told = _shown(_by_store(lambda k: k.revoke(key_id)))
        except ObjectMissing:
            raise FrondClientError(f"There is no key {key_id!r}; see `frond keys list`.") from None
    else:
        from frond.client import Client

        with Client() as client:
            told = client.keys.revoke(key_id)
    show.line(
        f"{told['name']} ({told['id']}) is {told['state']} since {show.moment(told['revoked'])}."
    )
