"""``python -m frond.masks FOLDER PLAN.json MODEL.json``: :func:`frond.masks.build` as a program.

Ends with 0 and what was built, as one line of JSON; or, where somebody's input is at fault, with 3
and ``{"reason": …, "detail": …}``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Final

from frond.contracts.errors import UserError
from frond.contracts.modelspec import ModelManifest
from frond.contracts.plan import ImagePlan
from frond.masks.build import build

AT_FAULT: Final = 3


def main(arguments: list[str]) -> int:
    folder, plan, model = map(Path, arguments)
    try:
        built = build(
            folder,
            ImagePlan.model_validate_json(plan.read_bytes()),
            ModelManifest.model_validate_json(model.read_bytes()),
        )
    except UserError as e:
        _say({"reason": e.reason.value, "detail": e.detail})
        return AT_FAULT
    _say(
        {
            "regions": built.regions,
            "pixels": built.pixels,
            "unclassified": built.unclassified,
            "nodata": built.nodata,
        }
    )
    return 0


def _say(what: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(what) + "\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
