"""``python -m frond.training``, which ``frond train`` runs in training's environment.

stdout has one line, JSON, at the end; all else goes to stderr. Exit codes: 0; 1: it did not work;
2: what was asked for cannot be; 75: what it needs (the object store) does not answer, and ``--resume``
goes on later; 130: interrupted (by SIGINT or SIGTERM), with a checkpoint.
"""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from frond.client.cli.app import Group, fail
from frond.contracts.errors import Outage
from frond.training import kinds, run
from frond.training.config import Config, bad, read
from frond.training.worker.deciding import AWAY

app = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    help="Train a model: its data, weights, figures and version in the registry.",
    context_settings={"help_option_names": ["-h", "--help"]},
)

_NO_TORCH: Final = (
    "torch is not installed here. `make train-env` makes an environment with it, training/.venv."
)

_INTERRUPTED: Final = 130

ConfigFile = Annotated[Path, typer.Option("--config", help="YAML; see training/configs.")]
Data = Annotated[Path | None, typer.Option(help="Imagery and labels, in place of the config's.")]
Out = Annotated[Path | None, typer.Option(help="The model's folder, replaced at the end.")]
Run = Annotated[
    Path | None,
    typer.Option(
        "--run", help="Checkpoints, logs, prepared data; else OUT.run, or training/runs/NAME."
    ),
]
Kind = Annotated[str, typer.Argument(help=" or ".join(kinds.KINDS))]
Seed = Annotated[int | None, typer.Option(min=0)]
Steps = Annotated[int | None, typer.Option(min=1)]
Minutes = Annotated[
    float | None, typer.Option(help="End by then, if it comes before the last step.")
]
Resume = Annotated[
    bool, typer.Option("--resume", help="Go on from the checkpoint, if there is one.")
]
OrAnew = Annotated[
    bool,
    typer.Option(
        "--or-anew",
        help="With --resume: begin anew where the checkpoint is of other data, another config or "
        "damaged.",
    ),
]
Track = Annotated[
    str | None, typer.Option(help="MLflow's tracking URI; off: a log of JSON lines alone.")
]
ProgressTo = Annotated[
    Path | None, typer.Option("--progress-file", help="JSON of where it is, every few seconds.")
]


def _trains(kind: str) -> None:
    @app.command(kind, help=f"Train a {kind} model, judge it, and push it if asked to.")
    def train(
        config: ConfigFile,
        data: Data = None,
        out: Out = None,
        run_folder: Run = None,
        steps: Steps = None,
        minutes: Minutes = None,
        seed: Seed = None,
        resume: Resume = False,
        or_anew: OrAnew = False,
        push: Annotated[
            str | None, typer.Option(metavar="ALIAS", help="Into the registry: staging.")
        ] = None,
        track: Track = None,
        progress_file: ProgressTo = None,
    ) -> None:
        told = _config(
            kind, config, data=data, out=out, run=run_folder, steps=steps, minutes=minutes,
            seed=seed, track=track,
        )  # fmt: skip
        _with_torch()
        _ends(
            lambda: run.full(
                kind,
                told,
                resume=resume,
                or_anew=or_anew,
                alias=push or None,
                progress_file=progress_file,
            )
        )


for _kind in kinds.KINDS:
    _trains(_kind)


@app.command()
def prepare(
    kind: Kind,
    config: ConfigFile,
    data: Data = None,
    run_folder: Run = None,
    seed: Seed = None,
) -> None:
    """Prepare data alone, into RUN/prepared."""
    told = _config(kind, config, data=data, run=run_folder, seed=seed)
    digest = run.prepare(kind, told)
    print(run.as_line({"prepared": str(told.prepared_folder), "digest": digest}))


@app.command()
def fit(
    kind: Kind,
    config: ConfigFile,
    run_folder: Run = None,
    resume: Resume = False,
    track: Track = None,
    progress_file: ProgressTo = None,
) -> None:
    """Train on prepared data alone, into RUN/trained."""
    told = _config(kind, config, run=run_folder, track=track)
    _with_torch()
    _ends(lambda: run.train(kind, told, resume=resume, progress_file=progress_file))


@app.command()
def evaluate(
    kind: Kind,
    config: ConfigFile,
    run_folder: Run = None,
    model: Annotated[
        Path | None,
        typer.Option(
            help="A model folder to judge where it lies, not RUN/trained; its manifest and card change."
        ),
    ] = None,
) -> None:
    """Judge RUN/trained on prepared data: RUN/model, with its card, and RUN/figures.json."""
    told = _config(kind, config, run=run_folder)
    found = run.evaluate(kind, told) if model is None else run.judge(kind, told, model).metrics
    print(run.as_line({"model": told.name, "metrics": found}))


def _config(kind: str, file: Path, **changed: Any) -> Config:
    if kind not in kinds.KINDS:
        raise bad(f"{kind!r} is no kind of model that can be trained: {', '.join(kinds.KINDS)}.")
    told = {k: str(v) if isinstance(v, Path) else v for k, v in changed.items() if v is not None}
    return read(kinds.settings(kind), file, **told)


def _with_torch() -> None:
    if importlib.util.find_spec("torch") is None:
        fail(_NO_TORCH, 1)


def _ends(work: Callable[[], dict[str, Any]]) -> None:
    from frond.training.loop import Interrupted

    try:
        # MLflow says where its server shows the run; stdout is a program's
        with contextlib.redirect_stdout(sys.stderr):
            told = work()
    except Interrupted:
        fail("Interrupted; --resume goes on from here.", _INTERRUPTED)
    except Outage as e:
        fail(f"What this needs is away; --resume goes on from here, once it answers. {e}", AWAY)
    print(run.as_line(told), flush=True)


def main() -> None:
    """The command."""
    app(prog_name="frond train")
