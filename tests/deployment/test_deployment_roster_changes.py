"""Changes of a roster: numbers, revoked and replaced keys, one version for each set of changes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from codream_secure.deployment.membership import next_roster
from codream_secure.deployment.public_half import PublicHalf
from codream_secure.deployment.roster import (
    FORMAT,
    RosterFile,
    decode_roster,
    encode_roster,
)
from codream_secure.errors import IdentityError
from protocols import (
    Identity,
    Roster,
)

Introduce = Callable[..., PublicHalf]


@pytest.fixture
def publics(introduce: Introduce) -> list[PublicHalf]:
    return [introduce(name) for name in ("anna", "bert", "carl")]


def numbered(roster: RosterFile) -> dict[int, str]:
    return {member.number: member.name for member in roster.members}


def test_members_are_numbered_in_the_order_given(publics: list[PublicHalf]) -> None:
    assert numbered(next_roster(None, publics)) == {0: "anna", 1: "bert", 2: "carl"}
    assert numbered(next_roster(None, publics[::-1])) == {0: "carl", 1: "bert", 2: "anna"}
    assert numbered(next_roster(None, publics, numbers=(7, 3, 2**32 - 1))) == {3: "bert", 7: "anna", 2**32 - 1: "carl"}


def test_a_number_that_was_signed_for_is_kept_and_the_others_go_round_it(introduce: Introduce) -> None:
    joining = [introduce("anna"), introduce("bert", member=0), introduce("carl")]
    assert numbered(next_roster(None, joining)) == {0: "bert", 1: "anna", 2: "carl"}
    with pytest.raises(IdentityError, match="'bert' has signed for number 0: give it that one, not 5"):
        next_roster(None, joining, numbers=(1, 5, 2))
    with pytest.raises(IdentityError, match="2 numbers for 3 new members"):
        next_roster(None, joining, numbers=(1, 0))
    with pytest.raises(IdentityError, match="the number '0' is on the roster twice"):
        next_roster(None, joining, numbers=(0, 0, 2))


def test_who_joins_later_gets_a_number_that_nobody_has_or_had(publics: list[PublicHalf], introduce: Introduce) -> None:
    second = next_roster(next_roster(None, publics), revoke=["bert"])
    third = next_roster(second, [introduce("dora"), introduce("emil")])
    assert (third.version, numbered(third)) == (3, {0: "anna", 2: "carl", 3: "dora", 4: "emil"})
    # Unless it is asked for: the same clinic comes back, with a new key.
    assert numbered(next_roster(second, [introduce("bert")], numbers=[1])) == {0: "anna", 1: "bert", 2: "carl"}


def test_a_revoked_key_never_comes_back_under_any_name(publics: list[PublicHalf], introduce: Introduce) -> None:
    identity = Identity.generate()
    first = next_roster(None, [*publics, introduce("dora", identity=identity)])
    second = next_roster(first, revoke=["DORA"])
    assert (second.version, numbered(second)) == (2, {0: "anna", 1: "bert", 2: "carl"})
    assert [(one.name, one.number, one.version) for one in second.revoked] == [("dora", 3, 2)]
    later = next_roster(second, [introduce("emil")])
    for before in (second, later):
        for name in ("dora", "fred"):
            again = introduce(name, identity=identity)
            for change in ({"joining": [again]}, {"authority": again}):
                with pytest.raises(IdentityError, match="was revoked in version 2, when 'dora' had it"):
                    next_roster(before, **change)  # type: ignore[arg-type]
        with pytest.raises(IdentityError, match="was revoked in version 2"):
            next_roster(before, replace={"anna": introduce("anna", identity=identity)})
    # Nor in the very change that revokes it.
    with pytest.raises(IdentityError, match="was revoked in version 2"):
        next_roster(first, [introduce("fred", identity=identity)], revoke=["dora"])


def test_a_new_key_takes_the_old_ones_place(publics: list[PublicHalf], introduce: Introduce) -> None:
    first = next_roster(None, publics, numbers=(4, 5, 6))
    fresh = introduce("bert")
    second = next_roster(first, replace={"bert": fresh})
    assert numbered(second) == numbered(first)
    assert second.members[1].public_key == fresh.public_key
    assert [one.public_key for one in second.revoked] == [publics[1].public_key]
    assert second.revoked[0].number == 5
    with pytest.raises(IdentityError, match="was revoked in version 2"):
        next_roster(second, replace={"bert": publics[1]})
    with pytest.raises(IdentityError, match="'bert' is in the name of 'carl'"):
        next_roster(first, replace={"bert": introduce("carl")})
    with pytest.raises(IdentityError, match="'bert' asks for number 9: its owner has 5"):
        next_roster(first, replace={"bert": introduce("bert", member=9)})
    assert numbered(next_roster(first, replace={"bert": introduce("bert", member=5)})) == numbered(first)


def test_a_key_authority_is_listed_replaced_and_revoked(publics: list[PublicHalf], introduce: Introduce) -> None:
    office, fresh = introduce("office"), introduce("office")
    first = next_roster(None, publics, authority=office)
    assert (
        first.roster().digest
        == Roster(
            {n: bytes.fromhex(public.public_key) for n, public in enumerate(publics)},
            authority=bytes.fromhex(office.public_key),
            edition=first.digest(),
        ).digest
    )
    with pytest.raises(IdentityError, match="'office' is the key authority: replace or revoke that one first"):
        next_roster(first, authority=introduce("bureau"))
    second = next_roster(first, replace={"office": fresh})
    assert second.authority is not None
    assert second.authority.public_key == fresh.public_key
    third = next_roster(second, revoke=["office"])
    assert third.authority is None
    assert [(one.number, one.version) for one in third.revoked] == [(None, 2), (None, 3)]
    assert decode_roster(encode_roster(third)) == third
    assert next_roster(third, authority=introduce("bureau")).authority is not None


def test_many_changes_at_once_are_one_version(publics: list[PublicHalf], introduce: Introduce) -> None:
    first = next_roster(None, publics)
    second = next_roster(
        first, [introduce("dora")], revoke=["anna"], replace={"carl": introduce("carl")}, authority=introduce("office")
    )
    assert (second.version, numbered(second)) == (2, {1: "bert", 2: "carl", 3: "dora"})
    assert {one.name for one in second.revoked} == {"anna", "carl"}
    assert next_roster(first, revoke=["anna", "bert"]) == next_roster(first, revoke=["bert", "anna"])


def test_changes_that_cannot_be_are_refused(publics: list[PublicHalf], introduce: Introduce) -> None:
    first = next_roster(None, publics)
    last = RosterFile(format=FORMAT, version=1_000_000, members=first.members)
    refused: Sequence[tuple[Callable[[], object], str]] = (
        (lambda: next_roster(first), "nothing changes"),
        (lambda: next_roster(None), "nothing changes"),
        (lambda: next_roster(None, revoke=["anna"]), "there is no roster yet"),
        (lambda: next_roster(None, publics, replace={"anna": publics[0]}), "there is no roster yet"),
        (lambda: next_roster(first, revoke=["dora"]), "'dora' is not on the roster"),
        (lambda: next_roster(first, revoke=["anna", "Anna"]), "'Anna' is named twice"),
        (lambda: next_roster(first, revoke=["anna"], replace={"anna": introduce("anna")}), "'anna' is named twice"),
        (lambda: next_roster(first, revoke=["anna", "bert", "carl"]), "no member would be left"),
        (lambda: next_roster(None, authority=introduce("office")), "no member would be left"),
        (lambda: next_roster(first, [publics[0]]), "the name 'anna' is on the roster twice"),
        (lambda: next_roster(first, [introduce("Anna")]), "the name 'anna' is on the roster twice"),
        (lambda: next_roster(first, [introduce("dora")], numbers=[1]), "the number '1' is on the roster twice"),
        (lambda: next_roster(first, [introduce("dora")], numbers=[2**32]), "<= 4294967295"),
        (lambda: next_roster(last, revoke=["anna"]), "has had 1000000 versions"),
    )
    for change, message in refused:
        with pytest.raises(IdentityError, match=message):
            change()
    same = Identity.generate()
    with pytest.raises(IdentityError, match="the public key '[0-9a-f]{64}' is on the roster twice"):
        next_roster(first, [introduce("dora", identity=same), introduce("emil", identity=same)])
    assert numbered(first) == {0: "anna", 1: "bert", 2: "carl"}
