"""The commands behind the Makefile: ``python -m frond.stack COMMAND``."""

import asyncio
import contextlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from frond.stack.errors import StackError, tail
from frond.stack.paths import state_dir

app = typer.Typer(
    help="Kafka, MinIO and the five services on this machine.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
Models = Annotated[Path, typer.Option(help="A folder of model folders for the registry.")]
Scale = Annotated[
    list[str], typer.Option("--scale", help="SERVICE=N: how many processes, such as inference=2.")
]

Only = Annotated[list[str], typer.Option("--only", help="Only these services; none for none.")]


def _chosen(only: list[str]) -> tuple[str, ...]:
    from frond.stack.installation import SERVICES

    unknown = set(only) - {*SERVICES, "none"}
    if unknown:
        raise typer.BadParameter(f"There is no service {', '.join(sorted(unknown))}.")
    return tuple(s for s in SERVICES if s in only) if only else SERVICES


def _counts(scale: list[str]) -> dict[str, int]:
    from frond.stack.installation import SERVICES

    counts = {}
    for wish in scale:
        name, _, number = wish.partition("=")
        if name not in SERVICES or not number.isdigit() or int(number) < 1:
            raise typer.BadParameter(f"{wish}: say SERVICE=N with one of {', '.join(SERVICES)}.")
        counts[name] = int(number)
    return counts


def _fail(error: Exception) -> typer.Exit:
    typer.secho(str(error), fg="red", err=True)
    return typer.Exit(1)


@app.command()
def up(
    models: Models = Path("models"),
    scale: Scale = [],  # noqa: B006 # typer copies it
    only: Only = [],  # noqa: B006
) -> None:
    """Start Kafka, MinIO and the five services, and leave them running."""
    from frond.stack import control

    state = state_dir()
    try:
        fresh = control.up(
            state, models.resolve(), scale=_counts(scale), services=_chosen(only), say=typer.echo
        )
        env = control.environment(state)
    except StackError as e:
        raise _fail(e) from None
    if not fresh:
        typer.echo("It was running already. Settings that are set now take effect by `make roll`.")
    has_ingest = "ingest" in _running(control.read_state(state))
    here = os.path.relpath(state / "env")
    if has_ingest:
        typer.echo(f"\nFrond is up: {env['FROND_API_URL']} (docs at /docs)\n")
    else:
        typer.echo("\nKafka and MinIO are up. Without ingest there is no REST door.\n")
    typer.echo(f"    source {here}           # FROND_API_URL, FROND_API_KEY, Kafka, S3, PATH")
    if has_ingest:
        typer.echo("    frond upload my/*.tif --wait")
    typer.echo("    make watch-topics · make status · make down")


def _running(found: dict[str, Any] | None) -> set[str]:
    """The services that a supervisor keeps."""
    return {one["name"] for one in found["services"]} if found else set()


@app.command()
def down() -> None:
    """Stop everything; topics, objects and keys stay for the next time."""
    from frond.stack import control

    typer.echo("Stopped." if control.down(state_dir()) else "Nothing was running.")


@app.command()
def volumes(
    remove: Annotated[bool, typer.Option("--remove", help="With all that is in them.")] = False,
) -> None:
    """Print the Docker volumes that have the topics and objects, where Docker has them; or remove them."""
    from frond.stack.choose import kept_kind, volumes_of

    data = state_dir() / "data"
    begin = volumes_of(data)
    try:
        from frond.stack.docker import find_volumes, remove_volumes

        names = remove_volumes(begin) if remove else find_volumes(begin)
    except (ImportError, StackError) as e:
        if kept_kind(data) != "docker":
            return  # no engine, and nothing that was ever given to one
        typer.echo(
            f"Topics and objects lie in the Docker volumes {begin}-apache and {begin}-minio."
        )
        if remove:
            typer.echo(f"They stay. To remove them: docker volume rm {begin}-apache {begin}-minio")
        raise _fail(e) from None
    for name in names:
        typer.echo(f"Removed the Docker volume {name}" if remove else name)


@app.command()
def roll() -> None:
    """Exchange every service for a fresh process while they work, one by one: an upgrade.

    FROND_ variables that are set here are handed over.
    """
    from frond.stack import control

    try:
        control.roll(state_dir(), say=typer.echo)
    except StackError as e:
        raise _fail(e) from None


@app.command()
def status() -> None:
    """Which processes run, whether they are ready, and how often each was restarted."""
    from rich.console import Console
    from rich.table import Table

    from frond.stack import control
    from frond.stack.minio_server import http_ok

    found = control.read_state(state_dir())
    if found is None:
        typer.echo("Nothing runs here. Start it with `make up`.")
        raise typer.Exit(1)
    rows = []
    all_answer = True
    for one in found["services"]:
        url = f"http://127.0.0.1:{one['port']}"
        answers = http_ok(f"{url}/ready")
        all_answer &= answers
        told = "yes" if answers else "no"
        rows.append((one["name"], str(one["pid"] or "-"), url, told, str(one["restarts"])))
    ready = found["phase"] == "ready" and all_answer
    # the phase is of the start: a service may have ended since
    phase = found["phase"] if ready or found["phase"] != "ready" else "not all are ready"
    table = Table("service", "pid", "address", "ready", "restarts", title=f"{phase} ({found['stack']})")  # fmt: skip
    for name, pid in found["servers"].items():
        table.add_row(name, str(pid), "", "", "")
    for row in rows:
        table.add_row(*row)
    Console().print(table)
    raise typer.Exit(0 if ready else 1)


@app.command("with", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def with_stack(context: typer.Context, models: Models = Path("models")) -> None:
    """Run a command with everything up; stop it afterwards unless it was up before."""
    from frond.stack import control

    state = state_dir()
    code = 1
    fresh = False
    try:
        fresh = control.up(state, models.resolve(), say=typer.echo)
        env = {**os.environ, **control.environment(state)}
        code = subprocess.run(context.args, env=env, check=False).returncode
    except StackError as e:
        raise _fail(e) from None
    finally:
        if fresh:
            control.down(state)
    raise typer.Exit(code)


@app.command()
def run(
    service: str,
    reload: Annotated[bool, typer.Option(help="Start anew when a source file changes.")] = False,
) -> None:
    """Run one service in this terminal, in place of the supervised one."""
    from frond.stack import control, develop
    from frond.stack.endpoints import Endpoints
    from frond.stack.installation import SERVICES, Installation

    if service not in SERVICES:
        raise _fail(StackError(f"There is no service {service}; there are {', '.join(SERVICES)}."))
    state = state_dir()
    try:
        env = control.environment(state)
        installation = Installation.load_or_make(state)
        endpoints = Endpoints(
            env["FROND_KAFKA_BOOTSTRAP"],
            env["FROND_S3_ENDPOINT"],
            env["FROND_S3_ACCESS_KEY"],
            env["FROND_S3_SECRET_KEY"],
        )
        full = installation.service_env(service, endpoints, state)
        code = develop.run_service(state, service, full, Path.cwd(), reload=reload)
    except StackError as e:
        raise _fail(e) from None
    raise typer.Exit(code)


@app.command()
def watch(
    from_beginning: Annotated[
        bool, typer.Option("--from-beginning", help="Also what was sent before.")
    ] = False,
) -> None:
    """Print every event of every topic as it comes, one line each."""
    from frond.stack import control, develop

    try:
        env = {**control.environment(state_dir()), **os.environ}
    except StackError as e:
        raise _fail(e) from None
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(
            develop.watch_topics(
                env["FROND_KAFKA_BOOTSTRAP"],
                env.get("FROND_TOPIC_PREFIX", ""),
                from_beginning=from_beginning,
            )
        )


@app.command()
def logs(
    names: Annotated[list[str] | None, typer.Argument(help="Services; all when none.")] = None,
    lines: Annotated[int, typer.Option("-n", help="How many of each.")] = 20,
    follow: Annotated[bool, typer.Option("-f", help="Go on as they grow.")] = False,
) -> None:
    """Print the ends of the logs."""
    files = sorted((state_dir() / "logs").glob("*.log"))
    files = [f for f in files if not names or f.stem in names]
    if not files:
        raise _fail(StackError("There is no such log in .frond/logs."))
    if follow:
        with contextlib.suppress(KeyboardInterrupt):
            subprocess.run(["tail", f"-n{lines}", "-F", *map(str, files)], check=False)
        return
    for file in files:
        typer.secho(f"== {file.stem}", bold=True)
        typer.echo(tail(file, lines))


@app.command()
def fetch() -> None:
    """Fetch Kafka, and find or compile Toxiproxy and MinIO now: the first start is a quick one."""
    from frond.stack.kafka_jars import ensure_jars
    from frond.stack.minio_binary import ensure_minio
    from frond.stack.toxiproxy_binary import ensure_toxiproxy

    try:
        ensure_jars(typer.echo)
        ensure_toxiproxy(typer.echo)
        ensure_minio(typer.echo)
    except StackError as e:
        raise _fail(e) from None


@app.command(hidden=True)
def keep(home: Path, owner: int) -> None:
    """Own the stack of one pytest session until the process OWNER ends."""
    from frond.stack import keeper

    keeper.keep(home, owner)


@app.command(hidden=True)
def supervise(
    state: Path,
    models: Path,
    scale: Scale = [],  # noqa: B006 # typer copies it
    only: Only = [],  # noqa: B006
) -> None:
    """The process behind `up`."""
    from frond.stack import supervisor

    sys.exit(supervisor.supervise(state, models, _counts(scale), _chosen(only)))


@app.command(hidden=True)
def prepare(models: Models = Path("models")) -> None:
    """Make topics and bucket and push the models, on the stack that FROND_* variables name.

    For Compose, which has a container do it before any service starts.
    """
    import time

    from frond.contracts.errors import FrondError, Outage
    from frond.stack import prepare as steps
    from frond.stack.endpoints import Endpoints

    env = os.environ
    endpoints = Endpoints(
        env["FROND_KAFKA_BOOTSTRAP"],
        env["FROND_S3_ENDPOINT"],
        env["FROND_S3_ACCESS_KEY"],
        env["FROND_S3_SECRET_KEY"],
    )
    bucket, prefix = env.get("FROND_S3_BUCKET", "frond"), env.get("FROND_TOPIC_PREFIX", "")
    replicas = int(env.get("FROND_REPLICATION_FACTOR") or 1)
    end = time.monotonic() + 120
    while True:
        try:
            steps.prepare(endpoints, bucket, prefix, replication_factor=replicas)
            break
        except Outage as e:
            if time.monotonic() > end:
                raise _fail(e) from None
            time.sleep(1)  # a broker that is starting elsewhere announces nothing
        except FrondError as e:
            raise _fail(e) from None
    typer.echo("Topics and bucket are there")
    steps.push_models(endpoints, bucket, models, typer.echo)


@app.command(hidden=True)
def lock() -> None:
    """Resolve Kafka's jars anew and write the lock file (after a change of version)."""
    from frond.stack.kafka_jars import write_lock

    typer.echo(f"{write_lock()} jars locked")
