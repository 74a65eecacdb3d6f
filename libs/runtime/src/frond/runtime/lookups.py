"""Asking the system's resolver for users' names, in threads of their own.

A name whose servers are silent holds a thread until the resolver gives up, which is longer than
whoever asked waits. So one tenant's names hold a share of the threads and no more, and none of those
that all else in the process has in common.
"""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Lock
from typing import Any, Final

_THREADS: Final = 128
_SHARE: Final = 32


class Lookups:
    """The look-ups of one process.

    Args:
        threads: how many at once; far more than anybody waits for, since most of those that get no
            answer are waited for by nobody any more.
        share: how many of these may be one tenant's.
        getaddrinfo: the resolver.
    """

    def __init__(
        self,
        threads: int = _THREADS,
        share: int = _SHARE,
        getaddrinfo: Callable[..., Any] = socket.getaddrinfo,
    ) -> None:
        self._getaddrinfo = getaddrinfo
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="lookup")
        self._share = share
        self._running: Counter[str | None] = Counter()
        self._lock = Lock()

    async def ask(self, host: str, port: int, tenant: str | None) -> Sequence[str]:
        """A name's addresses as this machine's resolver orders them.

        Raises:
            OSError: the name cannot be resolved now, or the tenant's share is used up.
            UnicodeError: it can be no name.
        """
        with self._lock:
            if self._running[tenant] >= self._share:
                raise OSError("too many names of this tenant wait for their name servers")
            asked = self._threads.submit(self._getaddrinfo, host, port, type=socket.SOCK_STREAM)
            self._running[tenant] += 1
        # when its thread is free, not when nobody waits for it any more
        asked.add_done_callback(partial(self._ended, tenant))
        infos = await asyncio.wrap_future(asked)
        return list(dict.fromkeys(str(info[4][0]) for info in infos))

    def _ended(self, tenant: str | None, _: object) -> None:
        with self._lock:
            self._running -= Counter({tenant: 1})
