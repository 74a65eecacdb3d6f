"""A run from its data to the registry: prepare, train, export, evaluate, track, push."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from importlib import metadata
from pathlib import Path
from types import FrameType
from typing import Any, Final

from frond.contracts.errors import ModelRejected, UserError
from frond.models import folder_digest
from frond.training import kinds
from frond.training.config import Config, bad
from frond.training.files import held, replaceable, replaced, write_json
from frond.training.prepared import Store
from frond.training.progress import Bar, ProgressFile, say

CHECKPOINT: Final = "checkpoint.pt"
TRAINED: Final = "trained"
ABOUT: Final = "run.json"
LEARNT: Final = "learnt"
FIGURES: Final = "figures.json"
DONE: Final = "done.json"
CARD: Final = "MODEL_CARD.md"
MANIFEST: Final = "model.yaml"


def full(
    kind: str,
    config: Config,
    *,
    resume: bool = False,
    or_anew: bool = False,
    alias: str | None = None,
    progress_file: Path | None = None,
) -> dict[str, Any]:
    """All of it; returns what is told at the end: model, digest, version, alias, metrics, weights.

    Killed anywhere it may be started again, with ``resume`` at the last checkpoint, or at the push
    where all else was done: the same folder pushed twice is one version.

    Args:
        or_anew: with ``resume``: where the checkpoint cannot be gone on from, since data or config
            have changed or it is damaged, begin anew and say so.

    Raises:
        UserError: what was asked for cannot be, or another process trains in this folder or makes
            this model.
        Outage: the registry does not answer; what is trained stays, and a resume pushes it.
        frond.training.loop.Interrupted: by SIGTERM or SIGINT; there is a checkpoint.
    """
    _out_of_the_way(config)
    if alias is not None:
        from frond.training.publish import push, ready

        ready(alias)
    with locked(config.run_folder), alone(config):
        data = _prepared(kind, config)
        about = _done(config, data) if resume else None
        if about is None:
            (config.run_folder / DONE).unlink(missing_ok=True)
            about = _train(kind, config, resume, progress_file, or_anew=or_anew, evaluating=True)
            write_json(config.run_folder / DONE, about)
    ref = {"model": config.name, "digest": about["digest"], "version": config.version}
    if alias is not None:
        why = f"trained by frond train {kind}, seed {config.seed}, weights {about['weights'][:12]}"
        pushed = push(config.model_folder, alias, why=why)
        ref = {"model": pushed.name, "digest": pushed.digest, "version": pushed.version}
        say(f"Pushed as {pushed.name}@{alias}, version {pushed.version} {pushed.digest[:12]}")
    return {**ref, "alias": alias, "metrics": about["metrics"], "weights": about["weights"]}


def prepare(kind: str, config: Config) -> str:
    """The data alone, into the folder of prepared data; returns its digest."""
    with locked(config.run_folder):
        return _prepared(kind, config)


def train(
    kind: str,
    config: Config,
    *,
    resume: bool = False,
    progress_file: Path | None = None,
) -> dict[str, Any]:
    """On data that is prepared already: RUN/trained with the graph, and RUN/run.json."""
    with locked(config.run_folder):
        return _train(kind, config, resume, progress_file, evaluating=False)


def evaluate(kind: str, config: Config) -> dict[str, float]:
    """Judge RUN/trained; the model's folder and RUN/figures.json come of it.

    Raises:
        UserError: nothing was trained here, or it was of other data or another config: what is held
            out now may have been learnt.
    """
    _out_of_the_way(config)
    with locked(config.run_folder), alone(config):
        return _evaluated(kind, config).metrics


def judge(kind: str, config: Config, folder: Path) -> kinds.Figures:
    """Judge any folder of this kind where it lies; its card and manifest are written anew."""
    return kinds.evaluate(kind, config, config.prepared_folder, folder)


def _out_of_the_way(config: Config) -> None:
    """Raises UserError where replacing the model's folder would take something else along."""
    out = config.model_folder.resolve()
    replaceable(out, MANIFEST)
    others = {"run": config.run_folder, "data": config.data, "prepared": config.prepared_folder}
    for name, other in others.items():
        if other.resolve().is_relative_to(out):
            raise bad(
                f"{other} ({name}) lies in {out}, the model's folder, which is replaced whole. "
                "Name another one."
            )


def _prepared(kind: str, config: Config) -> str:
    say(f"{config.name}: preparing data from {config.data}")
    folder = config.prepared_folder
    # runs may share prepared data that lie elsewhere
    shared = folder.parent.resolve() != config.run_folder.resolve()
    with locked(folder.parent) if shared else nullcontext():
        return kinds.prepare(kind, config, folder)


def _train(
    kind: str,
    config: Config,
    resume: bool,
    progress_file: Path | None,
    *,
    evaluating: bool,
    or_anew: bool = False,
) -> dict[str, Any]:
    # torch takes seconds to come, and whoever prepares data needs none
    from frond.training import loop
    from frond.training.checkpoint import steps_done
    from frond.training.tracking import Outcome, Tracker, tracker

    run = config.run_folder
    data = Store(config.prepared_folder).digest
    tags = {"config": config.digest(), "data": data, "torch": metadata.version("torch")}
    checkpoint = run / CHECKPOINT
    task = kinds.task(kind, config, config.prepared_folder)
    kept: Tracker | None = None
    bar: Bar | None = None
    watched = False

    def watchers() -> list[loop.Watcher]:
        nonlocal kept, bar, watched
        watched = True
        at = steps_done(checkpoint) if resume else None
        kept = tracker(kind, config, tags, at)
        bar = Bar(config.name)
        more = [ProgressFile(progress_file)] if progress_file is not None else []
        return [bar, kept, *more]

    status = "FAILED"
    try:
        with stopping() as stop:
            begin = partial(
                loop.train, task, config, data, checkpoint, watchers=watchers, stop=stop
            )
            try:
                trained = begin(resume=resume)
            except UserError:
                # what is refused before anybody watches is the checkpoint
                if watched or not (resume and or_anew):
                    raise
                say(
                    f"{config.name}: training begins anew. {checkpoint} is damaged, or of other data "
                    "or another config."
                )
                resume = False
                trained = begin(resume=False)
        if bar is not None:
            bar.close()
        with replaced(run / TRAINED, MANIFEST) as fresh:
            task.export(trained.model, fresh)
        say(f"{config.name}: {trained.steps} steps, weights of step {trained.step} exported")
        told: dict[str, Any] = {
            **tags, "kind": kind, "seed": config.seed, "steps": trained.steps,
            "minutes": config.minutes,
            "step": trained.step, "ended": trained.ended, "weights": trained.digest,
            "metrics": trained.metrics,
        }  # fmt: skip
        write_json(run / ABOUT, {**told, LEARNT: config.learnt()})
        folder, metrics, files = run / TRAINED, trained.metrics, [run / ABOUT]
        if evaluating:
            say(f"{config.name}: judging it")
            metrics = _evaluated(kind, config).metrics
            folder, files = config.model_folder, [*files, run / FIGURES]
        told |= {"digest": folder_digest(folder), "metrics": metrics}
        if kept is not None:
            named = {k: str(told[k]) for k in ("weights", "digest", "ended")}
            kept.finished(trained.step, metrics, Outcome(folder, tuple(files), named))
        status = "FINISHED"
        return told
    except loop.Interrupted:
        status = "KILLED"
        raise
    finally:
        if bar is not None:
            bar.close()
        if kept is not None:
            kept.ended(status)


def _done(config: Config, data: str) -> dict[str, Any] | None:
    """What is known of the model's folder, where this very run has made it already."""
    try:
        told = json.loads((config.run_folder / DONE).read_text())
        asked = {"config": config.digest(), "data": data, "minutes": config.minutes}
        if any(told[k] != v for k, v in asked.items()):
            return None
        return dict(told) if folder_digest(config.model_folder) == told["digest"] else None
    except (OSError, ValueError, KeyError, ModelRejected):
        return None


def _evaluated(kind: str, config: Config) -> kinds.Figures:
    trained, out = config.run_folder / TRAINED, config.model_folder
    if not trained.is_dir():
        raise bad(f"There is no {trained}: nothing was trained here yet.")
    _check_learnt(config)
    with replaced(out, MANIFEST) as fresh:
        # contents alone: what DVC keeps may not be written to
        shutil.copytree(trained, fresh, dirs_exist_ok=True, copy_function=shutil.copyfile)
        card = out / CARD
        if card.is_file():
            # words of people around the figures stay
            shutil.copyfile(card, fresh / CARD)
        found = kinds.evaluate(kind, config, config.prepared_folder, fresh)
    write_json(config.run_folder / FIGURES, {"metrics": found.metrics, "told": found.told})
    return found


def _check_learnt(config: Config) -> None:
    about, trained = config.run_folder / ABOUT, config.run_folder / TRAINED
    data = Store(config.prepared_folder).digest
    try:
        told = dict(json.loads(about.read_text()))
    except (OSError, ValueError, TypeError):
        raise bad(
            f"{about} is not there, or damaged: what {trained} has learnt is not known. Train again, or "
            "judge a folder where it lies (--model)."
        ) from None
    if told.get("data") != data:
        raise bad(
            f"{trained} has learnt from other data than are in {config.prepared_folder} now. Train "
            "again on these: frond train fit."
        )
    if told.get("config") == config.digest():
        return
    mine, then = config.learnt(), told.get(LEARNT)
    # a run of before it was kept has the digest alone
    if then is None:
        raise bad(f"{trained} was trained with another config. Train again with this one.")
    if other := sorted(k for k in mine.keys() | then.keys() if mine.get(k) != then.get(k)):
        raise bad(
            f"{trained} was trained with another config (other {', '.join(other)}; what the command line "
            "said counts). Train again with this one, or put back what it was."
        )


@contextmanager
def stopping() -> Iterator[Callable[[], bool]]:
    """Within, the first SIGTERM or SIGINT asks for a checkpoint; another one ends at once."""
    got: list[int] = []

    def heard(number: int, _: FrameType | None) -> None:
        if got:
            os._exit(128 + number)
        got.append(number)

    numbers: tuple[signal.Signals, ...] = (signal.SIGTERM, signal.SIGINT)
    if threading.current_thread() is not threading.main_thread():
        numbers = ()  # only the main thread may ask for signals
    before = {n: signal.signal(n, heard) for n in numbers}
    try:
        yield lambda: bool(got)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def locked(folder: Path) -> AbstractContextManager[None]:
    """One process at a time trains in a folder.

    Raises (once it is entered):
        UserError: another one does.
    """
    told = f"Another process trains in {folder}. Wait for it, or use --run."
    return held(folder / ".lock", told)


def alone(config: Config) -> AbstractContextManager[None]:
    """One process at a time makes a model's folder, whichever folders they train in.

    Raises (once it is entered):
        UserError: another one does.
    """
    out = config.model_folder
    told = f"Another process makes the model in {out}. Wait for it, or use another --out."
    return held(out.with_name(f".{out.name}.lock"), told)


def as_line(told: Mapping[str, Any]) -> str:
    """The last line on stdout."""
    return json.dumps(told, sort_keys=True)
