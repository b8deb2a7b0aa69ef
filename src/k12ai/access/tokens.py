"""What a token is made of: ``k12ai_<id>_<secret>``.

The id is what it is looked up by, and may be shown. The secret has 192 random bits and is kept as its
SHA-256 alone: a slow hash protects secrets that can be guessed, which this one cannot, and would cost
every request.
"""

import hashlib
import hmac
import re
import secrets
from typing import NamedTuple

ID_BYTES = 4
SECRET_BYTES = 24

_TOKEN = re.compile(r"k12ai_([0-9a-f]{8})_([A-Za-z0-9_-]{32})")
# Compared with where there is no such token, so that both cases take as long.
_NO_DIGEST = hashlib.sha256(b"").digest()


class Parts(NamedTuple):
    """A token taken apart."""

    id: str
    secret: str

    @property
    def text(self) -> str:
        """The whole token."""
        return f"k12ai_{self.id}_{self.secret}"

    @property
    def digest(self) -> bytes:
        """What is kept of the secret."""
        return hashlib.sha256(self.secret.encode()).digest()


def new() -> Parts:
    """Return a new token."""
    return Parts(secrets.token_hex(ID_BYTES), secrets.token_urlsafe(SECRET_BYTES))


def parse(text: str) -> Parts | None:
    """Take a token apart; None for what cannot be one."""
    match = _TOKEN.fullmatch(text)
    return None if match is None else Parts(match[1], match[2])


def matches(parts: Parts, digest: bytes | None) -> bool:
    """Whether a secret is the one of this digest, in the same time whether or not it is."""
    same = hmac.compare_digest(parts.digest, digest or _NO_DIGEST)
    return same and digest is not None
