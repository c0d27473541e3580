"""Who a node is, from files that its own configuration names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("flwr", reason="flwr is not installed")

from flower_harness import NODES, RUN, SIZES, OneProcess, initial, protection
from flwr.app import Context, RecordDict
from flwr.serverapp.strategy import FedAvg

from codream_secure.deployment.identity import save_identity
from codream_secure.deployment.membership import next_roster
from codream_secure.deployment.passphrase import VARIABLE
from codream_secure.deployment.public_half import PublicHalf, make_public_half
from codream_secure.deployment.roster import read_roster_file, write_roster_file
from codream_secure.errors import ConfigError, IdentityError
from codream_secure.flower import Protected, from_node_config, protected_mod
from protocols import Identity
from protocols.keys import Secret

PASSPHRASE = "correct horse battery staple"


def make_key(folder: Path, name: str) -> PublicHalf:
    """``NAME.key`` in a folder, and its public half."""
    identity = Identity.generate()
    save_identity(identity, folder / f"{name}.key", passphrase=Secret(PASSPHRASE.encode()))
    return make_public_half(identity, name)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The configuration of node 1 of four, whose keys lie in one folder; the passphrase is in a file."""
    monkeypatch.delenv(VARIABLE, raising=False)
    write_roster_file(
        next_roster(None, [make_key(tmp_path, f"n{number}") for number in range(NODES)]), tmp_path / "roster.toml"
    )
    (tmp_path / "passphrase").write_text(PASSPHRASE + "\n")
    (tmp_path / "passphrase").chmod(0o600)
    return config(tmp_path, 1)


def config(folder: Path, number: int, **changes: Any) -> dict[str, Any]:
    return {
        "key": str(folder / f"n{number}.key"),
        "roster": str(folder / "roster.toml"),
        "state": str(folder / f"state-{number}"),
        "passphrase-file": str(folder / "passphrase"),
        **changes,
    }


def context(node_config: dict[str, Any]) -> Context:
    return Context(run_id=1, node_id=1, node_config=node_config, state=RecordDict(), run_config={})


def test_a_member_from_a_nodes_configuration(files: dict[str, Any], tmp_path: Path) -> None:
    member = from_node_config(context(files))
    assert member.number == 1
    assert member.roster.holds(1, member.identity.public_key)
    assert member.roster.digest == read_roster_file(tmp_path / "roster.toml").roster().digest
    private = member.identity.private_bytes()
    assert member.sealing_key() != private
    assert private.hex() not in repr(member)
    assert repr(member.sealing_key()) not in repr(member)


def test_the_passphrase_is_taken_from_the_environment(files: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    del files["passphrase-file"]
    monkeypatch.setenv(VARIABLE, PASSPHRASE)
    assert from_node_config(context(files)).number == 1


def test_without_a_passphrase_a_node_says_where_to_put_it_and_asks_nobody(
    files: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask(prompt: str) -> str:
        raise AssertionError("asked")

    monkeypatch.setattr("getpass.getpass", ask)
    del files["passphrase-file"]
    with pytest.raises(IdentityError, match=f'set {VARIABLE} in the SuperNode.*passphrase-file="FILE"'):
        from_node_config(context(files))


def test_what_is_missing_is_named(files: dict[str, Any]) -> None:
    del files["roster"], files["state"]
    with pytest.raises(ConfigError, match="lacks roster, state"):
        from_node_config(context(files))


def test_an_entry_that_is_no_text_is_named_and_not_shown(files: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="passphrase-file is int") as raised:
        from_node_config(context({**files, "passphrase-file": 271828}))
    assert "271828" not in str(raised.value)


def test_a_key_that_others_may_read_is_refused(files: dict[str, Any]) -> None:
    Path(files["key"]).chmod(0o644)
    with pytest.raises(IdentityError, match="run chmod 600"):
        from_node_config(context(files))


def test_another_passphrase_opens_nothing_and_is_not_shown(
    files: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    del files["passphrase-file"]
    monkeypatch.setenv(VARIABLE, "another one")
    with pytest.raises(IdentityError, match="does not open") as raised:
        from_node_config(context(files))
    assert "another one" not in str(raised.value).replace("passphrase is another one", "")


def test_a_roster_that_was_not_compared_is_refused_where_its_digest_is_given(
    files: dict[str, Any], tmp_path: Path
) -> None:
    digest = read_roster_file(tmp_path / "roster.toml").digest().hex()
    assert from_node_config(context({**files, "roster-digest": digest})).number == 1
    with pytest.raises(IdentityError, match="not the one that was given"):
        from_node_config(context({**files, "roster-digest": digest[::-1]}))


def test_a_key_that_is_not_on_the_roster_or_was_revoked(files: dict[str, Any], tmp_path: Path) -> None:
    make_key(tmp_path, "n9")
    with pytest.raises(IdentityError, match="belongs to nobody on the roster, version 1"):
        from_node_config(context(config(tmp_path, 9)))
    write_roster_file(next_roster(read_roster_file(tmp_path / "roster.toml"), revoke=["n1"]), tmp_path / "roster.toml")
    with pytest.raises(IdentityError, match="of 'n1', was revoked in version 2"):
        from_node_config(context(files))


def test_a_key_authoritys_key_is_no_members(files: dict[str, Any], tmp_path: Path) -> None:
    before = read_roster_file(tmp_path / "roster.toml")
    write_roster_file(next_roster(before, authority=make_key(tmp_path, "n8")), tmp_path / "roster.toml")
    with pytest.raises(IdentityError, match="the key authority, and to no member"):
        from_node_config(context(config(tmp_path, 8)))


def from_files(
    folder: Path, config_of: Callable[[int], dict[str, Any]], *, run_id: int = RUN
) -> tuple[Any, OneProcess]:
    """A round of FedAvg over nodes that know of themselves what their files say; and a server with the folder's."""
    sums = protection()
    grid = OneProcess(lambda number: [protected_mod(sums)], lambda exchange, number: False)
    grid.config_of, grid.run_id = config_of, run_id
    strategy = Protected(FedAvg(fraction_evaluate=0.0), sums, roster=str(folder / "roster.toml"))
    return strategy.start(grid, initial_arrays=initial(), num_rounds=1), grid


def test_nodes_with_files_and_a_server_with_a_file_take_a_sum(files: dict[str, Any], tmp_path: Path) -> None:
    found, grid = from_files(tmp_path, lambda number: config(tmp_path, number))
    assert not grid.errors
    assert found.train_metrics_clientapp[1]["loss"] > 0


def test_after_a_key_was_replaced_its_member_goes_on_under_its_number_and_its_old_state(
    files: dict[str, Any], tmp_path: Path
) -> None:
    from_files(tmp_path, lambda number: config(tmp_path, number))
    log = (tmp_path / "state-1" / "rounds.log").read_bytes()
    (tmp_path / "new").mkdir()
    replaced = next_roster(read_roster_file(tmp_path / "roster.toml"), replace={"n1": make_key(tmp_path / "new", "n1")})
    write_roster_file(replaced, tmp_path / "roster.toml")
    new = {"key": str(tmp_path / "new" / "n1.key")}
    found, grid = from_files(
        tmp_path, lambda number: config(tmp_path, number, **(new if number == 1 else {})), run_id=RUN + 1
    )
    assert not grid.errors
    assert found.train_metrics_clientapp[1]["loss"] > 0
    assert (tmp_path / "state-1" / "rounds.log").read_bytes().startswith(log)


def test_a_node_with_an_earlier_version_of_the_roster_takes_no_part(files: dict[str, Any], tmp_path: Path) -> None:
    old = tmp_path / "old.toml"
    before = read_roster_file(tmp_path / "roster.toml")
    write_roster_file(before, old)
    # None of these four is touched by what changes; it is another roster all the same.
    write_roster_file(next_roster(before, [make_key(tmp_path, "n7")]), tmp_path / "roster.toml")
    odd = {"roster": str(old)}
    found, _ = from_files(tmp_path, lambda number: config(tmp_path, number, **(odd if number == 3 else {})))
    losses = [0.5 + number for number in range(3)]
    assert found.train_metrics_clientapp[1]["loss"] == pytest.approx(np.average(losses, weights=SIZES[:3]), abs=1e-6)


def test_a_node_whose_roster_is_exchanged_during_a_run_drops_out_and_the_run_goes_on(
    files: dict[str, Any], tmp_path: Path
) -> None:
    later = tmp_path / "later.toml"
    write_roster_file(next_roster(read_roster_file(tmp_path / "roster.toml"), [make_key(tmp_path, "n7")]), later)
    sums = protection()
    grid = OneProcess(lambda number: [protected_mod(sums)], lambda exchange, number: False)

    def now(number: int) -> dict[str, Any]:
        # In the second round, whose first message asks for vectors.
        exchanged = number == 3 and grid.kinds.count("step") > 1
        return config(tmp_path, number, **({"roster": str(later)} if exchanged else {}))

    grid.config_of = now
    strategy = Protected(FedAvg(fraction_evaluate=0.0), sums, roster=str(tmp_path / "roster.toml"))
    found = strategy.start(grid, initial_arrays=initial(), num_rounds=3)
    assert grid.errors
    losses = [0.5 + number for number in range(NODES)]
    for at, count in ((1, 4), (2, 3), (3, 3)):
        expected = np.average(losses[:count], weights=SIZES[:count])
        assert found.train_metrics_clientapp[at]["loss"] == pytest.approx(expected, abs=1e-6)
