"""Reader processes: a raster that kills or hangs its reader takes nothing else with it."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final, TypeVar, cast

from frond.contracts.errors import RasterRejected, StoreUnavailable
from frond.contracts.reasons import Reason
from frond.raster import parcels
from frond.raster.child import serve

A = TypeVar("A")
R = TypeVar("R")

PAUSES_S: Final = (1.0, 5.0, 15.0)
"""After which a killed reader's call is made again: where memory runs out the kernel kills readers
first, whoever takes it."""
# a reader may crash for no fault of the raster's: once
_LIVES: Final = 2
_STARTS: Final = 3
_START_S: Final = 120.0
_GONE_S: Final = 5.0


class ReaderFailed(Exception):
    """The work raised something that is neither a rejection nor an outage; holds its traceback."""


class Sandbox:
    """A fixed number of child processes that run one call each at a time.

    Args:
        memory_mb: what each may allocate; 0: as much as there is.
        pauses_s: before each new attempt at a call whose child was killed from outside.
        lost: told why, whenever a child was lost: ``died``, ``killed`` (from outside) or ``timeout``.

    Children are spawned when first needed and reused. They end with this process, however it
    ends, and whatever they are doing. Calls are begun in the order in which they were made.
    """

    def __init__(
        self,
        readers: int,
        *,
        memory_mb: int = 0,
        pauses_s: Sequence[float] = PAUSES_S,
        lost: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.readers = readers
        self._memory_mb = memory_mb
        self._pauses_s = tuple(pauses_s)
        self._lost = lost
        self._pool = ThreadPoolExecutor(readers, thread_name_prefix="reader")
        self._local = threading.local()
        self._lock = threading.Lock()
        self._children: set[_Child] = set()
        self._pausing: set[_Hold] = set()
        self._closing = threading.Event()

    async def run(
        self,
        call: Callable[[A], R],
        argument: A,
        timeout_s: float,
        abandoned: Callable[[], None] | None = None,
    ) -> R:
        """Run ``call(argument)`` in a child; both, and the result, must pickle.

        Large arrays in argument and result are not copied on the way and cannot be written to.
        The time is for the call alone; it may ask for :func:`more_time`.
        A caller that is cancelled has the child killed: nobody waits for what it was doing.

        Args:
            abandoned: called in some thread once a call has ended whose caller was cancelled
                meanwhile; clears away what the call has left.

        Raises:
            RasterRejected: as the call says; READ_TIMEOUT; READER_DIED after the second crash;
                UNAVAILABLE: its child was killed from outside, and again after each pause.
            StoreUnavailable: as the call says.
            ReaderFailed: the call raised anything else.
        """
        hold = _Hold()
        future = self._submit(call, argument, timeout_s, hold)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            hold.let_go()
            if abandoned is not None:
                clear = abandoned
                future.add_done_callback(lambda _: clear())
            raise

    def wait(self, call: Callable[[A], R], argument: A, timeout_s: float) -> R:
        """As :meth:`run`, for a thread of the caller's: blocks until there is a result."""
        return self._submit(call, argument, timeout_s, _Hold()).result()

    def warm(self, call: Callable[[A], Any], argument: A, timeout_s: float = _START_S) -> None:
        """Have every child started and make this call, so that the first one that counts need not
        wait. Returns at once; what comes of the calls is not told."""
        for _ in range(self.readers):
            self._submit(call, argument, timeout_s, _Hold())

    def close(self) -> None:
        """End the children, whatever they are doing."""
        self._closing.set()
        with self._lock:
            children, pausing = set(self._children), set(self._pausing)
        for child in children:
            child.process.kill()
        for hold in pausing:
            hold.let_go()
        # whoever waits for a child sees it die, and gives up
        self._pool.shutdown(wait=True, cancel_futures=True)
        with self._lock:
            children, self._children = self._children, set()
        for child in children:
            child.end()

    def _submit(
        self, call: Callable[[A], R], argument: A, timeout_s: float, hold: _Hold
    ) -> Future[R]:
        return self._pool.submit(self._run, call, argument, timeout_s, hold)

    def _run(self, call: Callable[[A], R], argument: A, timeout_s: float, hold: _Hold) -> R:
        lives, starts, pauses = _LIVES, _STARTS, iter(self._pauses_s)
        while lives and starts:
            if self._closing.is_set():
                raise ReaderFailed("the sandbox is closed")
            if hold.over.is_set():
                raise ReaderFailed("given up")
            child = self._child()
            try:
                with hold.on(child):
                    answer = child.ask(call, argument, timeout_s)
            except _NotThere:
                self._lose(child, "died")
                starts -= 1
            except TimeoutError as e:
                self._lose(child, "timeout")
                raise RasterRejected(
                    Reason.READ_TIMEOUT,
                    f"Reading the image took longer than {e} s. "
                    "Re-tile it, for example with gdal_translate -of COG.",
                ) from None
            except (EOFError, OSError):
                # a decoder that crashes ends by another signal; those that end a child here say so first
                ours = hold.over.is_set() or self._closing.is_set()
                if ours or child.exit_code() != -signal.SIGKILL:
                    self._lose(child, "died")
                    lives -= 1
                else:
                    self._lose(child, "killed")
                    self._pause(pauses, hold)
            else:
                return cast(R, _opened(answer))
        if lives:
            raise ReaderFailed("reader processes end before they begin what they are given")
        raise RasterRejected(
            Reason.READER_DIED,
            "The image makes the program that reads it crash. Export it again, for example with "
            "gdal_translate -of COG.",
        )

    def _pause(self, pauses: Iterator[float], hold: _Hold) -> None:
        """Leave a killed child's memory to others, for the next of its call's pauses."""
        pause = next(pauses, None)
        if pause is None:
            raise RasterRejected(
                Reason.UNAVAILABLE,
                "The program that reads the image was killed several times, most likely because memory "
                "runs out here. Send the image again when there is less to do; if it fails by itself, "
                "too, re-tile it, for example with gdal_translate -of COG.",
            )
        with self._lock:
            if self._closing.is_set():
                return
            self._pausing.add(hold)
        try:
            # who gives up meanwhile keeps no reader from others
            hold.over.wait(pause)
        finally:
            with self._lock:
                self._pausing.discard(hold)

    def _child(self) -> _Child:
        child: _Child | None = getattr(self._local, "child", None)
        if child is None:
            child = _Child(self._memory_mb)
            with self._lock:
                if not self._closing.is_set():
                    self._children.add(child)
                    self._local.child = child
                    return child
            child.end()
            raise ReaderFailed("the sandbox is closed")
        return child

    def _lose(self, child: _Child, why: str) -> None:
        self._lost(why)
        self._local.child = None
        with self._lock:
            self._children.discard(child)
        child.end()
        if not self._closing.is_set():
            # it starts while nobody waits for it; what keeps it from starting is the next call's
            with contextlib.suppress(OSError, ReaderFailed):
                self._child()


class _Hold:
    """A call's hold on the child that runs it: whoever gives the call up has the child killed, as
    long as it is this call's."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._child: _Child | None = None
        self.over = threading.Event()

    @contextlib.contextmanager
    def on(self, child: _Child) -> Iterator[None]:
        with self._lock:
            if self.over.is_set():
                raise ReaderFailed("given up")
            self._child = child
        try:
            yield
        finally:
            with self._lock:
                self._child = None

    def let_go(self) -> None:
        with self._lock:
            self.over.set()
            if self._child is not None:
                self._child.process.kill()


class _NotThere(Exception):
    """The child was gone before it began what it was given."""


class _Child:
    def __init__(self, memory_mb: int) -> None:
        # spawned, not forked: GDAL and this process have threads
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(
            target=serve, args=(theirs, memory_mb, os.getpid()), daemon=True
        )
        self.process.start()
        theirs.close()
        self._ready = False
        self._known: set[Callable[[Any], Any]] = set()

    def ask(self, call: Callable[[Any], Any], argument: Any, timeout_s: float) -> tuple[Any, ...]:
        # it may have to import the call first: seconds, on a machine that has much to do
        new = call not in self._known
        try:
            parcel = parcels.pack((call, argument, new))
        except OSError as e:
            # a shortage of this process's own: neither child nor image is to blame
            raise ReaderFailed(f"no memory to hand over what is to be read: {e}") from e
        try:
            if not self._ready:
                if not self.pipe.poll(_START_S):
                    raise EOFError
                self.pipe.recv_bytes()
                self._ready = True
            parcel.send(self.pipe)
            if new:
                if not self.pipe.poll(_START_S):
                    raise EOFError
                answer: tuple[Any, ...] = parcels.receive(self.pipe).opened()
                if answer[0] != "begins":
                    return answer
                self._known.add(call)
        except (EOFError, OSError) as e:
            raise _NotThere from e
        finally:
            parcel.close()
        began = time.monotonic()
        while self.pipe.poll(max(0.0, began + timeout_s - time.monotonic())):
            answer = parcels.receive(self.pipe).opened()
            if answer[0] != "more":
                return answer
            timeout_s += answer[1]
        raise TimeoutError(f"{timeout_s:.0f}")

    def exit_code(self) -> int | None:
        """Of a child whose pipe has ended; None where it lives all the same."""
        with contextlib.suppress(OSError, ValueError, AssertionError):
            self.process.join(_GONE_S)
        return self.process.exitcode

    def end(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self.process.kill()
        with contextlib.suppress(OSError):
            self.pipe.close()
        with contextlib.suppress(OSError, ValueError, AssertionError):
            self.process.join(5)


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
