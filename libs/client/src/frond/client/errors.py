"""What the client raises.

FrondError
└── FrondClientError          the request was turned down, or it cannot be made
    └── NotReachable          nobody answers, after retries
"""

from __future__ import annotations

from frond.contracts.errors import FrondError


class FrondClientError(FrondError):
    """Something did not work, told in a sentence.

    Attributes:
        detail: the sentence.
        reason: Frond's reason code, where the service gave one.
        status: the HTTP status, where there was an answer.
        trace_id: what the operator finds in the logs.
    """

    def __init__(
        self,
        detail: str,
        *,
        reason: str | None = None,
        status: int | None = None,
        trace_id: str | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.reason = reason
        self.status = status
        self.trace_id = trace_id

    def __str__(self) -> str:
        return self.detail


class NotReachable(FrondClientError):
    """The service does not answer, or answers 503 for longer than we wait."""
