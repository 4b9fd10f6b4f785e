"""Authentication: of callers at the gateway, of services by a short-lived signed identity, and of the broker.

The gateway authenticates a caller with `Credentials`, which by default know no caller. Its `Issuer` signs a token for
the service that it calls. Each service behind the gateway trusts only the tokens that its `Verifier` accepts.
"""

from shared_clients.identity.callers import IDENTITY_HEADER, Credentials, DenyAll, DevKey, require_scope
from shared_clients.identity.keys import (
    TrustedKey,
    TrustedKeys,
    dump_trusted,
    generate_key,
    load_private,
    load_trusted,
    private_pem,
    trust,
)
from shared_clients.identity.senders import OidcSenders, OidcSettings, SharedSecret
from shared_clients.identity.tokens import LIFETIME, Identity, Issuer, Verifier, no_identity

__all__ = [
    "IDENTITY_HEADER",
    "LIFETIME",
    "Credentials",
    "DenyAll",
    "DevKey",
    "Identity",
    "Issuer",
    "OidcSenders",
    "OidcSettings",
    "SharedSecret",
    "TrustedKey",
    "TrustedKeys",
    "Verifier",
    "dump_trusted",
    "generate_key",
    "load_private",
    "load_trusted",
    "no_identity",
    "private_pem",
    "require_scope",
    "trust",
]
