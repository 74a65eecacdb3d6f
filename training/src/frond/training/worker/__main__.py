"""``python -m frond.training.worker``."""

from __future__ import annotations

from frond.runtime import serve
from frond.training.worker.settings import TrainingSettings
from frond.training.worker.wiring import work


def main() -> None:
    """Train what is asked for until SIGTERM; a run under way is gone on with at the next start."""
    serve("training", TrainingSettings.read(), [work])


if __name__ == "__main__":
    main()
