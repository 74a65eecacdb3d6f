"""What a door refuses to start with."""

from __future__ import annotations

import os
import socket

import pytest
from pydantic import ValidationError

from frond.auth import AuthSettings


def test_off_looks_at_inherited_sockets() -> None:
    """A socket of FROND_HTTP_FD takes the place of FROND_HTTP_HOST: what counts is where it really
    listens. Looking closes nothing."""

    class Here(AuthSettings):
        http_host: str = "127.0.0.1"
        http_fd: str = ""

    with socket.create_server(("127.0.0.1", 0)) as own, socket.create_server(("", 0)) as wide:
        Here(auth="off", http_fd=str(own.fileno()))
        for numbers in (f"{wide.fileno()}", f"{own.fileno()},{wide.fileno()}"):
            with pytest.raises(ValidationError, match=r"FROND_HTTP_FD listens at 0\.0\.0\.0"):
                Here(auth="off", http_fd=numbers)
            Here(http_fd=numbers)
        assert own.getsockname() and wide.getsockname()
        gone = str(os.dup(own.fileno()))
        os.close(int(gone))
    for wrong in (gone, "x", "99999999999"):
        with pytest.raises(ValidationError, match="no inherited socket"):
            Here(auth="off", http_fd=wrong)
