"""The command's root: its parts, and how it fails: one red sentence, exit code 1 or 2.

2: what was asked for cannot be (a wrong option, a file that is not there, an unknown job); 1: it
did not work.
"""

import errno
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from frond.contracts.errors import FrondError, UserError
from frond.contracts.visible import visible

_ASKED_WRONGLY = range(400, 500)


class Group(TyperGroup):
    """Shows errors as one sentence."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except UserError as e:
            fail(e.detail, 2)
        except FrondError as e:
            status = getattr(e, "status", None)
            trace = getattr(e, "trace_id", None)
            told = str(getattr(e, "detail", e)) + (f" (trace {trace})" if trace else "")
            fail(told, 2 if _asked_wrongly(e, status) else 1)
        except KeyboardInterrupt:
            fail("Interrupted.", 130)
        except ModuleNotFoundError as e:
            fail(
                f"This command needs the Python package {e.name}, which is not installed here. "
                "Install frond-client[operator], frond-client[models], frond-client[evaluate], "
                "frond-client[reproduce] or frond-client[demo].",
                1,
            )
        except OSError as e:
            # whoever reads our output has had enough: click ends quietly
            if e.errno == errno.EPIPE:
                raise
            why = e.strerror or str(e) or type(e).__name__
            fail(f"{e.filename}: {why}." if e.filename is not None else f"{why}.", 1)


def _asked_wrongly(error: FrondError, status: int | None) -> bool:
    from frond.client.errors import FrondClientError, NotReachable

    if not isinstance(error, FrondClientError) or isinstance(error, NotReachable):
        return False
    return status is None or status in _ASKED_WRONGLY


def fail(sentence: str, code: int) -> None:
    """Say what is wrong and end."""
    # it may quote the name of a file, or what a service says
    typer.secho(visible(sentence), fg=typer.colors.RED, err=True)
    raise typer.Exit(code)


app = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=True,
    help="Vision models over thousands of GeoTIFFs. Where Frond is, FROND_API_URL and "
    "FROND_API_KEY say, or the nearest .frond/env upwards from here.",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _register() -> None:
    from frond.client.cli import (
        dlq,
        drift,
        evaluate,
        jobs,
        keys,
        modelfolders,
        models,
        reproduce,
        results,
        run,
        shadows,
        train,
        training,
        webhooks,
    )

    jobs.register(app)
    results.register(app)
    run.register(app)
    evaluate.register(app)
    train.register(app)
    reproduce.register(app)
    modelfolders.register(models.app)
    drift.register(app, models.app)
    shadows.register(models.app)
    app.add_typer(models.app, name="models")
    app.add_typer(dlq.app, name="dlq")
    app.add_typer(keys.app, name="keys")
    app.add_typer(training.app, name="training")
    app.add_typer(webhooks.app, name="webhooks")


_register()


@app.command(
    "stack",
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    add_help_option=False,
)
def stack(context: typer.Context) -> None:
    """up, down, status: Kafka, MinIO and the five services on this machine."""
    from frond.stack.cli import app as stack_app

    stack_app(args=context.args or ["--help"], prog_name="frond stack")


@app.command("demo")
def demo(
    out: Annotated[str, typer.Option(help="Where files and the picture go.")] = "demo-out",
) -> None:
    """24 scenes with planted palms through the whole pipeline; a picture of what was found."""
    from pathlib import Path

    from frond.client.demo import run_demo

    raise typer.Exit(run_demo(Path(out)))


def main() -> None:
    """The console script."""
    app(prog_name="frond")
