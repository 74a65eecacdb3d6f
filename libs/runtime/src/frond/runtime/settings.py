"""What a service reads from its environment."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Self

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from frond.runtime.egress import Egress

_LEAVING_S: Final = 5.0
_LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


class ServiceSettings(BaseSettings):
    """Settings of every service: environment variables that begin with ``FROND_``.

    Services add their own fields in a subclass.
    """

    model_config = SettingsConfigDict(
        env_prefix="FROND_", extra="ignore", populate_by_name=True,
        # an error is logged, and what was refused may be a secret with a slip in it
        hide_input_in_errors=True,
    )  # fmt: skip

    kafka_bootstrap: str = "127.0.0.1:9092"
    topic_prefix: str = Field(default="", description="so that installations can share a broker")
    replication_factor: int = Field(
        default=1, ge=1,
        description="of the topics that are made: on how many brokers each event lies",
    )  # fmt: skip
    s3_endpoint: str = "http://127.0.0.1:9000"
    s3_access_key: str = ""
    s3_secret_key: SecretStr = SecretStr("")
    s3_bucket: str = "frond"
    s3_region: str = Field(default="us-east-1", min_length=1)
    allowed_buckets: str = Field(
        default="", description="comma-separated: where rasters may lie besides s3_bucket"
    )
    egress_allow: str = Field(
        default="",
        description="comma-separated networks, addresses and host names that are not public and "
        "that users' webhooks may lead to all the same; empty: none",
    )
    http_host: str = "127.0.0.1"
    http_port: int = Field(default=0, description="health, metrics, API; 0 takes a free port")
    lookahead: int = Field(
        default=10_000, ge=1,
        description="events that a consumer reads ahead, to serve jobs in turn; 32 MiB at most",
    )  # fmt: skip
    session_timeout_s: float = Field(
        default=10.0, ge=1,
        description="how soon the events of a worker that died go to another one",
    )  # fmt: skip
    drain_s: float = Field(
        default=25.0, gt=0,
        description="how long a service may take to end after a SIGTERM, work in hand included",
    )  # fmt: skip
    nice: int = Field(
        default=5, ge=0, le=19,
        description="of the process: how far it gives way to what somebody waits for, on a machine "
        "whose cores are all busy",
    )  # fmt: skip
    http_fd: str = Field(
        default="",
        description="numbers of inherited listening sockets, comma-separated, in place of "
        "http_host and http_port",
    )
    log_level: str = Field(default="INFO", description=f"one of {', '.join(_LEVELS)}")
    cache_dir: Path = Field(default=Path("~/.cache/frond"), description="models, temporary files")
    default_model: str = Field(
        default="palm-detector", min_length=1, description="of jobs that name none"
    )

    @field_validator("*", mode="before")
    @classmethod
    def _empty_is_not_set(cls, value: object, info: ValidationInfo) -> object:
        """No number, no path and no text of a least length is empty: Compose hands on so what
        nobody has set."""
        if value == "" and info.field_name is not None:
            field = cls.model_fields[info.field_name]
            some = any(getattr(m, "min_length", 0) for m in field.metadata)
            if some or isinstance(field.default, int | float | Path):
                return field.default
        return value

    @property
    def buckets(self) -> frozenset[str]:
        """Every bucket that image URIs may name."""
        more = (b.strip() for b in self.allowed_buckets.split(","))
        return frozenset({self.s3_bucket, *(b for b in more if b)})

    @classmethod
    def read(cls) -> Self:
        """What the environment says; for a service's ``main``.

        Raises:
            SystemExit: a variable cannot be used; with a sentence that names it, not its value.
        """
        try:
            return cls()
        except ValidationError as e:
            raise SystemExit(
                "\n".join(
                    _told(cls, error["loc"], error["msg"])
                    for error in e.errors(include_url=False, include_input=False)
                )
            ) from None

    @field_validator("log_level")
    @classmethod
    def _is_a_level(cls, value: str) -> str:
        level = value.upper() or "INFO"
        if level not in _LEVELS:
            raise ValueError(f"say one of {', '.join(_LEVELS)}")
        return level

    @field_validator("egress_allow")
    @classmethod
    def _is_a_list(cls, value: str) -> str:
        Egress(value)
        return value

    @property
    def egress(self) -> Egress:
        """The guard of whatever is sent to an address that a user named."""
        return Egress(self.egress_allow)

    @property
    def finish_s(self) -> float:
        """How long work in hand may take after a SIGTERM: the rest of ``drain_s`` is for committing it
        and for leaving."""
        return max(self.drain_s - _LEAVING_S, self.drain_s / 2)

    @property
    def cache(self) -> Path:
        """The cache directory, made if it was not there."""
        path = self.cache_dir.expanduser()
        path.mkdir(parents=True, exist_ok=True)
        return path

    def group(self, service: str) -> str:
        """The consumer group of a service in this installation."""
        return f"{self.topic_prefix}frond.{service}"


def _told(settings: type[ServiceSettings], where: tuple[int | str, ...], what: str) -> str:
    what = what.removeprefix("Value error, ")
    if not where:
        return f"Settings do not fit: {what}"
    name = str(where[0])
    return f"{f'FROND_{name.upper()}' if name in settings.model_fields else name} cannot be used: {what}"
