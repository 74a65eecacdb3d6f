"""``python -m frond.client.demo [FOLDER]``."""

from __future__ import annotations

import sys
from pathlib import Path

from frond.client.demo import run_demo

if __name__ == "__main__":
    sys.exit(run_demo(Path(sys.argv[1] if len(sys.argv) > 1 else "demo-out")))
