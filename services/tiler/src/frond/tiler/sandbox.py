"""Reader processes: a raster that kills or hangs its reader takes nothing else with it."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import resource
import signal
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from typing import Any, Final, TypeVar, cast

from frond.contracts.errors import RasterRejected, StoreUnavailable, UserError
from frond.contracts.reasons import Reason
from frond.tiler import metrics

A = TypeVar("A")
R = TypeVar("R")

# a reader may be killed for no fault of the raster's, by the kernel or by an operator: once
_LIVES: Final = 2
_START_S: Final = 120.0
_GREEDY: Final = (
    "Reading the image takes more memory than a reader may have (FROND_TILER_READER_MEMORY_MB). "
    "Re-tile it, for example with gdal_translate -of COG."
)


class ReaderFailed(Exception):
    """The work raised something that is neither a rejection nor an outage; holds its traceback."""


class Sandbox:
    """A fixed number of child processes that run one call each at a time.

    Args:
        memory_mb: what each may allocate; 0: as much as there is.

    Children are spawned when first needed and reused. They end with this process, however it
    ends: each waits on a pipe of which this process holds the other end.
    """

    def __init__(self, readers: int, *, memory_mb: int = 0) -> None:
        self._memory_mb = memory_mb
        self._pool = ThreadPoolExecutor(readers, thread_name_prefix="reader")
        self._local = threading.local()
        self._lock = threading.Lock()
        self._children: set[_Child] = set()
        self._closing = False

    async def run(
        self,
        call: Callable[[A], R],
        argument: A,
        timeout_s: float,
        abandoned: Callable[[], None] | None = None,
    ) -> R:
        """Run ``call(argument)`` in a child; both, and the result, must pickle.

        A caller that is cancelled has the child killed: nobody waits for what it was doing.

        Args:
            abandoned: called in some thread once a call has ended whose caller was cancelled
                meanwhile; clears away what the call has left.

        Raises:
            RasterRejected: as the call says; READ_TIMEOUT; READER_DIED after the second death.
            StoreUnavailable: as the call says.
            ReaderFailed: the call raised anything else.
        """
        hold = _Hold()
        future = self._pool.submit(self._run, call, argument, timeout_s, hold)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            hold.let_go()
            if abandoned is not None:
                clear = abandoned
                future.add_done_callback(lambda _: clear())
            raise

    def close(self) -> None:
        """End the children, whatever they are doing."""
        self._closing = True
        with self._lock:
            children = set(self._children)
        for child in children:
            child.process.kill()
        # whoever waits for a child sees it die, and gives up
        self._pool.shutdown(wait=True, cancel_futures=True)
        with self._lock:
            children, self._children = self._children, set()
        for child in children:
            child.end()

    def _run(self, call: Callable[[A], R], argument: A, timeout_s: float, hold: _Hold) -> R:
        for _ in range(_LIVES):
            if self._closing:
                raise ReaderFailed("the sandbox is closed")
            child = self._child()
            try:
                with hold.on(child):
                    answer = child.ask(call, argument, timeout_s)
            except TimeoutError:
                self._lose(child, "timeout")
                raise RasterRejected(
                    Reason.READ_TIMEOUT,
                    f"Reading the image took longer than {timeout_s:.0f} s. "
                    "Re-tile it, for example with gdal_translate -of COG.",
                ) from None
            except (EOFError, OSError):
                self._lose(child, "died")
            else:
                return cast(R, _opened(answer))
        raise RasterRejected(
            Reason.READER_DIED,
            "The image makes the program that reads it crash. Export it again, for example with "
            "gdal_translate -of COG.",
        )

    def _child(self) -> _Child:
        child: _Child | None = getattr(self._local, "child", None)
        if child is None:
            child = self._local.child = _Child(self._memory_mb)
            with self._lock:
                self._children.add(child)
        return child

    def _lose(self, child: _Child, why: str) -> None:
        metrics.READERS_LOST.labels(why).inc()
        self._local.child = None
        with self._lock:
            self._children.discard(child)
        child.end()


class _Hold:
    """A call's hold on the child that runs it: whoever gives the call up has the child killed, as
    long as it is this call's."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._child: _Child | None = None
        self._over = False

    @contextlib.contextmanager
    def on(self, child: _Child) -> Iterator[None]:
        with self._lock:
            if self._over:
                raise ReaderFailed("given up")
            self._child = child
        try:
            yield
        finally:
            with self._lock:
                self._child = None

    def let_go(self) -> None:
        with self._lock:
            self._over = True
            if self._child is not None:
                self._child.process.kill()


class _Child:
    def __init__(self, memory_mb: int) -> None:
        # spawned, not forked: GDAL and this process have threads
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, memory_mb), daemon=True)
        self.process.start()
        theirs.close()
        self._warm = False

    def ask(self, call: Callable[[Any], Any], argument: Any, timeout_s: float) -> tuple[Any, ...]:
        self.pipe.send((call, argument))
        if not self.pipe.poll(timeout_s if self._warm else timeout_s + _START_S):
            raise TimeoutError
        self._warm = True
        answer: tuple[Any, ...] = self.pipe.recv()
        return answer

    def end(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self.process.kill()
        with contextlib.suppress(OSError):
            self.pipe.close()
        with contextlib.suppress(OSError, ValueError, AssertionError):
            self.process.join(5)


def _serve(pipe: Connection, memory_mb: int = 0) -> None:
    if memory_mb:
        # an allocation beyond it fails, here alone, before the kernel looks for somebody to kill
        resource.setrlimit(resource.RLIMIT_DATA, (memory_mb << 20, memory_mb << 20))
    # a signal to the whole process group is the parent's business: it finishes what is in flight
    for sig in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sig, signal.SIG_IGN)
    while True:
        try:
            call, argument = pipe.recv()
        except (EOFError, OSError):
            return
        with contextlib.suppress(BrokenPipeError):
            pipe.send(_answer(call, argument))


def _answer(call: Callable[[Any], Any], argument: Any) -> tuple[Any, ...]:
    try:
        return ("done", call(argument))
    except UserError as e:
        return ("rejected", e.reason.value, e.detail)
    except StoreUnavailable as e:
        return ("away", str(e))
    except MemoryError:
        return ("rejected", Reason.TOO_LARGE.value, _GREEDY)
    except Exception:
        return ("failed", traceback.format_exc())


def _opened(answer: tuple[Any, ...]) -> Any:
    match answer:
        case ("done", value):
            return value
        case ("rejected", reason, detail):
            raise RasterRejected(Reason(reason), detail)
        case ("away", text):
            raise StoreUnavailable(text)
        case (_, text):
            raise ReaderFailed(text)
    raise AssertionError(answer)
