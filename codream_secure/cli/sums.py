"""``codream-secure protocols``: who learns what under each protection, and what ciphertexts take."""

from __future__ import annotations

import dataclasses
import json
from typing import Annotated, Any, Literal

import typer

from codream_secure.cli.tables import plain_table, show, size

protocols_app = typer.Typer(no_args_is_help=True, help="Look at the protections of sums.")
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]


@protocols_app.command("list")
def protocols_list(as_json: AsJson = False) -> None:
    """List the protections that a configuration can name, and who learns what under each."""
    from protocols import available_protocols, make_protocol

    found = {name: dataclasses.asdict(make_protocol(name).threat_model) for name in available_protocols()}
    if as_json:
        print(json.dumps(found, indent=2))
        return
    for name, statements in found.items():
        show(plain_table((name, ""), [(part.replace("_", " "), text) for part, text in statements.items()]))


@protocols_app.command("plan")
def protocols_plan(
    clients: Annotated[int, typer.Option("--clients", min=1, help="At most so many vectors are added.")],
    values: Annotated[int, typer.Option("--values", min=0, help="Length of every client's vector.")] = 786_432,
    precision: Annotated[float, typer.Option("--precision", help="Largest error of a value by rounding.")] = 1e-4,
    clip: Annotated[float, typer.Option("--clip", help="Bound on a value's magnitude.")] = 1.0,
    scheme: Annotated[Literal["bfv", "ckks", "both"], typer.Option("--scheme", help="bfv, ckks or both.")] = "both",
    key: Annotated[
        Literal["clients", "authority"], typer.Option("--key", help="Who holds the secret key: clients or authority.")
    ] = "clients",
    as_json: AsJson = False,
) -> None:
    """Choose the parameters of encrypted sums: all that were considered, what was taken, and why."""
    from protocols.homomorphic.planning import encoding_for, plan_sums

    encoding = encoding_for(precision, clients=clients, clip=clip)
    found: dict[str, dict[str, Any]] = {}
    for name in ("bfv", "ckks") if scheme == "both" else (scheme,):
        plan = plan_sums(name, encoding, public=key == "authority")
        found[name] = {
            "key": key,
            "clients": clients,
            "values": values,
            "clip": encoding.clip,
            "largest_rounding_error": encoding.resolution / 2,
            "value_bits": (2 * encoding.largest).bit_length(),
            "sum_bits": (2 * encoding.largest * clients).bit_length(),
            "parameters": dataclasses.asdict(plan.parameters),
            "values_per_integer": plan.packing.fields,
            "integers_per_value": plan.packing.limbs,
            "ciphertexts": plan.chunks(values),
            "upload_bytes": plan.upload_bytes(values),
            "download_bytes": plan.sum_bytes(values),
            "considered": [dataclasses.asdict(one) for one in plan.considered],
        }
    if as_json:
        print(json.dumps(found, indent=2))
        return
    for name, entry in found.items():
        _show_plan(name, entry)


def _show_plan(name: str, entry: dict[str, Any]) -> None:
    holder = "all clients hold the key" if entry["key"] == "clients" else "an authority holds the key"
    headings = (f"{name}, {holder}", "modulus", "largest safe", "room", "values in integers", "up", "down", "verdict")
    rows = [
        (
            f"N = {one['degree']}",
            f"{one['modulus_bits']} bits",
            f"{one['security_limit']} bits",
            f"{one['message_bits']} bits",
            _packed(one["fields"], one["limbs"]),
            _bytes(one["upload"]),
            _bytes(one["download"]),
            one["verdict"],
        )
        for one in entry["considered"]
    ]
    show(plain_table(headings, rows))
    print(
        "Largest safe: with 128 bits of security. Room: for an integer of the sum, beside the errors. 2 in 1: two "
        "values share an integer; 1 in 2: one value takes two. Up and down: bytes a value.\n"
        f"Values up to {entry['clip']:g}: {entry['value_bits']} bits each, {entry['sum_bits']} in the sum of "
        f"{entry['clients']}; rounding moves a value by {entry['largest_rounding_error']:.2g} at most.\n"
        f"{entry['values']} values: {entry['ciphertexts']} ciphertexts, {size(entry['upload_bytes'])} up from each "
        f"client, {size(entry['download_bytes'])} for the sum.\n"
    )


def _packed(fields: int, limbs: int) -> str:
    if not fields:
        return "-"
    return f"{fields} in 1" if limbs == 1 else f"1 in {limbs}"


def _bytes(count: float | None) -> str:
    return "-" if count is None else f"{count:.2f} B"
