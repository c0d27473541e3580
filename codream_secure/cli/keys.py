"""``codream-secure keys``: identities of a deployment's members, and the roster that all of them hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from codream_secure.cli.tables import plain_table, show
from codream_secure.errors import IdentityError

if TYPE_CHECKING:
    from codream_secure.deployment.public_half import PublicHalf
    from codream_secure.deployment.roster import Listed, RosterFile

keys_app = typer.Typer(no_args_is_help=True, help="Make identities and rosters for a deployment, and check them.")
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
PassphraseFile = Annotated[
    Path | None,
    typer.Option("--passphrase-file", help="One line; default: $CODREAM_KEY_PASSPHRASE, else it is asked for."),
]


@keys_app.command("new")
def keys_new(
    name: Annotated[str, typer.Argument(help="Letters, digits, '.', '-', '_'.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", file_okay=False, help="Folder; made if it is not there.")],
    member: Annotated[int | None, typer.Option("--member", min=0, help="Number agreed on for the roster.")] = None,
    passphrase_file: PassphraseFile = None,
    as_json: AsJson = False,
) -> None:
    """Make an identity: NAME.key, encrypted and for its owner only, and NAME.pub, to hand out."""
    from codream_secure.deployment import identity, public_half
    from codream_secure.deployment.files import make_private_folder
    from codream_secure.deployment.passphrase import find_passphrase
    from protocols.keys import Identity

    public_half.check_name(name)
    key_path, public_path = out / f"{name}{identity.SUFFIX}", out / f"{name}{public_half.SUFFIX}"
    for path in (key_path, public_path):
        if path.is_symlink() or path.exists():
            raise IdentityError(f"{str(path)!r} is there already, and is never written over: choose another name")
    passphrase = find_passphrase(passphrase_file, twice=True)
    try:
        made = Identity.generate()
        public = public_half.make_public_half(made, name, member=member)
        make_private_folder(out)
        identity.save_identity(made, key_path, passphrase=passphrase)
    finally:
        passphrase.wipe()
    try:
        public_half.write_public_half(public, public_path)
    except BaseException:
        # Nobody has seen its public half, so nothing is lost with it.
        key_path.unlink()
        raise
    facts = {
        "name": name,
        "member": member,
        "public_key": public.public_key,
        "fingerprint": public.fingerprint,
        "key_file": str(key_path),
        "public_file": str(public_path),
    }
    if as_json:
        print(json.dumps(facts, indent=2))
        return
    show(plain_table(("identity", name), [(key.replace("_", " "), _text(value)) for key, value in facts.items()][1:]))
    print(f"Hand out {public_path}, and read its fingerprint out to whoever makes the roster. Keep {key_path}.")


@keys_app.command("roster")
def keys_roster(
    out: Annotated[Path, typer.Option("--out", dir_okay=False, help="The roster; changed if it is there.")],
    publics: Annotated[list[Path] | None, typer.Argument(metavar="[PUB]...", help="Who joins, in order.")] = None,
    numbers: Annotated[
        list[int] | None, typer.Option("--number", min=0, help="Of each PUB, in their order. Repeatable.")
    ] = None,
    authority: Annotated[Path | None, typer.Option("--authority", help="Public half of a key authority.")] = None,
    revoke: Annotated[list[str] | None, typer.Option("--revoke", help="Name of who leaves. Repeatable.")] = None,
    replace: Annotated[
        list[str] | None, typer.Option("--replace", help="NAME=NEW.pub: the new key of a member. Repeatable.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a roster from public halves, or the next version of the one at --out; print its digest."""
    from codream_secure.deployment.membership import next_roster
    from codream_secure.deployment.public_half import load_public_half
    from codream_secure.deployment.roster import read_roster_file, write_roster_file

    made = next_roster(
        read_roster_file(out) if out.is_symlink() or out.exists() else None,
        [load_public_half(path) for path in publics or ()],
        numbers=numbers or (),
        revoke=revoke or (),
        replace=_replacements(replace or ()),
        authority=None if authority is None else load_public_half(authority),
    )
    write_roster_file(made, out)
    if as_json:
        print(json.dumps(_described(made), indent=2))
        return
    _show_roster(made)
    print(
        f"Written: {out}. Everybody compares this digest with everybody else's, on a way that the server is no part of."
    )


@keys_app.command("verify")
def keys_verify(
    roster: Annotated[Path, typer.Argument(help="The roster file.", show_default=False)],
    key: Annotated[Path | None, typer.Option("--key", help="A private key that should be on it.")] = None,
    digest: Annotated[str | None, typer.Option("--digest", help="What the others have: 64 hex digits.")] = None,
    passphrase_file: PassphraseFile = None,
    as_json: AsJson = False,
) -> None:
    """Check a roster and say who is on it; with --key, whether that identity is, and under which number."""
    from codream_secure.deployment.roster import read_roster_file

    found = read_roster_file(roster, digest=digest)
    mine = None if key is None else _owner(found, key, passphrase_file)
    if as_json:
        own = None if mine is None else {"name": mine.name, "number": getattr(mine, "number", None)}
        print(json.dumps(_described(found) | {"key": own, "digest_compared": digest is not None}, indent=2))
        return
    _show_roster(found)
    if mine is not None:
        print(f"The key is {_place(mine)}.")
    print(
        "The digest is the one that was given."
        if digest is not None
        else "Compare the digest with the others', on a way that the server is no part of, or give it with --digest."
    )


def _owner(roster: RosterFile, key: Path, passphrase_file: Path | None) -> Listed:
    """Who on the roster has this private key.

    Raises:
        IdentityError: nobody, or it was revoked; or the key cannot be loaded.
    """
    from codream_secure.deployment.identity import check_key_file, load_identity
    from codream_secure.deployment.passphrase import find_passphrase
    from codream_secure.deployment.roster import Revoked

    # Before anybody is asked for a passphrase.
    check_key_file(key)
    passphrase = find_passphrase(passphrase_file)
    try:
        public_key = load_identity(key, passphrase=passphrase).public_key
    finally:
        passphrase.wipe()
    owner = roster.holder(public_key)
    if owner is None:
        raise IdentityError(
            f"the key {str(key)!r} is not on the roster, version {roster.version}: hand in its public half, or use the "
            "key that is on it"
        )
    if isinstance(owner, Revoked):
        raise IdentityError(f"the key {str(key)!r}, of {owner.name!r}, was revoked in version {owner.version}")
    return owner


def _replacements(texts: list[str] | tuple[str, ...]) -> dict[str, PublicHalf]:
    """Name to new public half, from NAME=FILE.

    Raises:
        IdentityError: a text is of another form, a name is there twice, or a file cannot be loaded.
    """
    from codream_secure.deployment.public_half import load_public_half

    found: dict[str, PublicHalf] = {}
    for text in texts:
        name, separator, path = text.partition("=")
        if not (name and separator and path):
            raise IdentityError(f"--replace is {text!r}: it has the form NAME=NEW.pub")
        if name in found:
            raise IdentityError(f"--replace names {name!r} twice: a member has one key")
        found[name] = load_public_half(Path(path))
    return found


def _described(roster: RosterFile) -> dict[str, Any]:
    import msgspec

    content: dict[str, Any] = {"digest": roster.digest().hex(), "authority": None, "revoked": []}
    return content | msgspec.to_builtins(roster)


def _show_roster(roster: RosterFile) -> None:
    from codream_secure.deployment.public_half import in_groups

    rows = [(str(member.number), member.name, member.fingerprint) for member in roster.members]
    if roster.authority is not None:
        rows.append(("authority", roster.authority.name, roster.authority.fingerprint))
    show(plain_table(("number", "name", "fingerprint of the key"), rows))
    if roster.revoked:
        gone = [(str(one.version), one.name, one.fingerprint) for one in roster.revoked]
        show(plain_table(("revoked in", "name", "fingerprint of the key"), gone))
    print(f"version {roster.version}\ndigest  {in_groups(roster.digest())}")


def _place(one: Listed) -> str:
    number = getattr(one, "number", None)
    return f"that of the key authority, {one.name!r}" if number is None else f"that of member {number}, {one.name!r}"


def _text(value: object) -> str:
    return "-" if value is None else str(value)
