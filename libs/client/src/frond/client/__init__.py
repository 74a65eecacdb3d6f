"""The frond command and the Python client.

from frond.client import Client

with Client() as frond:                     # FROND_API_URL and FROND_API_KEY, or .frond/env
    job = frond.upload(["north.tif", "south.tif"])
    print(frond.wait(job)["detections"])
    frond.download(job, "coco.json", "results/coco.json")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from frond.client.client import Client
    from frond.client.errors import FrondClientError, NotReachable
    from frond.client.transfer import Progress
    from frond.client.watching import JobEvent

__all__ = ["Client", "FrondClientError", "JobEvent", "NotReachable", "Progress"]

_WHERE = {
    "Client": "client",
    "FrondClientError": "errors",
    "JobEvent": "watching",
    "NotReachable": "errors",
    "Progress": "transfer",
}


def __getattr__(name: str) -> Any:
    # `frond --help` should not wait for an HTTP library
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
