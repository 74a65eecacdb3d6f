"""Who asks, for which tenant, and what they may do."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from frond.contracts.errors import JobRejected
from frond.contracts.reasons import Reason

DEFAULT_TENANT: Final = "default"
"""The tenant of keys and tokens that name none."""
TENANT_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
_TENANT: Final = re.compile(TENANT_PATTERN)


class Scope(StrEnum):
    """What a key or token may be used for. ``admin`` includes the others."""

    SUBMIT = "submit"
    """Make and change jobs; predict."""
    READ = "read"
    """Status, results, events, models."""
    ADMIN = "admin"
    """Keys, and the jobs of all tenants."""


@dataclass(frozen=True, slots=True)
class Principal:
    """Whoever sent a request, once that is known.

    Attributes:
        subject: ``key:ID``, ``jwt:SUB``, or ``installation``: what limits are counted by.
        tenant: whose jobs they make; None: nobody's, which only admins see.
    """

    subject: str
    tenant: str | None
    scopes: frozenset[Scope]

    @property
    def admin(self) -> bool:
        return Scope.ADMIN in self.scopes

    def may(self, scope: Scope) -> bool:
        """Whether they hold this scope."""
        return self.admin or scope in self.scopes

    def require(self, scope: Scope) -> None:
        """Raise JobRejected (FORBIDDEN) unless they hold this scope."""
        if not self.may(scope):
            have = ", ".join(sorted(self.scopes)) or "none"
            raise JobRejected(
                Reason.FORBIDDEN,
                f"This needs the scope {scope.value!r}; your key has {have}. "
                "An admin makes keys with `frond keys create --scope …`.",
            )

    def sees(self, tenant: str | None) -> bool:
        """Whether what belongs to this tenant is theirs to see."""
        return self.admin or (tenant is not None and tenant == self.tenant)

    def own(self, name: str) -> str:
        """A name in a namespace of the tenant's own: two tenants' equal names differ."""
        return name if self.tenant is None else f"{name}\n{self.tenant}"


INSTALLATION: Final = Principal("installation", None, frozenset(Scope))
"""The holder of FROND_API_KEY."""
ANYBODY: Final = Principal("anybody", None, frozenset(Scope))
"""Everyone, where FROND_AUTH is off."""


def check_tenant(tenant: str) -> str:
    """The tenant's name. Raises JobRejected when it could not be one."""
    if not _TENANT.fullmatch(tenant):
        raise JobRejected(
            Reason.BAD_REQUEST,
            "A tenant's name has 1 to 64 letters, digits, dots, dashes and underscores, and starts "
            "with a letter or a digit.",
        )
    return tenant


def scopes_of(names: Iterable[str]) -> frozenset[Scope]:
    """The scopes among these names (``submit`` or ``frond:submit``); others are not ours."""
    known = {s.value for s in Scope}
    bare = (n.removeprefix("frond:") for n in names)
    return frozenset(Scope(n) for n in bare if n in known)
