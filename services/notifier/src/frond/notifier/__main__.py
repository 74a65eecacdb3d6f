"""``python -m frond.notifier``."""

from __future__ import annotations

from frond.notifier.settings import NotifierSettings
from frond.notifier.wiring import notify
from frond.runtime import serve


def main() -> None:
    """Run the notifier until SIGTERM."""
    serve("notifier", NotifierSettings.read(), [notify])


if __name__ == "__main__":
    main()
