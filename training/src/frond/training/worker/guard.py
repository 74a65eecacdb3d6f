"""``python guard.py PARENT COMMAND…``, of the standard library alone: becomes the command, and ends
with its parent, however that ends: a training whose worker was killed must not go on beside the next
one.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from typing import Final

_PR_SET_PDEATHSIG: Final = 1


def main() -> None:
    """Never returns."""
    parent, *command = sys.argv[1:]
    # kept over exec
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(parent):
        sys.exit(1)
    try:
        os.execvp(command[0], command)  # noqa: S606 (the operator's own command)
    except OSError as e:
        sys.stderr.write(f"{command[0]} cannot be run: {e.strerror}. See FROND_TRAINING_PROGRAM.\n")
        sys.exit(127)


if __name__ == "__main__":
    main()
