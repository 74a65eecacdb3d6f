"""What ingest reads from its environment."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import AliasChoices, Field, field_validator

from frond.auth import AuthSettings, Place, places_of
from frond.runtime import ServiceSettings

GIB = 1 << 30


class IngestSettings(ServiceSettings, AuthSettings):
    """Settings of the REST door.

    ``API_HOST``, ``API_PORT`` and ``DATABASE_PATH`` keep the names they always had; the rest are
    ``FROND_`` variables.
    """

    http_host: str = Field(
        default="127.0.0.1", validation_alias=AliasChoices("API_HOST", "FROND_HTTP_HOST")
    )
    http_port: int = Field(
        default=8000, validation_alias=AliasChoices("API_PORT", "FROND_HTTP_PORT")
    )
    # people and programs wait for its answers while everybody else works
    nice: int = Field(default=0, ge=0, le=19)
    database_path: Path = Field(
        default=Path(".frond/ingest.db"),
        validation_alias=AliasChoices("DATABASE_PATH", "FROND_DATABASE_PATH"),
    )
    database_url: str = Field(
        default="", description="postgresql+psycopg://…; empty: SQLite at database_path"
    )
    s3_public_endpoint: str = Field(
        default="", description="how clients reach the store; empty: at s3_endpoint, as we do"
    )
    max_files: int = Field(default=100_000, ge=1, description="images a job may have")
    max_open_jobs: int = Field(
        default=0,
        ge=0,
        description="jobs of a tenant, or of none, that have not ended; 0: no limit",
    )
    tenant_places: str = Field(
        default="",
        description="acme=s3://imagery/acme/,…: where tenants' rasters may lie; empty: in every "
        "allowed bucket",
    )
    max_file_bytes: int = Field(default=250 * GIB, ge=1, description="bytes of one image")
    max_model_bytes: int = Field(default=4 * GIB, ge=1, description="bytes of a pushed model")
    presign_seconds: int = Field(default=6 * 3600, ge=60, le=7 * 24 * 3600)
    presign_with: Literal["sts", "own"] = Field(
        default="sts",
        description="what signs the addresses of parts: temporary keys for one object, as MinIO lends "
        "them, or this installation's own, for a store that refuses headers that nobody signed, as "
        "AWS S3 does",
    )
    sweep_seconds: float = Field(default=60.0, gt=0)
    sweep_after_seconds: float = Field(
        default=30.0, ge=0, description="how old an unseen input record is when it is sent again"
    )
    abandoned_seconds: float = Field(
        default=24 * 3600.0, gt=0, description="how old an unanswered form is when it is removed"
    )
    streams_at_once: int = Field(
        default=100, ge=0, description="event streams of a key; 0: no limit"
    )
    heartbeat_seconds: float = Field(default=15.0, gt=0, description="on event streams")

    @field_validator("tenant_places")
    @classmethod
    def _readable(cls, value: str) -> str:
        places_of(value)
        return value

    @property
    def places(self) -> dict[str, tuple[Place, ...]]:
        """FROND_TENANT_PLACES by tenant."""
        return places_of(self.tenant_places)

    @property
    def database(self) -> str:
        """The SQLAlchemy URL; makes the folder of the SQLite file."""
        if self.database_url:
            return self.database_url
        self.database_path.parent.mkdir(parents=True, exist_ok=True)
        return f"sqlite+aiosqlite:///{self.database_path}"
