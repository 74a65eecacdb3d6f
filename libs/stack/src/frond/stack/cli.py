"""The commands behind the Makefile."""

from pathlib import Path

import typer

app = typer.Typer(
    help="Kafka, MinIO and the five services on this machine.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


@app.command(hidden=True)
def keep(home: Path, owner: int) -> None:
    """Own the stack of one pytest session until the process OWNER ends."""
    from frond.stack import keeper

    keeper.keep(home, owner)


@app.command(hidden=True)
def lock() -> None:
    """Resolve Kafka's jars anew and write the lock file (after a change of version)."""
    from frond.stack.kafka_jars import write_lock

    typer.echo(f"{write_lock()} jars locked")


@app.command()
def fetch() -> None:
    """Fetch Kafka and fetch or compile MinIO now, so that the first start is a quick one."""
    from frond.stack.kafka_jars import ensure_jars
    from frond.stack.minio_binary import ensure_minio

    typer.echo(ensure_jars(typer.echo))
    typer.echo(ensure_minio(typer.echo))
