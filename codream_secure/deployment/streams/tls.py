"""What the two ends of a TLS connection need. Both always show a certificate: there is no way to leave that out."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from codream_secure.deployment.files import read_private
from codream_secure.errors import ConfigError

_KEY_BYTES = 1 << 16


@dataclass(frozen=True, kw_only=True)
class Tls:
    """One end's certificate and key, and whom it trusts.

    Args:
        authority: PEM, the certificates by which the *other* end's certificate is judged.
        certificate: PEM, this end's chain.
        private_key: PEM, unencrypted; never shown, and never pickled.
    """

    authority: bytes
    certificate: bytes
    private_key: bytes = field(repr=False)

    @classmethod
    def from_files(cls, *, authority: Path, certificate: Path, private_key: Path) -> Self:
        """Read PEM files.

        Raises:
            ConfigError: one cannot be read, or is no PEM file.
            IdentityError: the private key cannot be read, or others than its owner can get at it.
        """
        content = {}
        for name, path in (("authority", authority), ("certificate", certificate), ("private_key", private_key)):
            try:
                private = name == "private_key"
                content[name] = read_private(path, what=name, limit=_KEY_BYTES) if private else path.read_bytes()
            except OSError as error:
                raise ConfigError(f"{name}={str(path)!r} cannot be read: {error.strerror}") from None
            if b"-----BEGIN " not in content[name]:
                raise ConfigError(f"{name}={str(path)!r} is no PEM file")
        return cls(**content)

    def __reduce__(self) -> str:
        raise TypeError("private keys are not pickled")
