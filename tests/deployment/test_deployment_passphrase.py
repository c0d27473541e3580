"""Where passphrases come from, and which are refused, without a word of them in an error."""

from __future__ import annotations

import getpass
import io
import sys
from pathlib import Path

import pytest

from codream_secure.deployment.passphrase import VARIABLE, find_passphrase
from codream_secure.errors import IdentityError

WORD = b"correct horse battery staple"


def private(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    path.chmod(0o600)
    return path


def test_a_passphrase_comes_from_the_file_before_the_environment_before_the_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(getpass, "getpass", lambda prompt: asked.append(prompt) or "typed")
    monkeypatch.setenv(VARIABLE, "from the environment")
    file = private(tmp_path / "word", b"from a file\n")
    assert find_passphrase(file, twice=True).value == b"from a file"
    assert find_passphrase(twice=True).value == b"from the environment"
    assert asked == []
    monkeypatch.delenv(VARIABLE)
    assert find_passphrase(twice=True).value == b"typed"
    assert len(asked) == 2
    assert find_passphrase().value == b"typed"
    assert len(asked) == 3


@pytest.mark.parametrize(
    ("content", "expected"),
    [(b" a b ", b" a b "), (b"a\n", b"a"), (b"a\r\n", b"a"), (b"\xff\xfe", b"\xff\xfe"), (b"x" * 1023, b"x" * 1023)],
)
def test_a_passphrase_is_one_line_as_it_stands(content: bytes, expected: bytes, tmp_path: Path) -> None:
    assert find_passphrase(private(tmp_path / "word", content)).value == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\n", "is empty"),
        (b" \t\r\n", "is empty"),
        (b"one\ntwo\n", "more than one line"),
        (b"one\0two", "more than one line"),
        (b"x" * 1024, "has 1024 bytes: a passphrase has at most 1023"),
        (b"x" * 5000, "has more than 1025 bytes"),
    ],
)
def test_a_passphrase_that_cannot_be_is_refused(content: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(IdentityError, match=message) as caught:
        find_passphrase(private(tmp_path / "word", content))
    assert "one\n" not in str(caught.value)
    assert "xxx" not in str(caught.value)


def test_a_passphrase_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    file = private(tmp_path / "word", WORD)
    file.chmod(0o640)
    with pytest.raises(IdentityError, match="the passphrase file .* has mode 0640") as caught:
        find_passphrase(file)
    assert WORD.decode() not in str(caught.value)


@pytest.mark.parametrize("value", ["", "  ", "\n"])
def test_an_empty_variable_is_refused_and_nobody_is_asked_instead(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, value)
    with pytest.raises(IdentityError, match=f"{VARIABLE} is empty"):
        find_passphrase()


def test_two_answers_that_differ_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    answers = iter(["first word", "second word"])
    monkeypatch.setattr(getpass, "getpass", lambda prompt: next(answers))
    with pytest.raises(IdentityError, match="the two passphrases differ") as caught:
        find_passphrase(twice=True)
    assert "word" not in str(caught.value)


def test_without_a_terminal_nothing_is_read_with_echo(monkeypatch: pytest.MonkeyPatch) -> None:
    """What getpass falls back to, with a warning, is an echoing prompt: that has to be an error before it asks."""
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(getpass, "getpass", getpass.fallback_getpass)  # type: ignore[attr-defined]
    monkeypatch.setattr(sys, "stdin", typed := io.StringIO("typed\ntyped\n"))
    with pytest.raises(IdentityError, match="no terminal to ask .* --passphrase-file"):
        find_passphrase(twice=True)
    assert typed.read() == "typed\ntyped\n"
