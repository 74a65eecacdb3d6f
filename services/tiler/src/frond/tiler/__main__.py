"""``python -m frond.tiler``."""

from __future__ import annotations

from frond.runtime import serve
from frond.tiler.settings import TilerSettings
from frond.tiler.wiring import tile


def main() -> None:
    """Run the tiler until it is asked to stop."""
    serve("tiler", TilerSettings(), [tile])


if __name__ == "__main__":
    main()
