"""Secrets of tenants: fixed for ever, and apart."""

from __future__ import annotations

import base64
import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frond.contracts.signing import tenant_secrets

MASTER = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OLD = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"


def test_without_a_tenant_it_is_the_installations() -> None:
    """An installation of one stays as it is."""
    assert tenant_secrets(f" {OLD}  {MASTER}\n", None) == f"{OLD} {MASTER}"
    assert tenant_secrets("", "acme") == tenant_secrets("", None) == ""


def test_a_tenants_secret_never_changes() -> None:
    """Receivers have it in their configuration: written out here, by RFC 2104 alone."""
    key = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    made = hmac.new(key, b"frond.webhook-secret.tenant.v1\0acme", hashlib.sha256).digest()
    assert tenant_secrets(MASTER, "acme") == "whsec_" + base64.b64encode(made).decode()


def test_rotation_gives_as_many_in_the_same_order() -> None:
    both = tenant_secrets(f"{OLD} {MASTER}", "acme").split()
    assert both == [tenant_secrets(OLD, "acme"), tenant_secrets(MASTER, "acme")]


@given(st.sets(st.text(st.characters(codec="utf-8")), min_size=2, max_size=4))
def test_no_two_tenants_share_one(tenants: set[str]) -> None:
    """Nor has one the installation's; an unnamed tenant is a tenant, too."""
    made = {tenant_secrets(MASTER, t) for t in tenants}
    assert len(made) == len(tenants)
    assert MASTER not in made


def test_missing_padding_changes_nothing() -> None:
    """Standard Webhooks takes such a secret, and so must what is made of it."""
    made = "whsec_" + base64.b64encode(b"a secret of twenty-five b").decode()
    assert made.endswith("==")
    assert tenant_secrets(made.rstrip("="), "acme") == tenant_secrets(made, "acme")


@pytest.mark.parametrize("tenant", ["acme", None])
@pytest.mark.parametrize(
    "secret",
    ["whsec_", "whsec_a", "whsec_é", "oops", "whsec_" + "YWJj" * 7 + "YWI", f"{MASTER} oops"],
)
def test_what_is_no_secret_is_told(secret: str, tenant: str | None) -> None:
    """Also a word that happens to be base64, and 23 bytes: what can be guessed signs nothing."""
    with pytest.raises(ValueError, match="base64 of 24 bytes or more"):
        tenant_secrets(secret, tenant)
