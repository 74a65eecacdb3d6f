"""Threads, batch and concurrency of a model on the machine at hand: measured once, and never at the cost of a bit.

What a stopwatch finds differs from machine to machine, and what Frond stores must not. So a setting
other than the plain one is taken only where it gives the same bytes for the same windows.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from frond.contracts.errors import ModelRejected
from frond.contracts.ids import digest
from frond.models.folder import folder_digest, load_manifest
from frond.models.machine import cores, resident, room, words
from frond.models.session import DEFAULT_BATCH, PROVIDERS, ModelSession

CPU_BATCH: Final = 1
"""Windows a run on a CPU, before anything is measured: a short chunk wastes nothing."""
GPU_BATCH: Final = 8
_MOST_CPU: Final = 8
_MOST_GPU: Final = 32
_MOST_AT_ONCE: Final = 8
"""Runs: each takes memory for a batch on its way through the graph."""
_MOST_TWICE: Final = 256 << 20
"""Bytes of a model that is loaded a second time."""
_OF_ROOM: Final = 0.5
"""Of the memory that is left, for what a trial is expected to hold."""
_WORTH: Final = 0.9
_PAYS: Final = 0.97
_AS_GOOD: Final = 1.03
_RUNS: Final = 5
_CPU: Final = PROVIDERS[-1]
_SAMPLES: Final = 3
# whoever changes what is tried, or what is taken, counts on
_VERSION: Final = 3

Rows = list[bytes]


class Trial(BaseModel):
    """One setting, tried: milliseconds a window, the least of a few full runs."""

    model_config = ConfigDict(frozen=True)

    threads: int
    batch: int
    concurrency: int = 1
    ms: float
    same: bool
    """Whether it gave the bytes that the plain setting gives."""


class Tuning(BaseModel):
    """What was found.

    Attributes:
        providers: that it was measured with, the first one first: not always those asked for.
        threads: of a run that is alone.
        concurrency: runs at once, which share the cores; 1: one after another.
        rows_alike: a window's outputs do not depend on its row in a batch, nor on the others in it,
            as far as samples show: windows of different chunks may share a run.
        sizes_alike: nor on how many windows a run has: runs need not be filled up.
        tried: the settings, the one taken last.
    """

    model_config = ConfigDict(frozen=True)

    providers: tuple[str, ...]
    threads: int = Field(ge=1)
    batch: int = Field(ge=1)
    concurrency: int = Field(default=1, ge=1)
    rows_alike: bool = False
    sizes_alike: bool = False
    tried: tuple[Trial, ...] = ()


def tuned(
    folder: Path,
    *,
    providers: Sequence[str] = PROVIDERS,
    threads: int = 0,
    batch: int = 0,
    cache_dir: Path,
    seconds: float = 5.0,
    servers: Sequence[str] | None = None,
) -> ModelSession:
    """A session with the best setting for this machine; the search is kept below ``cache_dir``.

    Nothing is measured of a model that a server runs: it runs with the batch given, else eight.

    Args:
        threads: of one run; 0: to be found.
        batch: where neither manifest nor graph says; 0: to be found.
        seconds: after which nothing further is tried, but what has begun is ended; 0: nothing is measured, and the plain
            setting is taken: a thread for each core, one window a run on a CPU and eight on a GPU.
        servers: as of :class:`ModelSession`.

    Raises:
        ModelRejected, ModelUnavailable: as :class:`ModelSession`.
    """
    if load_manifest(folder).server is not None:
        # what a stopwatch sees is the server's load, and what a sample shows may change with it
        return ModelSession(folder, batch=batch or DEFAULT_BATCH, servers=servers)

    chain = providers

    def opened(threads: int, batch: int, concurrency: int = 1) -> ModelSession:
        session = ModelSession(
            folder, providers=chain, threads=threads, batch=batch, cache_dir=cache_dir
        )
        session.share(concurrency)
        return session

    offered = [p for p in providers if p in ort.get_available_providers()]
    asked = [str(threads), str(batch), f"{seconds:g}", *offered]
    key = digest("tuning", str(_VERSION), folder_digest(folder), ort.__version__, *words(), *asked)
    place = cache_dir / "tuning" / f"{key}.json"
    if seconds and (session := _as_before(place, opened)) is not None:
        return session
    before = resident()
    plain = opened(threads, batch or (GPU_BATCH if _CPU not in offered[:1] else CPU_BATCH))
    # what cannot run it now is not asked again, and complained of, for each setting
    chain = [p for p in providers if p in plain.providers]
    on_cpu = plain.providers[0] == _CPU
    if on_cpu and not batch and plain.free_batch and plain.batch != CPU_BATCH:
        # a wheel for devices that are not there
        plain = opened(threads, CPU_BATCH)
    if not seconds:
        return plain
    until = time.monotonic() + seconds
    # TensorRT builds an engine for each batch, and tunes itself
    free = plain.free_batch and not batch and plain.providers[0] != PROVIDERS[0]
    shared = on_cpu and not threads and _size(folder) <= _MOST_TWICE
    tried = _try(
        plain, opened, until=until, held=resident() - before if on_cpu else 0,
        threads=[threads] if threads else _halves(cores()),
        at_once=min(cores(), _MOST_AT_ONCE) if shared else 1,
        most=(_MOST_CPU if on_cpu else _MOST_GPU) if free else plain.batch,
    )  # fmt: skip
    session = _fastest(plain, opened, tried)
    rows = _rows_alike(session, until)
    if session.batch != plain.batch and not rows:
        fits = sorted((t for t in tried if t.same and t.batch == plain.batch), key=lambda t: -t.ms)
        tried = [*(t for t in tried if t not in fits), *fits]
        session = _fastest(plain, opened, fits)
        rows = _rows_alike(session, until)
    # a GPU's kernels depend on how many windows there are
    sizes = rows and on_cpu and session.free_batch and _sizes_alike(session, until)
    found = Tuning(
        providers=session.providers, threads=session.threads, batch=session.batch, concurrency=session.concurrency,
        rows_alike=rows, sizes_alike=sizes, tried=tuple(tried),
    )  # fmt: skip
    _keep(place, found)
    return _as_found(session, found)


def _as_before(place: Path, opened: Callable[[int, int, int], ModelSession]) -> ModelSession | None:
    """A session as it was found best; None where nothing is kept that holds for the providers that
    run it now."""
    found = _kept(place)
    # the device may have less room than it had
    with contextlib.suppress(ModelRejected):
        if found is not None:
            session = opened(found.threads, found.batch, found.concurrency)
            # a device that is mended, or broken since: bytes and speed are others there
            if session.providers == found.providers:
                return _as_found(session, found)
    return None


def _as_found(session: ModelSession, found: Tuning) -> ModelSession:
    session.rows_alike, session.sizes_alike = found.rows_alike, found.sizes_alike
    return session


def search(
    trial: Callable[[int, int, int], Trial | None],
    *,
    threads: Sequence[int],
    batch: int,
    most: int,
    at_once: int = 1,
) -> list[Trial]:
    """The settings tried, in order but for the best, which comes last.

    Fewer threads are taken where they are as fast: what is left reads rasters. Several runs at
    once where they are faster at all, then larger batches where these save a tenth or more: each
    time twice as many as before, until that does not pay.

    Args:
        trial: tries threads, batch and concurrency; None where there is no time left, or they do
            not work.
        threads: in the order to try them.
        batch: the first one; ``most``: the last.
        at_once: the most runs at once.
    """
    tried: list[Trial] = []
    best: Trial | None = None

    def attempt(threads: int, batch: int, concurrency: int, worth: float) -> bool:
        nonlocal best
        one = trial(threads, batch, concurrency)
        if one is None:
            return False
        tried.append(one)
        if best is not None and not (one.same and one.ms <= best.ms * worth):
            return False
        best = one
        return True

    for count in threads:
        if not attempt(count, batch, 1, _AS_GOOD):
            break
    if best is None:
        return []
    enough, runs = best.threads, 1
    while runs < at_once and attempt(enough, batch, min(runs * 2, at_once), _PAYS):
        runs = min(runs * 2, at_once)
    while batch * 2 <= most and attempt(enough, batch * 2, runs, _WORTH):
        batch *= 2
    return [*(t for t in tried if t is not best), best]


def _try(
    plain: ModelSession,
    opened: Callable[[int, int, int], ModelSession],
    *,
    threads: Sequence[int],
    at_once: int,
    most: int,
    until: float,
    held: int,
) -> list[Trial]:
    def trial(threads: int, batch: int, concurrency: int) -> Trial | None:
        first = (threads, batch, concurrency) == (plain.threads, plain.batch, 1)
        if not first and time.monotonic() > until:
            return None
        # nobody is told who is ended for want of memory, and its successor would try the same again
        if not first and held * concurrency * batch / plain.batch > room() * _OF_ROOM:
            return None
        try:
            session = plain if first else opened(threads, batch, concurrency)
            if session.providers != plain.providers:
                # too large for the device, and on the next one: what that takes says nothing here
                return None
            # a full run, and one that is not, where there is such a thing
            windows = _windows(session, max(_SAMPLES, batch + 1))
            wanted = _rows(plain, windows)
            same = all(_rows(session, windows, how) == wanted for how in _graphs(session))
            ms = _ms_a_window(session, until)
        except ModelRejected:
            # a batch too large for the memory that there is, most likely
            return None
        return Trial(
            threads=threads, batch=batch, concurrency=concurrency, ms=round(ms, 3), same=same
        )

    return search(trial, threads=threads, batch=plain.batch, most=most, at_once=at_once)


def _fastest(
    plain: ModelSession, opened: Callable[[int, int, int], ModelSession], tried: Sequence[Trial]
) -> ModelSession:
    if tried:
        best = tried[-1]
        found = best.threads, best.batch, best.concurrency
        if found != (plain.threads, plain.batch, 1):
            with contextlib.suppress(ModelRejected):
                return opened(*found)
    return plain


def _size(folder: Path) -> int:
    return sum(p.stat().st_size for p in folder.iterdir() if p.is_file())


def _halves(count: int) -> Sequence[int]:
    """All cores, half of them, a quarter …: hardware threads share cores, and containers' share of
    the cores is often smaller than their number."""
    found = [count]
    while count >= 4:
        count //= 2
        found.append(count)
    return found


def _windows(session: ModelSession, count: int) -> list[NDArray[np.uint8]]:
    rng = np.random.default_rng(20_26)
    return [session.sample(rng) for _ in range(count)]


def _graphs(session: ModelSession) -> Sequence[bool]:
    """``beside`` of each of its graphs."""
    return (False,) if session.concurrency == 1 else (False, True)


def _rows(
    session: ModelSession, windows: Sequence[NDArray[np.uint8]], beside: bool = False
) -> Rows:
    """Each window's outputs as bytes, the windows run in batches in their order."""
    found: Rows = []
    for i in range(0, len(windows), session.batch):
        part = windows[i : i + session.batch]
        outputs = session.infer(session.prepare(part), len(part), beside=beside)
        if len(part) == 1 == session.batch:
            found.append(b"".join(outputs[k].tobytes() for k in sorted(outputs)))
            continue
        found += [
            b"".join(outputs[k][row].tobytes() for k in sorted(outputs)) for row in range(len(part))
        ]
    return found


def _rows_alike(session: ModelSession, until: float) -> bool:
    """Whether no window's bytes depend on its row and on the others; False where time runs out."""
    if session.batch == 1 or time.monotonic() > until:
        return False
    windows = _windows(session, session.batch)
    there = _rows(session, windows)
    for how in _graphs(session):
        if time.monotonic() > until or there != _rows(session, windows[::-1], how)[::-1]:
            return False
        for wanted, window in zip(there[:_SAMPLES], windows, strict=False):
            # beside nothing but itself
            alone = [window] * session.batch
            if time.monotonic() > until or _rows(session, alone, how)[-1] != wanted:
                return False
    return True


def _sizes_alike(session: ModelSession, until: float) -> bool:
    windows = _windows(session, session.batch)
    full = _rows(session, windows)
    session.sizes_alike = True
    try:
        return all(
            time.monotonic() <= until and _rows(session, windows[:count], how) == full[:count]
            for how in _graphs(session)
            for count in range(1, session.batch)
        )
    except ModelRejected:
        return False
    finally:
        session.sizes_alike = False


def _ms_a_window(session: ModelSession, until: float) -> float:
    """Milliseconds, with as many runs at once as the session has; the least of a few measurements,
    of one where time has run out."""
    windows, runs = _windows(session, session.batch), session.concurrency
    prepared = session.prepare(windows)

    def run(_: int) -> None:
        session.infer(prepared, len(windows), beside=runs > 1)

    took: list[float] = []
    with ThreadPoolExecutor(runs) as threads:
        while len(took) < _RUNS and not (took and time.monotonic() > until):
            # two after one another, with several at once, too: they need not end together, and what
            # is measured longer meets more of what else goes on
            started = time.perf_counter()
            list(threads.map(run, range(2 * runs)))
            took.append((time.perf_counter() - started) / (2 * runs))
    return min(took) / session.batch * 1e3


def _kept(place: Path) -> Tuning | None:
    with contextlib.suppress(OSError, ValidationError, UnicodeDecodeError):
        return Tuning.model_validate_json(place.read_text())
    return None


def _keep(place: Path, found: Tuning) -> None:
    # without it everything works, a little later
    with contextlib.suppress(OSError):
        place.parent.mkdir(parents=True, exist_ok=True)
        part = place.with_suffix(f".{secrets.token_hex(8)}")
        part.write_text(found.model_dump_json(indent=1) + "\n")
        part.replace(place)


__all__ = ["CPU_BATCH", "GPU_BATCH", "Trial", "Tuning", "search", "tuned"]
