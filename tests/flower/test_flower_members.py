"""Who a node is, from files that its own configuration names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("flwr", reason="flwr is not installed")

from flwr.app import Context, RecordDict

from codream_secure.errors import ConfigError
from codream_secure.flower import from_node_config, read_identity, read_roster
from protocols import Identity, RosterError


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Any]:
    identities = [Identity.generate() for _ in range(3)]
    (tmp_path / "id.hex").write_text(identities[1].private_bytes().hex() + "\n")
    (tmp_path / "id.hex").chmod(0o600)
    keys = {str(number): identity.public_key.hex() for number, identity in enumerate(identities)}
    (tmp_path / "roster.json").write_text(json.dumps(keys))
    return {
        "member": 1,
        "identity": str(tmp_path / "id.hex"),
        "roster": str(tmp_path / "roster.json"),
        "state": str(tmp_path / "state"),
    }


def context(config: dict[str, Any]) -> Context:
    return Context(run_id=1, node_id=1, node_config=config, state=RecordDict(), run_config={})


def test_a_member_from_a_nodes_configuration(files: dict[str, Any]) -> None:
    member = from_node_config(context(files))
    assert member.number == 1
    assert member.roster.holds(1, member.identity.public_key)
    assert len(member.roster) == 3
    private = member.identity.private_bytes()
    assert member.sealing_key() != private
    assert private.hex() not in repr(member)
    assert repr(member.sealing_key()) not in repr(member)


def test_what_is_missing_is_named(files: dict[str, Any]) -> None:
    del files["roster"], files["state"]
    with pytest.raises(ConfigError, match="lacks roster, state"):
        from_node_config(context(files))


def test_a_member_number_is_a_whole_number(files: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="member is '1'"):
        from_node_config(context({**files, "member": "1"}))


def test_an_identity_that_others_may_read_is_refused(files: dict[str, Any]) -> None:
    Path(files["identity"]).chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        read_identity(Path(files["identity"]))


@pytest.mark.parametrize("content", ["", "00" * 31, "zz" * 32])
def test_an_identity_is_32_bytes_and_no_error_shows_them(content: str, tmp_path: Path) -> None:
    path = tmp_path / "id.hex"
    path.write_text(content)
    path.chmod(0o600)
    with pytest.raises(ValueError, match="hexadecimal digits|32") as raised:
        read_identity(path)
    assert not content or content not in str(raised.value)


@pytest.mark.parametrize(
    ("content", "error"),
    [
        ("{", "is no JSON"),
        ("[1]", "no object"),
        ('{"one": "00"}', "number or key that is none"),
        ('{"1": 5}', "no object"),
        ('{"1": "' + "11" * 32 + '", "01": "' + "22" * 32 + '"}', "lists a member twice"),
    ],
)
def test_a_roster_that_is_none(content: str, error: str, tmp_path: Path) -> None:
    (tmp_path / "roster.json").write_text(content)
    with pytest.raises(ConfigError, match=error):
        read_roster(tmp_path / "roster.json")


def test_a_roster_with_a_malformed_key(tmp_path: Path) -> None:
    (tmp_path / "roster.json").write_text('{"1": "00"}')
    with pytest.raises(RosterError, match="not an Ed25519 public key"):
        read_roster(tmp_path / "roster.json")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_roster(tmp_path / "nowhere.json")
