"""Training runs by REST, for admins."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, Protocol
from urllib.parse import quote

from frond.client.errors import FrondClientError

_LOOK_S: Final = 2.0
_FINAL: Final = ("succeeded", "failed", "cancelled")


class _Pages(Protocol):
    def __call__(
        self, path: str, what: str, query: Mapping[str, Any], limit: int | None
    ) -> Iterator[dict[str, Any]]: ...


class Training:
    """``Client.training``: have models trained. Needs a key with the scope ``admin``.

    Nothing is trained here, and nothing promoted: a run's version gets an alias, by default
    ``staging``.
    """

    def __init__(
        self, ask: Callable[..., dict[str, Any]], pages: _Pages, sleep: Callable[[float], None]
    ) -> None:
        self._ask = ask
        self._pages = pages
        self._sleep = sleep

    def start(
        self,
        model: str,
        recipe: str,
        *,
        minutes: float | None = None,
        steps: int | None = None,
        seed: int | None = None,
        why: str = "",
        alias: str | None = None,
    ) -> dict[str, Any]:
        """Ask for a run; returns it as it stands.

        Args:
            recipe: ``palm`` or ``landcover``, or a config of one of them.
            minutes, steps, seed: in place of what the config says.
        """
        given = {"minutes": minutes, "steps": steps, "seed": seed}
        overrides = {k: v for k, v in given.items() if v is not None}
        body = {
            "model": model,
            "recipe": recipe,
            "overrides": overrides,
            "why": why,
            "alias": alias,
        }
        return self._ask("POST", "/training", body)

    def show(self, training_id: str) -> dict[str, Any]:
        """Where a run stands."""
        return self._ask("GET", f"/training/{quote(training_id, safe='')}")

    def list(self, limit: int | None = None) -> list[dict[str, Any]]:
        """Runs, the newest first; all of them by default."""
        return list(self._pages("/training", "training", {}, limit))

    def cancel(self, training_id: str) -> dict[str, Any]:
        """Have a run stop: one that waits has ended then, a running one ends within seconds."""
        return self._ask("DELETE", f"/training/{quote(training_id, safe='')}")

    def watch(self, training_id: str, timeout: float | None = None) -> Iterator[dict[str, Any]]:
        """How a run stands, every two seconds, until it has ended.

        Raises:
            FrondClientError: it has not ended after ``timeout`` seconds.
        """
        began = time.monotonic()
        while True:
            run = self.show(training_id)
            yield run
            if run["status"] in _FINAL:
                return
            if timeout is not None and time.monotonic() - began > timeout:
                raise FrondClientError(
                    f"Training {training_id} has not ended after {timeout:g} s; it goes on."
                )
            self._sleep(_LOOK_S)
