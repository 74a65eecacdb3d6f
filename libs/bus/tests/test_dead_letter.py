"""A dead letter keeps the message as it was."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from frond.bus import DeadLetter

texts = st.text(st.characters(codec="utf-8"), max_size=50)


@given(
    st.none() | st.binary(max_size=50), st.none() | st.binary(max_size=50),
    st.lists(st.tuples(st.sampled_from(["ce_type", "x"]), st.binary(max_size=20)), max_size=3),
    texts, st.integers(0, 2**40),
)  # fmt: skip
def test_round_trip(
    key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes]], why: str, offset: int
) -> None:
    """Key, value and original headers come back; so does where it lay and why it is dead."""
    letter = DeadLetter(
        topic="frond.uploaded.v1", partition=3, offset=offset, group="g", reason="bad-request",
        detail=why, trace_id="", attempts=0, time="2026-01-01T00:00:00Z", key=key, value=value,
        headers=headers,
    )  # fmt: skip
    back = DeadLetter.from_message(key, value, letter.to_headers())
    assert back == letter
    assert back.id == letter.id
