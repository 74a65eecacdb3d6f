"""What a service reads from its environment."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class ServiceSettings(BaseSettings):
    """Settings of every service: environment variables that begin with ``FROND_``.

    Services add their own fields in a subclass.
    """

    model_config = SettingsConfigDict(env_prefix="FROND_", extra="ignore", populate_by_name=True)

    kafka_bootstrap: str = "127.0.0.1:9092"
    topic_prefix: str = Field(default="", description="so that installations can share a broker")
    s3_endpoint: str = "http://127.0.0.1:9000"
    s3_access_key: str = ""
    s3_secret_key: SecretStr = SecretStr("")
    s3_bucket: str = "frond"
    s3_region: str = "us-east-1"
    allowed_buckets: str = Field(
        default="", description="comma-separated: where rasters may lie besides s3_bucket"
    )
    http_host: str = "127.0.0.1"
    http_port: int = Field(default=0, description="health, metrics, API; 0 takes a free port")
    log_level: str = "INFO"
    cache_dir: Path = Field(default=Path("~/.cache/frond"), description="models, temporary files")
    default_model: str = "palm-detector"

    @property
    def buckets(self) -> frozenset[str]:
        """Every bucket that image URIs may name."""
        more = (b.strip() for b in self.allowed_buckets.split(","))
        return frozenset({self.s3_bucket, *(b for b in more if b)})

    @property
    def cache(self) -> Path:
        """The cache directory, made if it was not there."""
        path = self.cache_dir.expanduser()
        path.mkdir(parents=True, exist_ok=True)
        return path

    def group(self, service: str) -> str:
        """The consumer group of a service in this installation."""
        return f"{self.topic_prefix}frond.{service}"
