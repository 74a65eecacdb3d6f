"""The inference service, to which some rasters do harm: run as a program of its own.

Those of ``SEGFAULT`` columns end the process that reads them, those of ``ENDLESS`` never let it go.
"""

from __future__ import annotations

import ctypes
from typing import Any, Final

SEGFAULT: Final = 300
ENDLESS: Final = 301


def read(block: Any) -> Any:
    """What a reader process does."""
    from frond.raster import read_block

    if block.source.width == SEGFAULT:
        ctypes.string_at(0)
    while block.source.width == ENDLESS:
        pass
    return read_block(block)


def main() -> None:
    """As ``python -m frond.inference``."""
    from frond.inference.settings import InferenceSettings
    from frond.inference.wiring import Inference
    from frond.runtime import serve

    settings = InferenceSettings()
    inference = Inference(settings, read=read)
    serve("inference", settings, [inference.consume_chunks], make_app=inference.app)


if __name__ == "__main__":
    main()
