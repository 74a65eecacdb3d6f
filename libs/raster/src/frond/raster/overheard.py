"""What GDAL mutters about the network while it reads.

A range request that fails in the middle of a raster becomes, one layer up, "got 0 bytes, expected
65536": the same words as for a file that was cut off. Only a warning tells the two apart, and
rasterio passes it to a logger.
"""

from __future__ import annotations

import logging
import re
import threading
from collections import deque
from typing import Final

_KEPT: Final = 64
# a request that was given up; one that is "Retrying again" is not
_RANGE: Final = re.compile(r"Request for (\d+)-(\d+) failed with response_code=(\d+)")
_GIVEN_UP: Final = re.compile(
    r"(HTTP response code on .*: (0|429|5\d\d)\b|CURL error|Timeout was reached)"
)
_PASSING: Final = re.compile(r"^(0|429|5\d\d)$")


class _Heard(threading.local):
    def __init__(self) -> None:
        self.count = 0
        self.said: deque[tuple[int, str]] = deque(maxlen=_KEPT)
        self.size: int | None = None


_heard = _Heard()


class _Listener(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if _RANGE.search(text) or _GIVEN_UP.search(text):
            _heard.count += 1
            _heard.said.append((_heard.count, text))


_listener: Final = _Listener(logging.INFO)


def listen() -> None:
    """Hear what GDAL says from now on, in every thread of this process."""
    logger = logging.getLogger("rasterio")
    if _listener not in logger.handlers:
        logger.addHandler(_listener)


def opened(size: int | None) -> None:
    """This thread reads an object of this many bytes from now on; None: nobody knows."""
    _heard.size = size


def moment() -> int:
    """Now, for :func:`since`."""
    return _heard.count


def since(then: int) -> str | None:
    """The first failure of the network that this thread met since a moment, or None.

    A range that ends beyond the object's end is no failure of the network's: the raster asks for
    bytes that it does not have.
    """
    for count, text in _heard.said:
        if count > then and _is_network(text):
            return text
    return None


def _is_network(text: str) -> bool:
    asked = _RANGE.search(text)
    if asked is None:
        return True
    if _PASSING.match(asked[3]):
        return True
    # the answer began and broke off
    return asked[3] in ("200", "206") and _heard.size is not None and int(asked[2]) < _heard.size
