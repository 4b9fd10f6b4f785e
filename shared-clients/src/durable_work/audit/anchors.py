"""Anchor files: one append-only file for each chain, with one signed head in each line."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from pydantic import ValidationError

from shared_clients.errors import Permanent
from shared_clients.identity.keys import key_id, load_private
from shared_models.audit_chain import Anchor, Fault

LONGEST_LINE: Final = 4096

PublicKeys = Mapping[str, Ed25519PublicKey]
"""Public keys by `kid`; a retired key stays here as long as anchors that it signed are kept."""


@dataclass(frozen=True, slots=True)
class Anchored:
    """The contents of a chain's anchor file.

    Attributes:
        anchors: the valid anchors, by number.
        faults: one for each line that is unreadable, wrongly signed or contradicts another line.
    """

    anchors: Mapping[int, Anchor] = field(default_factory=dict)
    faults: tuple[Fault, ...] = ()


def read_keys(pems: Iterable[str]) -> PublicKeys:
    """Read public keys; a private key is read as its public half.

    Raises:
        ValueError: a key is not an Ed25519 key.
    """
    keys: dict[str, Ed25519PublicKey] = {}
    for pem in pems:
        key = load_private(pem).public_key() if "PRIVATE" in pem else load_pem_public_key(pem.encode())
        if not isinstance(key, Ed25519PublicKey):
            raise ValueError(f"expected an Ed25519 key, and got a {type(key).__name__}")  # noqa: TRY004 - the text is wrong, not the argument
        keys[key_id(key)] = key
    return keys


def sign(anchor: Anchor, key: Ed25519PrivateKey) -> Anchor:
    """Return the anchor with the key's thumbprint and the signature."""
    named = anchor.model_copy(update={"kid": key_id(key.public_key())})
    return named.model_copy(update={"signature": key.sign(named.signed()).hex()})


def append(folder: Path, anchor: Anchor) -> None:
    """Append an anchor to its chain's file, and return when it is on disk; the calling thread blocks meanwhile.

    Raises:
        Permanent: the file cannot be written.
    """
    path = _file(folder, anchor.chain)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = not path.exists()
        line = anchor.model_dump_json() + "\n"
        if not fresh and _tail(path, 1) != b"\n":
            line = f"\n{line}"  # a crash cut the last line
        _write(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, line.encode())
        if fresh:
            _write(folder, os.O_RDONLY)
    except OSError as error:
        raise Permanent(f"cannot write the audit anchor {path}: {error.strerror}") from error


def last_anchor(folder: Path, chain: str, keys: PublicKeys) -> Anchor | None:
    """Return the last readable anchor after a check of its signature; None where there is no anchor file.

    A line that a crash cut is skipped.

    Raises:
        Permanent: the file has no readable anchor in its last lines, or the last one is not validly signed.
    """
    path = _file(folder, chain)
    if not path.exists():
        return None
    for line in reversed(_tail(path, 4 * LONGEST_LINE).splitlines()):
        try:
            Anchor.model_validate_json(line)
        except ValidationError:
            continue
        anchor = _verified_anchor(line, chain, keys)
        if isinstance(anchor, str):
            remedy = (
                "run flotilla audit verify; after a change of keys, name the old one in FLOTILLA_AUDIT_PREVIOUS_KEY"
            )
            raise Permanent(f"the last anchor in {path} {anchor}; {remedy}")
        return anchor
    raise Permanent(f"{path} has no readable anchor in its last lines; restore the file from its copy")


def read_anchors(folder: Path, chain: str, keys: PublicKeys) -> Anchored:
    """Read a chain's file, and verify every signature."""
    path = _file(folder, chain)
    anchors: dict[int, Anchor] = {}
    faults: list[Fault] = []
    with path.open("rb") if path.exists() else open(os.devnull, "rb") as file:  # noqa: PTH123 - nothing is no file
        for line_number, line in enumerate(file, start=1):
            anchor = _verified_anchor(line, chain, keys)
            if isinstance(anchor, str):
                faults.append(Fault(number=None, what=f"line {line_number} of {path.name} {anchor}"))
            elif anchors.setdefault(anchor.number, anchor).hash != anchor.hash:
                faults.append(
                    Fault(
                        number=anchor.number,
                        what=f"line {line_number} of {path.name} contradicts another line for the same number",
                    )
                )
    return Anchored(anchors, tuple(faults))


def _verified_anchor(line: bytes, chain: str, keys: PublicKeys) -> Anchor | str:
    """Return the anchor in a line, or the reason why the line has no valid one."""
    try:
        anchor = Anchor.model_validate_json(line)
    except ValidationError:
        return "is unreadable: a crash cut it, or it was changed"
    key = keys.get(anchor.kid)
    if key is None:
        return f"is signed with the key {anchor.kid[:43]}, which is not among the given public keys"
    try:
        key.verify(bytes.fromhex(anchor.signature), anchor.signed())
    except (InvalidSignature, ValueError):
        return "has a wrong signature"
    return anchor if anchor.chain == chain else f"is of the chain {anchor.chain[:63]}"


def _file(folder: Path, chain: str) -> Path:
    return folder / f"{chain}.jsonl"


def _tail(path: Path, size: int) -> bytes:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - size))
        return file.read()


def _write(path: Path, flags: int, data: bytes = b"") -> None:
    descriptor = os.open(path, flags, 0o600)
    try:
        while data:
            data = data[os.write(descriptor, data) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
