"""What a service says of an environment that it cannot use."""

from __future__ import annotations

import pytest
from pydantic import AliasChoices, Field, SecretStr, field_validator, model_validator

from frond.runtime import ServiceSettings


class _Settings(ServiceSettings):
    webhook_secret: SecretStr = SecretStr("")
    port: int = Field(default=1, validation_alias=AliasChoices("API_PORT", "FROND_PORT"))

    @field_validator("webhook_secret")
    @classmethod
    def _fits(cls, value: SecretStr) -> SecretStr:
        if "slip" in value.get_secret_value():
            raise ValueError("write whsec_ and base64")
        return value

    @model_validator(mode="after")
    def _together(self) -> _Settings:
        if self.drain_s > 1000:
            raise ValueError("FROND_DRAIN_S is too long")
        return self


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        (
            "FROND_WEBHOOK_SECRET",
            "whsec_hunter2-slip",
            "FROND_WEBHOOK_SECRET cannot be used: write",
        ),
        ("FROND_LOOKAHEAD", "hunter2", "FROND_LOOKAHEAD cannot be used: "),
        ("API_PORT", "hunter2", "API_PORT cannot be used: "),
        ("FROND_LOG_LEVEL", "hunter2", "FROND_LOG_LEVEL cannot be used: say one of DEBUG, INFO"),
        ("FROND_DRAIN_S", "2000", "Settings do not fit: FROND_DRAIN_S is too long"),
    ],
)
def test_what_cannot_be_used_is_named_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    """One line names the variable and what is wrong with it. Its value, which may be a secret with
    a slip in it, is in no log, whether the sentence is shown or the error's own trace."""
    monkeypatch.setenv("FROND_S3_SECRET_KEY", "hunter2-of-the-store")
    monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as told:
        _Settings.read()
    assert str(told.value).startswith(said) and "\n" not in str(told.value)
    assert "hunter2" not in str(told.value)
    with pytest.raises(ValueError, match=r"validation error") as error:
        _Settings()
    assert "hunter2" not in str(error.value)


@pytest.mark.parametrize(
    ("given", "level"), [("debug", "DEBUG"), ("Warning", "WARNING"), ("", "INFO")]
)
def test_a_level_of_logs_may_be_written_in_any_case(
    monkeypatch: pytest.MonkeyPatch, given: str, level: str
) -> None:
    """``debug`` is as good as ``DEBUG``, and empty is the default."""
    monkeypatch.setenv("FROND_LOG_LEVEL", given)
    assert _Settings.read().log_level == level


@pytest.mark.parametrize(("drain_s", "finish_s"), [(25, 20), (120, 115), (6, 3)])
def test_work_in_hand_has_all_of_the_drain_but_a_few_seconds(
    drain_s: float, finish_s: float
) -> None:
    """What is left is for committing it; of a short one, half."""
    assert ServiceSettings(drain_s=drain_s).finish_s == finish_s
