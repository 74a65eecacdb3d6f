"""What a sender wishes of a job, and whether a job that is there is the one that was wished for."""

from __future__ import annotations

import re
from typing import Final, Literal

from pydantic import BaseModel

from frond.contracts.ids import check_job_id
from frond.contracts.jobs import JobSpec, Shadow, ShadowWish, Thresholds
from frond.ingest import names
from frond.runtime import Egress

_DIGEST: Final = re.compile(r"[0-9a-f]{8,64}")


class Wish(BaseModel):
    """What a sender may say about a job, checked."""

    job_id: str | None = None
    model: str | None = None
    shadow: ShadowWish | Literal["none"] | None = None
    thresholds: Thresholds = Thresholds()
    webhook_url: str | None = None
    email: str | None = None

    def check(self, egress: Egress) -> None:
        """Raise Refused or JobRejected when something in it cannot be."""
        if self.job_id is not None:
            check_job_id(self.job_id)
            names.check_not_reserved(self.job_id)
        names.check_webhook(self.webhook_url, egress)
        names.check_email(self.email, egress)


def same_but_moved(stored: JobSpec, spec: JobSpec, wish: Wish) -> bool:
    """Whether the stored job is what this wish was, or would have been when it was made."""
    # aliases may have moved since the job began, and a standing shadow too; what is pinned stays
    rest: dict[str, object] = {"created": None}
    if _by_alias(wish.model) and stored.model.name == spec.model.name:
        rest["model"] = stored.model
    if wish.shadow is None or met(wish, stored.shadow):
        rest["shadow"] = stored.shadow
    return spec.model_copy(update=rest) == stored.model_copy(update={"created": None})


def met(wish: Wish, stored: Shadow | None) -> bool:
    """Whether the shadow that is pinned may be what this wish meant when the job began."""
    if stored is None or not isinstance(wish.shadow, ShadowWish):
        return False
    ref = wish.shadow.model.strip()
    name, _, version = ref.partition("@")
    same = (name, wish.shadow.share) == (stored.model.name, stored.share)
    return same and (_by_alias(ref) or stored.model.digest.startswith(version))


def _by_alias(ref: str | None) -> bool:
    return ref is None or not _DIGEST.fullmatch(ref.strip().partition("@")[2])
