"""Certificates for demonstrations and tests: an authority of one's own, a server and clients, in one folder.

A real deployment brings certificates of its own authority. Here the authority's key lies beside the others; whoever
reads the folder can pass for any machine (not for any member: that takes a roster key).
"""

from __future__ import annotations

import datetime
import ipaddress
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from codream_secure.deployment.streams.tls import Tls

_BACKDATED = datetime.timedelta(hours=1)
"""Clocks differ."""


def make_certificates(folder: Path, clients: Iterable[str], *, days: int = 30) -> None:
    """Write ``ca``, ``server`` and every client as ``NAME.pem`` and ``NAME.key``, readable by their owner only.

    The server's certificate is for ``localhost``, 127.0.0.1 and ::1; keys are ECDSA on P-256.

    Args:
        folder: made if it is not there; files of these names are replaced.
        clients: names of files and of subjects.
        days: how long they are valid.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    key = ec.generate_private_key(ec.SECP256R1())
    name = _subject("codream-secure demonstration")
    extensions: list[x509.ExtensionType] = [x509.BasicConstraints(ca=True, path_length=0), _usage(signs_others=True)]
    authority = _signed(name, key.public_key(), issuer=name, by=key, days=days, extensions=extensions)
    _write(folder, "ca", authority, key)
    purposes = dict.fromkeys(clients, ExtendedKeyUsageOID.CLIENT_AUTH)
    for stem, purpose in ({**purposes, "server": ExtendedKeyUsageOID.SERVER_AUTH}).items():
        own = ec.generate_private_key(ec.SECP256R1())
        extensions = [
            x509.BasicConstraints(ca=False, path_length=None),
            _usage(signs_others=False),
            x509.ExtendedKeyUsage([purpose]),
        ]
        if stem == "server":
            extensions.append(_loopback())
        _write(
            folder,
            stem,
            _signed(_subject(stem), own.public_key(), issuer=name, by=key, days=days, extensions=extensions),
            own,
        )


def load(folder: Path, name: str) -> Tls:
    """One end of a connection from a folder that :func:`make_certificates` wrote.

    Raises:
        ConfigError: a file cannot be read.
    """
    return Tls.from_files(
        authority=folder / "ca.pem", certificate=folder / f"{name}.pem", private_key=folder / f"{name}.key"
    )


def _subject(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _loopback() -> x509.SubjectAlternativeName:
    addresses = [x509.IPAddress(ipaddress.ip_address(text)) for text in ("127.0.0.1", "::1")]
    return x509.SubjectAlternativeName([x509.DNSName("localhost"), *addresses])


def _usage(*, signs_others: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_others,
        key_cert_sign=signs_others,
        crl_sign=signs_others,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _signed(
    subject: x509.Name,
    public_key: ec.EllipticCurvePublicKey,
    *,
    issuer: x509.Name,
    by: ec.EllipticCurvePrivateKey,
    days: int,
    extensions: Iterable[x509.ExtensionType],
) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + datetime.timedelta(days=days))
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
    return builder.sign(by, hashes.SHA256())


def _write(folder: Path, name: str, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
    pem = serialization.Encoding.PEM
    _write_private(folder / f"{name}.pem", certificate.public_bytes(pem))
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    _write_private(folder / f"{name}.key", secret)


def _write_private(path: Path, content: bytes) -> None:
    """Write a file that is whole or not there, and at no moment readable by others: mkstemp makes it 0600."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
