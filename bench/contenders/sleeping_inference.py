"""The inference service with a model that sleeps: ``BENCH_SLEEP_S`` a window, and finds nothing."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any


def main() -> None:
    """Run until SIGTERM."""
    # here, because reader processes import this module, and need none of it
    import numpy as np

    from frond.inference import wiring
    from frond.inference.__main__ import main as serve
    from frond.inference.models import ModelCache
    from frond.models.session import Arrays, ModelSession

    sleep_s = float(os.environ["BENCH_SLEEP_S"])

    class Sleeping(ModelSession):
        def __init__(self, folder: Path) -> None:
            self._nothing: Arrays | None = None
            super().__init__(folder, threads=1, batch=1)
            self._nothing = super().infer(self.prepare([np.zeros(self._window, np.uint8)]), 1)

        def infer(self, prepared: Any, windows: int, **how: Any) -> Arrays:
            if self._nothing is None:
                return super().infer(prepared, windows, **how)
            time.sleep(sleep_s)
            return self._nothing

    class Models(ModelCache):
        def _open(self, folder: Path) -> ModelSession:
            return Sleeping(folder)

    wiring.ModelCache = Models
    serve()


if __name__ == "__main__":
    main()
