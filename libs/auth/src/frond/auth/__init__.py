"""Who may come in: API keys, JSON Web Tokens, tenants, limits a key."""

from frond.auth.bodies import AtOnce, Bodies
from frond.auth.gate import FIRST_KEY, Gate, claimed_id
from frond.auth.keys import KeyRecord, KeyStore
from frond.auth.limits import Rates, Throttled
from frond.auth.places import Place, places_of
from frond.auth.principal import (
    ANYBODY,
    DEFAULT_TENANT,
    INSTALLATION,
    Principal,
    Scope,
    check_tenant,
)
from frond.auth.settings import AuthSettings

__all__ = [
    "ANYBODY",
    "DEFAULT_TENANT",
    "FIRST_KEY",
    "INSTALLATION",
    "AtOnce",
    "AuthSettings",
    "Bodies",
    "Gate",
    "KeyRecord",
    "KeyStore",
    "Place",
    "Principal",
    "Rates",
    "Scope",
    "Throttled",
    "check_tenant",
    "claimed_id",
    "places_of",
]
