"""A dead letter keeps the message as it was."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from frond.bus import DeadLetter

names = st.sampled_from([
    "ce_type", "x", "dlq_", "dlq_id", "dlq_mark", "orig_dlq_id", "orig_orig_dlq_x", "orig_", "orig_x"
])  # fmt: skip
texts = st.text(st.characters(codec="utf-8"), max_size=50)


@given(
    st.none() | st.binary(max_size=50), st.none() | st.binary(max_size=50),
    st.lists(st.tuples(names, st.binary(max_size=20)), max_size=3),
    texts, st.integers(0, 2**40),
)  # fmt: skip
def test_round_trip(
    key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes]], why: str, offset: int
) -> None:
    """Key, value and original headers come back; so does where it lay and why it is dead."""
    letter = DeadLetter(
        topic="frond.uploaded.v1", partition=3, offset=offset, group="g", reason="bad-request",
        detail=why, trace_id="", attempts=1, time="2026-01-01T00:00:00Z", key=key, value=value,
        headers=headers,
    )  # fmt: skip
    back = DeadLetter.from_message(key, value, letter.to_headers())
    assert back == letter
    assert back.id == letter.id


def test_the_senders_headers_are_not_taken_for_ours() -> None:
    """Each name that we add is there once, whatever the message had."""
    letter = DeadLetter(
        "t", 1, 2, "g", "bad-request", "why", "", 1, "now", None, None,
        [("dlq_id", b"x"), ("dlq_mark", b"replayed"), ("dlq_id", b"y"), ("orig_dlq_id", b"z")],
    )  # fmt: skip
    lies = letter.to_headers()
    assert [v for k, v in lies if k == "dlq_id"] == [letter.id.encode()]
    assert "dlq_mark" not in dict(lies)
    assert [(k, v) for k, v in lies if not k.startswith("dlq_")] == [
        ("orig_dlq_id", b"x"), ("orig_dlq_mark", b"replayed"), ("orig_dlq_id", b"y"),
        ("orig_orig_dlq_id", b"z"),
    ]  # fmt: skip
