"""``python -m frond.ingest.openapi`` prints the OpenAPI document."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from frond.ingest.app import make_app
from frond.ingest.context import Ingest
from frond.ingest.settings import IngestSettings


def document() -> dict[str, Any]:
    """The OpenAPI document of this version; connects to nothing."""
    from frond.runtime import Health
    from frond.runtime.service import add_operations

    with tempfile.TemporaryDirectory() as folder:
        settings = IngestSettings(database_path=Path(folder) / "none.db", s3_endpoint="http://s3")
        app = make_app(Ingest(settings))
        add_operations(app, Health())
        return app.openapi()


def main() -> None:
    """Print it."""
    sys.stdout.write(json.dumps(document(), indent=2, sort_keys=True, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
