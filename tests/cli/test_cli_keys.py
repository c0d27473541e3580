"""Identities and rosters from the command line, the page that describes them included."""

from __future__ import annotations

import json
import os
import pty
import re
import shlex
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from codream_secure.deployment.identity import load_identity
from codream_secure.deployment.passphrase import VARIABLE
from codream_secure.deployment.roster import load_roster, read_roster_file
from protocols.keys import Secret

PAGE = Path(__file__).resolve().parents[2] / "docs" / "identities.md"
WORD = "correct horse battery staple"
Command = Callable[..., Any]


@pytest.fixture(autouse=True)
def passphrase(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(VARIABLE, WORD)
    monkeypatch.chdir(tmp_path)


def new(command: Command, name: str, *options: str, out: str | None = None) -> dict[str, Any]:
    done = command("keys", "new", name, "--out", out or name, *options, "--json")
    assert (done.code, done.err) == (0, "")
    found: dict[str, Any] = json.loads(done.out)
    return found


def roster(command: Command, *arguments: str, out: str = "roster.toml") -> dict[str, Any]:
    done = command("keys", "roster", *arguments, "--out", out, "--json")
    assert (done.code, done.err) == (0, "")
    found: dict[str, Any] = json.loads(done.out)
    return found


@pytest.fixture
def three(command: Command) -> list[str]:
    """Public halves of anna, bert and carl, each with the key beside it."""
    for name in ("anna", "bert", "carl"):
        new(command, name)
    return ["anna/anna.pub", "bert/bert.pub", "carl/carl.pub"]


def refused(command: Command, *arguments: str) -> str:
    done = command("keys", *arguments)
    assert (done.code, done.out) == (2, "")
    assert "Traceback" not in done.err
    message: str = done.err
    return message


# new


def test_a_new_identity_is_private_and_its_public_half_is_not(command: Command, tmp_path: Path) -> None:
    facts = new(command, "anna", "--member", "7", out="deep/keys")
    folder = tmp_path / "deep" / "keys"
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (folder, *folder.iterdir())}
    assert modes == {"keys": 0o700, "anna.key": 0o600, "anna.pub": 0o644}
    identity = load_identity(folder / "anna.key", passphrase=Secret(WORD.encode()))
    assert facts["public_key"] == identity.public_key.hex()
    text = (folder / "anna.pub").read_text()
    assert all(str(facts[key]) in text for key in ("name", "member", "public_key", "fingerprint"))


@pytest.mark.parametrize("there", ["anna.key", "anna.pub"])
def test_nothing_is_written_over(command: Command, tmp_path: Path, there: str) -> None:
    (tmp_path / "anna").mkdir()
    (tmp_path / "anna" / there).write_text("precious")
    message = refused(command, "new", "anna", "--out", "anna")
    assert f"{there}' is there already, and is never written over" in message
    assert [(path.name, path.read_text()) for path in (tmp_path / "anna").iterdir()] == [(there, "precious")]


def test_a_public_half_that_cannot_be_written_takes_the_key_with_it(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link

    def fail(source: Path, target: Path) -> None:
        if target.name.endswith(".pub"):
            raise OSError(28, "No space left on device")
        link(source, target)

    monkeypatch.setattr(os, "link", fail)
    assert "No space left on device" in refused(command, "new", "anna", "--out", "anna")
    assert not list((tmp_path / "anna").iterdir())


@pytest.mark.parametrize("name", ["../anna", "a b", "", "-", "anna/bert"])
def test_a_name_that_cannot_be_a_file_is_refused(command: Command, tmp_path: Path, name: str) -> None:
    assert "the name is" in refused(command, "new", "--out", "keys", "--", name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", ["", " "])
def test_an_empty_passphrase_is_refused(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv(VARIABLE, value)
    assert f"{VARIABLE} is empty" in refused(command, "new", "anna", "--out", "anna")
    (tmp_path / "word").touch(mode=0o600)
    assert "passphrase file is empty" in refused(command, "new", "anna", "--out", "anna", "--passphrase-file", "word")
    assert not (tmp_path / "anna").exists()


def at_a_terminal(answers: list[str], *arguments: str) -> tuple[int, str]:
    """Exit code and everything on the screen, of a process that asks at a terminal."""
    here, there = pty.openpty()
    environment = {key: value for key, value in os.environ.items() if key != VARIABLE}
    process = subprocess.Popen(
        [sys.executable, "-m", "codream_secure", "keys", *arguments],
        stdin=there,
        stdout=there,
        stderr=there,
        env=environment,
        start_new_session=True,
    )
    os.close(there)
    screen, asked = b"", 0
    while True:
        try:
            got = os.read(here, 4096)
        except OSError:  # The other end is closed.
            got = b""
        if not got:
            break
        screen += got
        prompts = screen.count(b"Passphrase: ") + screen.count(b"The same again: ")
        while asked < min(prompts, len(answers)):
            os.write(here, answers[asked].encode() + b"\n")
            asked += 1
    os.close(here)
    assert asked == len(answers)
    return process.wait(), screen.decode()


def test_at_a_terminal_the_passphrase_is_asked_for_twice_and_not_shown(tmp_path: Path) -> None:
    code, screen = at_a_terminal(["typed by hand", "typed by hand"], "new", "anna", "--out", "anna")
    assert (code, screen.count(": ")) == (0, 2)
    assert "typed" not in screen
    load_identity(tmp_path / "anna" / "anna.key", passphrase=Secret(b"typed by hand"))
    code, screen = at_a_terminal(["typed by hand", "typed otherwise"], "new", "bert", "--out", "bert")
    assert code == 2
    assert "the two passphrases differ: nothing was written" in screen
    assert "typed" not in screen
    assert not (tmp_path / "bert").exists()


def test_without_a_terminal_it_says_what_to_do(tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if key != VARIABLE}
    done = subprocess.run(
        [sys.executable, "-m", "codream_secure", "keys", "new", "anna", "--out", "anna"],
        input="typed\ntyped\n",
        capture_output=True,
        text=True,
        env=environment,
        start_new_session=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "there is no terminal to ask for the passphrase at" in done.stderr
    assert not (tmp_path / "anna").exists()


# roster


def test_a_roster_prints_the_digest_that_everybody_gets(command: Command, three: list[str]) -> None:
    made = roster(command, *three)
    assert [(one["number"], one["name"]) for one in made["members"]] == [(0, "anna"), (1, "bert"), (2, "carl")]
    again = roster(command, *three, out="again.toml")
    assert again == made
    shown = command("keys", "roster", *three, "--out", "third.toml")
    seen = command("keys", "verify", "third.toml")
    digest = bytes.fromhex(made["digest"]).hex(" ", 2)
    assert digest in shown.out
    assert digest in seen.out
    assert all(one["fingerprint"] in seen.out for one in made["members"])
    assert load_roster(Path("roster.toml"), digest=digest).digest == load_roster(Path("third.toml")).digest
    assert roster(command, *three[::-1], out="turned.toml")["digest"] != made["digest"]


def test_numbers_are_given_for_each_file_in_turn(command: Command, three: list[str]) -> None:
    made = roster(command, *three, "--number", "9", "--number", "2", "--number", "4")
    assert [(one["number"], one["name"]) for one in made["members"]] == [(2, "bert"), (4, "carl"), (9, "anna")]
    assert "2 numbers for 3 new members" in refused(
        command, "roster", *three, "--number", "9", "--number", "2", "--out", "other.toml"
    )


def test_a_roster_goes_through_its_versions(command: Command, three: list[str]) -> None:
    digests = [roster(command, *three)["digest"]]
    new(command, "bert", out="bert-2")
    digests.append(roster(command, "--replace", "bert=bert-2/bert.pub")["digest"])
    new(command, "dora")
    new(command, "office")
    digests.append(roster(command, "dora/dora.pub", "--authority", "office/office.pub")["digest"])
    last = roster(command, "--revoke", "carl", "--revoke", "anna")
    assert len({*digests, last["digest"]}) == 4
    assert last["version"] == 4
    assert [(one["number"], one["name"]) for one in last["members"]] == [(1, "bert"), (3, "dora")]
    assert last["authority"]["name"] == "office"
    assert sorted((one["version"], one["name"]) for one in last["revoked"]) == [(2, "bert"), (4, "anna"), (4, "carl")]
    before = Path("roster.toml").read_bytes()
    for back in (["anna/anna.pub"], ["--replace", "bert=bert/bert.pub"]):
        assert "it never comes back" in refused(command, "roster", *back, "--out", "roster.toml")
    shown = command("keys", "verify", "roster.toml").out
    assert "authority" in shown
    assert "revoked in" in shown
    assert Path("roster.toml").read_bytes() == before


def test_changes_that_make_no_sense_leave_the_roster_alone(command: Command, three: list[str]) -> None:
    roster(command, *three)
    before = Path("roster.toml").read_bytes()
    for arguments, message in (
        ([], "nothing changes"),
        (["--revoke", "dora"], "'dora' is not on the roster"),
        (["--replace", "anna"], "--replace is 'anna': it has the form NAME=NEW.pub"),
        (["--replace", "anna="], "it has the form NAME=NEW.pub"),
        (["--replace", "anna=bert/bert.pub"], "is in the name of 'bert'"),
        (["--replace", "anna=x.pub"], "the public half 'x.pub' cannot be read: No such file"),
        (["--replace", "anna=anna/anna.pub"], "was revoked in version 2"),
        (["--replace", "anna=anna/anna.pub"] * 2, "--replace names 'anna' twice"),
        (["anna/anna.pub"], "the name 'anna' is on the roster twice"),
        (["anna/anna.key"], "malformed"),
    ):
        assert message in refused(command, "roster", *arguments, "--out", "roster.toml")
    assert Path("roster.toml").read_bytes() == before
    assert "there is no roster yet" in refused(command, "roster", "--revoke", "anna", "--out", "other.toml")
    assert not Path("other.toml").exists()


# verify


def test_verify_says_whose_the_key_is(command: Command, three: list[str]) -> None:
    made = roster(command, *three)
    done = command("keys", "verify", "roster.toml", "--key", "bert/bert.key", "--digest", made["digest"])
    assert (done.code, done.err) == (0, "")
    assert "The key is that of member 1, 'bert'." in done.out
    assert "The digest is the one that was given." in done.out
    told = json.loads(command("keys", "verify", "roster.toml", "--key", "carl/carl.key", "--json").out)
    assert told["key"] == {"name": "carl", "number": 2}
    assert told["digest_compared"] is False
    assert told["digest"] == made["digest"]
    new(command, "office")
    roster(command, "--authority", "office/office.pub")
    done = command("keys", "verify", "roster.toml", "--key", "office/office.key")
    assert "The key is that of the key authority, 'office'." in done.out


def test_verify_refuses_with_the_reason(command: Command, three: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    made = roster(command, *three)
    new(command, "dora")
    verify = ("verify", "roster.toml")
    assert "not the one that was given" in refused(command, *verify, "--digest", "00" * 32)
    assert "give all 64" in refused(command, *verify, "--digest", made["digest"][:16])
    assert "is not on the roster, version 1" in refused(command, *verify, "--key", "dora/dora.key")
    assert "cannot be read" in refused(command, *verify, "--key", "missing.key")
    Path("anna/anna.key").chmod(0o640)
    assert "has mode 0640: others than its owner" in refused(command, *verify, "--key", "anna/anna.key")
    Path("anna/anna.key").chmod(0o600)
    monkeypatch.setenv(VARIABLE, "another")
    assert "the passphrase is another one" in refused(command, *verify, "--key", "anna/anna.key")
    monkeypatch.setenv(VARIABLE, WORD)
    roster(command, "--revoke", "anna")
    assert "of 'anna', was revoked in version 2" in refused(command, *verify, "--key", "anna/anna.key")
    Path("roster.toml").chmod(0o666)
    assert "has mode 0666: others than its owner can change it" in refused(command, *verify)
    Path("roster.toml").chmod(0o644)
    Path("roster.toml").write_text(Path("roster.toml").read_text() + 'comment = "hello"\n')
    assert "unknown field `comment`" in refused(command, *verify)


def test_a_key_with_wrong_rights_is_refused_before_anybody_is_asked(command: Command, three: list[str]) -> None:
    roster(command, *three)
    Path("anna/anna.key").chmod(0o644)
    code, screen = at_a_terminal([], "verify", "roster.toml", "--key", "anna/anna.key")
    assert code == 2
    assert "has mode 0644" in screen
    assert "Passphrase" not in screen


# All of it


def test_no_command_prints_a_secret(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = []
    for arguments in (
        ("new", "anna", "--out", "anna"),
        ("new", "bert", "--out", "bert", "--json"),
        ("new", "anna", "--out", "anna"),
        ("roster", "anna/anna.pub", "bert/bert.pub", "--out", "roster.toml"),
        ("verify", "roster.toml", "--key", "anna/anna.key"),
        ("verify", "roster.toml", "--key", "anna/anna.key", "--json"),
        ("roster", "--revoke", "anna", "--out", "roster.toml"),
        ("verify", "roster.toml", "--key", "anna/anna.key"),
    ):
        done = command("keys", *arguments)
        said.append(done.out + done.err)
    monkeypatch.setenv(VARIABLE, "guessed otherwise")
    done = command("keys", "verify", "roster.toml", "--key", "bert/bert.key")
    said.append(done.out + done.err)
    text = "".join(said) + Path("roster.toml").read_text() + Path("anna/anna.pub").read_text()
    assert WORD not in text
    assert "guessed otherwise" not in text
    for name in ("anna", "bert"):
        raw = load_identity(tmp_path / name / f"{name}.key", passphrase=Secret(WORD.encode())).private_bytes()
        assert not any(form in text for form in (raw.hex(), repr(raw)[2:-1], raw.hex(" ", 2), str(list(raw))))


def test_a_node_needs_no_torch_for_its_identity() -> None:
    program = (
        "import sys\n"
        "from codream_secure.deployment import files, identity, membership, passphrase, public_half, roster\n"
        "assert not {'torch', 'sklearn', 'matplotlib'} & sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_page_runs_as_it_stands(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE)
    page = PAGE.read_text(encoding="utf-8")
    blocks = re.findall(r"```(sh|python)\n(.*?)```", page, re.DOTALL)
    assert page.count("```") == 2 * len(blocks), "every block is run"
    ran, digests = 0, []
    scope: dict[str, Any] = {}
    for language, block in blocks:
        if language == "python":
            exec(compile(block, str(PAGE), "exec"), scope)
            continue
        for line in block.splitlines():
            line, _, expected = line.partition("  # exit code ")
            if not line.startswith("codream-secure "):
                subprocess.run(["bash", "-c", line], check=True)
                continue
            if "$(cat digest.txt)" in line:
                line = line.replace("$(cat digest.txt)", (tmp_path / "digest.txt").read_text())
            done = command(*shlex.split(line)[1:])
            assert done.code == int(expected or 0), done.err
            if found := re.search(r"^digest +(.*)$", done.out, re.MULTILINE):
                digests.append(found[1])
                (tmp_path / "digest.txt").write_text(found[1])
            ran += 1
    assert ran == page.count("\ncodream-secure ") > 0
    assert len(set(digests)) == 3
    final = read_roster_file(tmp_path / "roster.toml")
    assert [(member.number, member.name) for member in final.members] == [(0, "north"), (1, "south")]
    assert [(one.version, one.name) for one in final.revoked] == [(2, "south"), (3, "west")]
    assert scope["credentials"].roster.holds(0, scope["identity"].public_key)
    scope["credentials"].rounds.close()
