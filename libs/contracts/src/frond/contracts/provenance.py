"""What a file says of how it came to be: the software, the raster, the model and the plan."""

from __future__ import annotations

from importlib.metadata import version
from typing import Final

from frond.contracts.plan import ImagePlan

GENERATOR: Final = f"frond {version('frond-contracts')}"
"""What made a file, with its version."""


def provenance(plan: ImagePlan) -> dict[str, str]:
    """The tags of a file that is made from an image's plan.

    No id is among them, which has the job's in it: another job of the same object gives the same
    bytes, but for a raster that is read by a tiled copy: its plan names the copy, which lies in the job.
    """
    return {
        "generator": GENERATOR,
        "image": plan.image,
        "image_checksum": plan.image_checksum,
        "model": plan.model.name,
        "model_version": plan.model.version,
        "model_digest": plan.model.digest,
        "plan_digest": plan.plan_digest,
    }
