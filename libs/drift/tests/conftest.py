"""Makes ``drift_support`` importable beside the tests (pytest imports by path)."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
