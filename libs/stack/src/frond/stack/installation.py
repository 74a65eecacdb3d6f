"""One installation on this machine: its keys, ports and the environment of its services."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import secrets
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Final, Self

from frond.contracts.ids import API_KEY
from frond.stack.endpoints import Endpoints, new_keys
from frond.stack.errors import StackError
from frond.stack.paths import free_port, port_is_free

SERVICES: Final = ("ingest", "tiler", "inference", "aggregator", "notifier")
_KEPT: Final = ("FROND_API_KEY", "FROND_WEBHOOK_SECRET")
"""What is kept from one start to the next, and the environment may replace."""
_SOURCED: Final = "FROND_SOURCED"
"""Digests of what the env file itself set, so that a shell that sourced it wishes for nothing: it may
have done so before a key was replaced."""


@dataclass
class Installation:
    """What stays the same from one ``up`` to the next; kept in ``installation.json``, mode 600.

    Attributes:
        ports: by name: ``kafka``, ``s3``, and each service.
        webhook_secret: ``whsec_…`` of the Standard Webhooks specification.
    """

    access_key: str
    secret_key: str
    api_key: str
    webhook_secret: str
    bucket: str = "frond"
    topic_prefix: str = ""
    ports: dict[str, int] = field(default_factory=dict)

    @classmethod
    def load_or_make(cls, state: Path) -> Self:
        """The installation of this folder; a new one with random keys where there was none."""
        path = state / "installation.json"
        if path.exists():
            return cls(**json.loads(path.read_text()))
        access, secret = new_keys()
        made = cls(
            access_key=access,
            secret_key=secret,
            api_key=f"frond_{secrets.token_urlsafe(32)}",
            webhook_secret="whsec_" + base64.b64encode(secrets.token_bytes(24)).decode(),
        )
        made.save(state)
        return made

    def with_keys(self, given: Mapping[str, str]) -> Self:
        """With the API key and the webhook secret that are given, in place of its own.

        Raises:
            StackError: the key is somebody's, made by ``frond keys``.
        """
        refuse_personal_key(given)
        return replace(
            self,
            api_key=given.get("FROND_API_KEY") or self.api_key,
            webhook_secret=given.get("FROND_WEBHOOK_SECRET") or self.webhook_secret,
        )

    def save(self, state: Path) -> None:
        write_private(state / "installation.json", json.dumps(asdict(self), indent=1))

    def take_ports(self, names: tuple[str, ...]) -> None:
        """Give each name a port: its earlier one where that is free, else another.

        ``API_PORT`` in the environment decides for ingest.
        """
        wanted = os.environ.get("API_PORT")
        if wanted:
            self.ports["ingest"] = int(wanted)
        taken: set[int] = set()
        for name in names:
            port = self.ports.get(name, 0)
            while port == 0 or port in taken or not port_is_free(port):
                port = free_port()
            self.ports[name] = port
            taken.add(port)

    @property
    def api_url(self) -> str:
        return f"http://127.0.0.1:{self.ports['ingest']}"

    def public_env(self, endpoints: Endpoints) -> dict[str, str]:
        """What clients, publishers and subscribers on this machine need."""
        env = {
            "FROND_API_URL": self.api_url,
            **endpoints.env(),
            "FROND_S3_BUCKET": self.bucket,
            "FROND_API_KEY": self.api_key,
            "FROND_WEBHOOK_SECRET": self.webhook_secret,
            _SOURCED: f"{_digest(self.api_key)} {_digest(self.webhook_secret)}",
        }
        if "inference" in self.ports:
            env["FROND_INFERENCE_URL"] = f"http://127.0.0.1:{self.ports['inference']}"
        if self.topic_prefix:
            env["FROND_TOPIC_PREFIX"] = self.topic_prefix
        return env

    def service_env(
        self, name: str, endpoints: Endpoints, state: Path, given: Mapping[str, str] | None = None
    ) -> dict[str, str]:
        """The whole environment of one service's process: this process's, and what is given."""
        port = str(self.ports[name])
        around = {**os.environ, **(given or {})}
        env = {
            **around,
            **self.public_env(endpoints),
            "FROND_HTTP_HOST": "127.0.0.1",
            "FROND_HTTP_PORT": port,
            "FROND_PUBLIC_URL": around.get("FROND_PUBLIC_URL") or self.api_url,
            "FROND_CACHE_DIR": str(state / "cache"),
            "DATABASE_PATH": os.environ.get("DATABASE_PATH")
            or str(state / "data" / "frond.sqlite"),
            "PYTHONUNBUFFERED": "1",
            "NO_PROXY": ",".join(filter(None, [os.environ.get("NO_PROXY"), "127.0.0.1,localhost"])),
        }
        if name == "ingest":
            env |= {"API_HOST": "127.0.0.1", "API_PORT": port}
        else:
            for only_ingest in ("API_HOST", "API_PORT"):
                env.pop(only_ingest, None)
        return env


def refuse_personal_key(given: Mapping[str, str]) -> None:
    """The command line's key has the same name in the environment as the installation's own.

    Raises:
        StackError: the key is somebody's, made by ``frond keys``.
    """
    if API_KEY.fullmatch(given.get("FROND_API_KEY", "")):
        raise StackError(
            "FROND_API_KEY in this shell is a key that `frond keys` made for somebody. As the "
            "installation's own key it would open everything to them: unset FROND_API_KEY first."
        )


def settings_of(env: Mapping[str, str]) -> dict[str, str]:
    """The settings in an environment that somebody has set, by name.

    Not those that only came from sourcing an installation's env file.
    """
    known = env.get(_SOURCED, "").split()
    return {
        name: value
        for name, value in env.items()
        if name.startswith(("FROND_", "WEBHOOK_"))
        and name != _SOURCED
        and not (name in _KEPT and _digest(value) in known)
    }


def _digest(value: str) -> str:
    return hashlib.sha256(value.encode()).hexdigest()[:16]


def write_env_file(path: Path, env: Mapping[str, str], commands: Path | None = None) -> None:
    """``export NAME=value`` lines that a POSIX shell can source; mode 600.

    Args:
        commands: a folder that goes to the front of PATH when the file is sourced.
    """
    lines = [f"export {name}={shlex.quote(value)}\n" for name, value in env.items()]
    if commands is not None:
        # the shell that sources it knows the rest
        lines.append(f'export PATH={shlex.quote(str(commands))}:"$PATH"\n')
    write_private(path, "".join(lines))


def read_env_file(path: Path) -> dict[str, str]:
    """The variables of a file that ``write_env_file`` wrote, without PATH."""
    env = {}
    for line in path.read_text().splitlines():
        words = shlex.split(line)
        if len(words) == 2 and words[0] == "export":
            name, _, value = words[1].partition("=")
            if name != "PATH":
                env[name] = value
    return env


def write_private(path: Path, text: str) -> None:
    """Write atomically, readable by this user alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as f:
        f.write(text)
    temporary.replace(path)
