"""Runs that are compared with each other: what is done is kept, and not done again."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, Final

from frond.training.config import Config

FILE: Final = "comparison.json"


class Comparison:
    """The figures of runs by name, in ``folder/comparison.json`` as soon as there are any.

    Attributes:
        runs: what each run gave, in the order of the runs.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        path = folder / FILE
        self.runs: dict[str, dict[str, Any]] = (
            json.loads(path.read_text())["runs"] if path.is_file() else {}
        )

    def run(
        self,
        name: str,
        config: Config,
        digest: str,
        work: Callable[..., dict[str, Any]],
        *args: Any,
        **told: Any,
    ) -> bool:
        """``work(config, *args, digest, folder)``, unless this very run is there; else False.

        It is called in a process of its own, since makers of batches are forked. ``folder`` is for
        its checkpoint: a comparison that was stopped goes on in the middle of a run. ``told`` is
        kept beside what it returns.
        """
        key = f"{digest[:12]} {config.digest()[:12]} {config.minutes}"
        if self.runs.get(name, {}).get("of") == key:
            return False
        # a checkpoint is gone on from by a run that is the same in every respect alone
        place = self._folder / hashlib.sha256(f"{name} {key}".encode()).hexdigest()[:12]
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=spawn) as pool:
            result = pool.submit(work, config, *args, digest, place).result()
        shutil.rmtree(place)
        self.runs[name] = {
            "of": key, "minutes": config.minutes, "seed": config.seed, **told, **result,
        }  # fmt: skip
        self._write()
        return True

    def _write(self) -> None:
        path = self._folder / FILE
        fresh = path.with_name(f".{path.name}.{os.getpid()}")
        fresh.write_text(json.dumps({"runs": self.runs}, indent=1) + "\n", encoding="utf-8")
        fresh.replace(path)


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """In Markdown."""
    head = list(head)
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
