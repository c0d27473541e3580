"""Private keys at rest: encrypted, whole or not there, for their owner only, and silent."""

from __future__ import annotations

import base64
import os
import pickle
import signal
import stat
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from codream_secure.deployment import files
from codream_secure.deployment.files import make_private_folder
from codream_secure.deployment.identity import load_identity, save_identity
from codream_secure.deployment.public_half import load_public_half, write_public_half
from codream_secure.errors import IdentityError
from protocols import Identity
from protocols.keys import Secret

WORD = b"correct horse battery staple"


@pytest.fixture
def word() -> Secret:
    return Secret(WORD)


@pytest.fixture
def umask() -> Iterator[Callable[[int], None]]:
    before = os.umask(0o022)
    yield lambda value: (os.umask(value), None)[1]
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def spellings(identity: Identity) -> list[str]:
    """A private key in every form in which it could slip out, and the passphrase."""
    raw = identity.private_bytes()
    return [raw.hex(), repr(raw), repr(raw)[2:-1], str(list(raw)), raw.decode("latin-1"), WORD.decode()]


# Writing


def test_an_identity_comes_back(tmp_path: Path, word: Secret) -> None:
    identity = Identity.generate()
    save_identity(identity, tmp_path / "a.key", passphrase=word)
    assert load_identity(tmp_path / "a.key", passphrase=word).private_bytes() == identity.private_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["a.key"]


def test_the_file_is_encrypted_pkcs8_that_other_programs_open(tmp_path: Path, word: Secret) -> None:
    identity = Identity.generate()
    save_identity(identity, tmp_path / "a.key", passphrase=word)
    content = (tmp_path / "a.key").read_bytes()
    assert content.startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----\n")
    key = load_pem_private_key(content, WORD)
    assert isinstance(key, Ed25519PrivateKey)
    assert key.private_bytes_raw() == identity.private_bytes()
    # The same key under the same passphrase never looks the same: there is a salt.
    save_identity(identity, tmp_path / "b.key", passphrase=word)
    assert (tmp_path / "b.key").read_bytes() != content


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
def test_nobody_else_can_read_the_key_at_any_moment(
    mask: int, tmp_path: Path, word: Secret, umask: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, flush = [], os.fsync

    def look(descriptor: int) -> None:
        seen.append(stat.S_IMODE(os.fstat(descriptor).st_mode))
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", look)
    umask(mask)
    save_identity(Identity.generate(), tmp_path / "a.key", passphrase=word)
    assert mode(tmp_path / "a.key") == 0o600
    assert seen[0] == 0o600, "not even while it is written"
    assert len(seen) == 2, "the folder is flushed, too"


@pytest.mark.parametrize("mask", [0o000, 0o022])
def test_a_new_folder_is_private_and_one_that_is_there_stays_as_it_is(
    mask: int, tmp_path: Path, umask: Callable[[int], None]
) -> None:
    umask(mask)
    make_private_folder(tmp_path / "above" / "keys")
    assert mode(tmp_path / "above" / "keys") == 0o700
    assert mode(tmp_path / "above") == 0o777 & ~mask
    (tmp_path / "there").mkdir(mode=0o750)
    make_private_folder(tmp_path / "there")
    assert mode(tmp_path / "there") == 0o750
    (tmp_path / "file").touch()
    with pytest.raises(IdentityError, match="the folder .* cannot be made"):
        make_private_folder(tmp_path / "file")


def test_a_key_is_never_written_over(tmp_path: Path, word: Secret) -> None:
    path = tmp_path / "a.key"
    save_identity(Identity.generate(), path, passphrase=word)
    before = path.read_bytes()
    with pytest.raises(IdentityError, match="is there already, and is never written over"):
        save_identity(Identity.generate(), path, passphrase=word)
    (tmp_path / "link.key").symlink_to(tmp_path / "nowhere")
    with pytest.raises(IdentityError, match="is there already"):
        save_identity(Identity.generate(), tmp_path / "link.key", passphrase=word)
    assert path.read_bytes() == before
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a.key", "link.key"]


def test_not_even_over_one_that_appears_at_the_last_moment(
    tmp_path: Path, word: Secret, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link

    def late(source: Path, target: Path) -> None:
        target.write_bytes(b"somebody else's")
        link(source, target)

    monkeypatch.setattr(os, "link", late)
    with pytest.raises(IdentityError, match="is there already"):
        save_identity(Identity.generate(), tmp_path / "a.key", passphrase=word)
    assert (tmp_path / "a.key").read_bytes() == b"somebody else's"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.key"]


@pytest.mark.parametrize("step", ["fsync", "link"])
@pytest.mark.parametrize("fault", [OSError(28, "No space left on device"), KeyboardInterrupt("by the user")])
def test_a_failing_or_interrupted_write_leaves_nothing(
    step: str, fault: BaseException, tmp_path: Path, word: Secret, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise fault

    monkeypatch.setattr(os, step, fail)
    expected = IdentityError if isinstance(fault, OSError) else KeyboardInterrupt
    with pytest.raises(expected, match="No space|by the user"):
        save_identity(Identity.generate(), tmp_path / "a.key", passphrase=word)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("step", ["fsync", "link"])
def test_a_killed_write_leaves_nothing_under_the_keys_name(step: str, tmp_path: Path) -> None:
    program = (
        "import os, pathlib, signal, sys\n"
        "from codream_secure.deployment.identity import save_identity\n"
        "from protocols.keys import Identity, Secret\n"
        f"os.{step} = lambda *arguments: os.kill(os.getpid(), signal.SIGKILL)\n"
        "save_identity(Identity.generate(), pathlib.Path(sys.argv[1]), passphrase=Secret(b'a passphrase'))\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path / "a.key")], check=False)
    assert done.returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".a.key.")
    assert mode(left) == 0o600


def test_a_roster_in_the_making_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "roster.toml"
    files.write_over(path, b"old", mode=0o644)

    def fail(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    for step in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, step, fail)
            with pytest.raises(IdentityError, match="No space left"):
                files.write_over(path, b"new", mode=0o644)
        assert path.read_bytes() == b"old"
        assert list(tmp_path.iterdir()) == [path]
    files.write_over(path, b"new", mode=0o644)
    assert path.read_bytes() == b"new"


# Reading


@pytest.mark.parametrize("rights", [0o640, 0o604, 0o620, 0o602, 0o610, 0o601, 0o660, 0o644, 0o666])
def test_a_key_that_others_can_get_at_is_refused(rights: int, tmp_path: Path, word: Secret) -> None:
    path = tmp_path / "a.key"
    save_identity(Identity.generate(), path, passphrase=word)
    path.chmod(rights)
    with pytest.raises(IdentityError, match=f"has mode {rights:04o}: others than its owner can get at it; run chmod"):
        load_identity(path, passphrase=word)
    path.chmod(0o400)
    load_identity(path, passphrase=word)


def test_what_counts_is_the_file_behind_a_link(tmp_path: Path, word: Secret) -> None:
    path, link = tmp_path / "a.key", tmp_path / "link.key"
    save_identity(Identity.generate(), path, passphrase=word)
    link.symlink_to(path)
    load_identity(link, passphrase=word)
    path.chmod(0o644)
    with pytest.raises(IdentityError, match="0644"):
        load_identity(link, passphrase=word)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_key_of_another_user_is_refused(tmp_path: Path, word: Secret) -> None:
    path = tmp_path / "a.key"
    save_identity(Identity.generate(), path, passphrase=word)
    os.chown(path, 12345, -1)
    with pytest.raises(IdentityError, match="belongs to user 12345"):
        load_identity(path, passphrase=word)


def pem(key: Any, word: bytes | None = WORD) -> bytes:
    encryption = BestAvailableEncryption(word) if word else NoEncryption()
    content: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)
    return content


def good() -> bytes:
    return pem(Ed25519PrivateKey.generate())


def flipped(content: bytes, place: int) -> bytes:
    """The file with one bit of another value; the last 64 bytes are the ciphertext."""
    first, *lines, last = content.splitlines()
    der = bytearray(base64.b64decode(b"".join(lines)))
    der[place] ^= 1
    return b"\n".join((first, base64.b64encode(der), last, b""))


BAD_KEYS: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "is no encrypted private key"),
    "not encrypted": (lambda: pem(Ed25519PrivateKey.generate(), None), "is no encrypted private key"),
    "binary": (lambda: bytes(range(256)), "is no encrypted private key"),
    "another passphrase": (lambda: pem(Ed25519PrivateKey.generate(), b"another"), "does not open"),
    "cut short": (lambda: good()[:-60], "does not open"),
    "changed": (lambda: flipped(good(), -64), "does not open"),
    "only a header": (lambda: good()[:38], "does not open"),
    "another kind of key": (lambda: pem(X25519PrivateKey.generate()), "holds another kind of key"),
    "huge": (lambda: good() + b"\n" * 20_000, "has more than 16384 bytes"),
}


@pytest.mark.parametrize("case", BAD_KEYS)
def test_what_is_no_key_is_refused(case: str, tmp_path: Path, word: Secret) -> None:
    make, message = BAD_KEYS[case]
    path = tmp_path / "a.key"
    path.write_bytes(make())
    path.chmod(0o600)
    with pytest.raises(IdentityError, match=message):
        load_identity(path, passphrase=word)


def test_damage_that_goes_unnoticed_gives_another_identity_that_is_on_no_roster(tmp_path: Path, word: Secret) -> None:
    """The encryption has no checksum: a bit that flips within the key's 32 bytes gives 32 other bytes."""
    identity, path = Identity.generate(), tmp_path / "a.key"
    save_identity(identity, path, passphrase=word)
    path.write_bytes(flipped(path.read_bytes(), -40))
    assert load_identity(path, passphrase=word).public_key != identity.public_key


def test_what_is_no_file_is_refused_without_waiting(tmp_path: Path, word: Secret) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    (tmp_path / "folder").mkdir()
    for name, message in (("pipe", "no regular file"), ("folder", "regular file|directory"), ("missing", "No such")):
        with pytest.raises(IdentityError, match=message):
            load_identity(tmp_path / name, passphrase=word)


# Silence


def test_no_error_and_no_repr_gives_a_secret_away(tmp_path: Path, word: Secret) -> None:
    identity, path = Identity.generate(), tmp_path / "a.key"
    save_identity(identity, path, passphrase=word)
    texts = [repr(identity), str(identity), repr(word), str(word), path.read_text()]
    other = Secret(b"another passphrase")
    content = path.read_bytes()

    def attempt(action: Callable[[], object]) -> None:
        with pytest.raises(Exception) as caught:  # noqa: PT011
            action()
        texts.append("".join(traceback.format_exception(caught.value)))
        texts.append(repr(caught.value) + repr(caught.value.__context__) + repr(caught.value.__dict__))

    attempt(lambda: save_identity(identity, path, passphrase=word))
    attempt(lambda: load_identity(path, passphrase=other))
    attempt(lambda: pickle.dumps(identity))
    attempt(lambda: pickle.dumps(word))
    for damaged in (content[:-50], flipped(content, -64), pem(Ed25519PrivateKey.generate(), None)):
        path.write_bytes(damaged)
        attempt(lambda: load_identity(path, passphrase=word))
    path.chmod(0o644)
    attempt(lambda: load_identity(path, passphrase=word))
    for text in texts:
        assert not any(secret in text for secret in spellings(identity))
        assert "another passphrase" not in text


def test_a_public_half_holds_nothing_private(tmp_path: Path, introduce: Callable[..., Any]) -> None:
    identity = Identity.generate()
    public = introduce("anna", identity=identity)
    write_public_half(public, tmp_path / "anna.pub")
    assert load_public_half(tmp_path / "anna.pub") == public
    text = (tmp_path / "anna.pub").read_text() + repr(public)
    assert identity.public_key.hex() in text
    assert not any(secret in text for secret in spellings(identity))
    with pytest.raises(IdentityError, match="is there already"):
        write_public_half(public, tmp_path / "anna.pub")
