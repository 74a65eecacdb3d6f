"""The scenarios, by name. Each is imported when it is run, so that one cannot break the others."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from chaos.installation import Needs

if TYPE_CHECKING:
    from chaos.world import World


@dataclass(frozen=True)
class Scenario:
    """One way of making trouble: ``scenarios/<name>.py`` with ``NAME``, ``ABOUT``, ``run``.

    Attributes:
        number: decides which job numbers are its own; never changes.
    """

    name: str
    number: int

    @property
    def module(self) -> str:
        return f"{__name__}.{self.name}"

    @property
    def there(self) -> bool:
        return importlib.util.find_spec(self.module) is not None

    @property
    def about(self) -> str:
        return str(importlib.import_module(self.module).ABOUT)

    @property
    def needs(self) -> Needs:
        found = getattr(importlib.import_module(self.module), "NEEDS", Needs())
        assert isinstance(found, Needs)
        return found

    @property
    def run(self) -> Callable[[World], Awaitable[None]]:
        run: Callable[[World], Awaitable[None]] = importlib.import_module(self.module).run
        return run


_NAMES: Final = (
    "crash_points", "random_kills", "storms", "network", "derived", "disk", "receivers", "fuzz",
)  # fmt: skip
SCENARIOS: Final[dict[str, Scenario]] = {n: Scenario(n, i + 1) for i, n in enumerate(_NAMES)}
QUIET: Final = Scenario("quiet", 20)
"""No trouble; what a sabotage is done to."""
