"""The webhook receiver knows which of its answers were read."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator

import pytest

from chaos.installation import SECRET
from chaos.receiver import Mode, Receiver

REQUEST = b"POST /hook HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver(SECRET)
    receiver.start()
    yield receiver
    receiver.close()


def post(receiver: Receiver) -> socket.socket:
    sender = socket.create_connection(("127.0.0.1", receiver.port), timeout=10)
    sender.sendall(REQUEST)
    return sender


def test_whatever_is_asked_is_written_down(receiver: Receiver) -> None:
    """On any path and by any method, and that it was so."""
    for line in (b"POST /other", b"GET /hook"):
        with socket.create_connection(("127.0.0.1", receiver.port), timeout=10) as sender:
            sender.sendall(line + b" HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
            assert sender.recv(1000)
    assert [d.path for d in receiver.deliveries] == ["/other", "GET /hook"]


def settles(receiver: Receiver, *, read: bool, within: float = 15) -> bool:
    """Whether the one delivery comes to be one whose answer was read, or was not."""
    end = time.monotonic() + within
    while time.monotonic() < end:
        if [d.read for d in receiver.deliveries] == [read]:
            return True
        time.sleep(0.02)  # the receiver is a thread of its own
    return False


def test_an_answer_that_was_read(receiver: Receiver) -> None:
    """Its sender closes in peace; nothing changes thereafter."""
    with post(receiver) as sender:
        answer = b""
        while more := sender.recv(1000):
            answer += more
        assert b"200" in answer.splitlines()[0]
    assert not settles(receiver, read=False, within=0.5)


@pytest.mark.parametrize("linger", [True, False])
def test_an_answer_that_nobody_read(receiver: Receiver, linger: bool) -> None:
    """Its sender was gone by then, killed or tired of waiting: it cannot know of it."""
    receiver.behave(Mode.HANG)
    sender = post(receiver)
    while not receiver.deliveries:
        time.sleep(0.02)
    if linger:
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sender.close()
    receiver.behave(Mode.OK)
    assert settles(receiver, read=False)


def test_an_answer_that_lies_unread(receiver: Receiver) -> None:
    """It has arrived, and its reader closes without having looked at it."""
    sender = post(receiver)
    sender.recv(1, socket.MSG_PEEK)
    sender.close()
    assert settles(receiver, read=False)
