"""``python -m frond.tiler``."""

from __future__ import annotations


def main() -> None:
    """Run the tiler until it is asked to stop."""
    # here, because reader processes import this module, and need none of it
    from frond.runtime import serve
    from frond.tiler.settings import TilerSettings
    from frond.tiler.wiring import tile

    serve("tiler", TilerSettings.read(), [tile])


if __name__ == "__main__":
    main()
