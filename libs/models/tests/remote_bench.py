"""A model that a server runs, and what the server is told to answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from frond.models.testing import MAGENTA
from frond.models.testing_server import ModelServer, served_folder

SIZE = 64


def windows(count: int, seed: int = 1) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    made = rng.integers(40, 120, (count, 3, SIZE, SIZE)).astype(np.uint8)
    for window in made:
        for _ in range(3):
            x, y = rng.integers(4, SIZE - 20, 2)
            window[:, y : y + 12, x : x + 12] = np.array(MAGENTA)[:, None, None]
    return list(made)


def remote_of(local: Path, server: ModelServer, **more: Any) -> Path:
    return served_folder(local, local.parent / "served", server.url, **more)


LATER = {"Retry-After": "600"}


def status(code: int, words: str = "", **headers: str) -> Any:
    return lambda handler: handler.answer(code, {"error": words}, headers)
