"""The problem documents of every door."""

from __future__ import annotations

import json

import pytest

from frond.contracts.reasons import Reason
from frond.runtime.problems import MEDIA_TYPE, STATUS, Problem


@pytest.mark.parametrize("reason", STATUS)
def test_a_problem_says_what_a_client_needs(reason: Reason) -> None:
    """All members of RFC 9457, and our reason; with a 401 how to prove oneself, with a 503 when to
    come again."""
    answer = Problem("/x", STATUS[reason], reason, "No.", more={"trace_id": "t"})
    body = json.loads(bytes(answer.body))
    assert body.pop("title")
    assert body == {
        "type": f"urn:frond:problem:{reason.value}", "status": STATUS[reason], "detail": "No.",
        "instance": "/x", "reason": reason.value, "trace_id": "t",
    }  # fmt: skip
    assert answer.headers["content-type"] == MEDIA_TYPE
    assert (answer.headers.get("www-authenticate") == "Bearer") == (answer.status_code == 401)
    assert bool(answer.headers.get("retry-after")) == (answer.status_code == 503)


def test_a_door_may_know_better() -> None:
    """Its own Retry-After wins; text that is no Unicode is shown as far as it can be."""
    answer = Problem("/\ud800", 503, Reason.UNAVAILABLE, "é \udc80", headers={"Retry-After": "30"})
    assert answer.headers["retry-after"] == "30"
    assert json.loads(bytes(answer.body))["detail"] == "é ?"
