"""Who asks: credentials at the gateway, and the short-lived signed identity that goes from service to service.

The gateway asks `Credentials` who the caller is (nobody, unless something says otherwise), and its `Issuer` signs a
token for the service it calls. Every service behind it believes only its `Verifier`.
"""

from shared_clients.identity.callers import HEADER, Credentials, DenyAll, DevKey, require
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
from shared_clients.identity.senders import Oidc, OidcSenders, SharedSecret
from shared_clients.identity.tokens import LIFETIME, Identity, Issuer, Verifier, no_identity

__all__ = [
    "HEADER",
    "LIFETIME",
    "Credentials",
    "DenyAll",
    "DevKey",
    "Identity",
    "Issuer",
    "Oidc",
    "OidcSenders",
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
    "require",
    "trust",
]
