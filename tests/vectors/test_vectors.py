"""Test vectors against an implementation that shares no code with the package; the page that describes both."""

from __future__ import annotations

import ast
import copy
import importlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
if str(HERE) not in sys.path:
    sys.path.insert(0, str(HERE))
bindings, bodies, checks, frames, rounds, sharing, encoding = (
    importlib.import_module(f"independent.{name}")
    for name in ("bindings", "bodies", "checks", "frames", "rounds", "sharing", "encoding")
)

FILES = sorted(HERE.glob("*.json"))
CASES = {f"{path.stem}: {case['kind']}: {case['name']}": case for path in FILES for case in checks.load(path)}
ROUNDS = [name for name, case in CASES.items() if case["kind"] == "round"]
MASKED = [name for name in ROUNDS if CASES[name]["given"]["protocol"] == "masked"]
PAGE = (ROOT / "docs" / "wire_format.md").read_text(encoding="utf-8")


# The vectors


@pytest.mark.parametrize("name", CASES)
def test_an_independent_implementation_computes_the_same(name: str) -> None:
    case = CASES[name]
    assert checks.recompute(case["kind"], case["given"]) == case["expected"]


def test_there_are_vectors_of_every_kind_and_no_two_of_one_name() -> None:
    assert {case["kind"] for case in CASES.values()} == checks.KINDS
    assert len(CASES) == sum(len(checks.load(path)) for path in FILES)


def test_every_message_is_in_the_vectors_alone_and_in_a_round() -> None:
    alone = {case["given"]["message"] for case in CASES.values() if case["kind"] == "frame"}
    sent = {message["name"] for name in ROUNDS for message in CASES[name]["expected"]["messages"]}
    assert alone == sent == frames.MESSAGES.keys()


def test_the_vectors_are_small() -> None:
    assert sum(path.stat().st_size for path in FILES) < 1_750_000


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths to everything that is no container."""
    if not isinstance(value, dict | list):
        yield path
        return
    for key in value if isinstance(value, dict) else range(len(value)):
        yield from leaves(value[key], (*path, key))


def altered(value: Any) -> Any:
    """Something else of the same kind: a flipped bit, the next number, another word."""
    match value:
        case bool():
            return not value
        case int():
            return value + 1
        case None:
            return 1
        case str() if re.fullmatch(r"-?0x.*", value):
            return (float.fromhex(value) * 0.5 + 0.0625).hex()
        case str() if re.fullmatch(r"([0-9a-f]{2})+", value):
            return value[:-1] + f"{int(value[-1], 16) ^ 1:x}"
    return value + "?"


def with_altered(given: Any, path: tuple[Any, ...]) -> Any:
    changed = copy.deepcopy(given)
    inner = changed
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = altered(inner[path[-1]])
    return changed


def differs(case: dict[str, Any], given: Any) -> bool:
    try:
        return bool(checks.recompute(case["kind"], given) != case["expected"])
    except (ValueError, KeyError, OverflowError):
        return True


BOUND_KINDS = {
    *("frame", "terms", "roster", "session", "request", "advertisement", "vote", "pair", "pair mask", "self mask"),
    *("keystream", "masking", "split", "commitment", "backup", "parcel", "expansion", "secret key", "tag"),
}
BOUND = [name for name, case in CASES.items() if case["kind"] in BOUND_KINDS]


@pytest.mark.parametrize("name", BOUND)
def test_no_given_value_is_idle(name: str) -> None:
    """Digests, keys and ciphertexts depend on everything that they are said to depend on."""
    case = CASES[name]
    idle = [path for path in leaves(case["given"]) if not differs(case, with_altered(case["given"], path))]
    assert idle == []


# Rounds


def test_a_round_depends_on_every_private_input() -> None:
    """One of each sort, of one client (keys, secrets, a coefficient, a value, a weight) and of what all share."""
    case = CASES["round_passive: round: passive"]
    client, steps = ("clients", "200"), ("steps", 0, "contributions", "200")
    for path in (
        (*client, "identity"),
        (*client, "round_key"),
        (*client, "self_secrets", 1),
        (*client, "pair_secrets", 1),
        (*client, "coefficients", 3, 1),
        (*steps, "values", 2),
        (*steps, "weight"),
        ("steps", 0, "context"),
        ("round_id",),
        ("terms", "eta"),
        ("terms", "min_cohort"),
    ):
        try:
            messages = rounds.transcript(with_altered(case["given"], path))
        except (ValueError, KeyError):
            continue
        assert messages != case["expected"]["messages"], path


def fields(name: str, message: str) -> list[dict[str, Any]]:
    """The fields of all messages of one kind in a recorded round."""
    frames_of_kind = [m["frame"] for m in CASES[name]["expected"]["messages"] if m["name"] == message]
    return [frames.parse(bytes.fromhex(frame)).fields for frame in frames_of_kind]


def shares_by_secret(name: str) -> dict[tuple[str, int, int], set[str]]:
    """By kind of secret, owner and step: the shares of it that a recorded round could show."""
    given = CASES[name]["given"]
    points = {member: at for at, member in enumerate(given["cohort"], start=1)}
    found = {}
    for owner, private in given["clients"].items():
        secrets = [pair for both in zip(private["self_secrets"], private["pair_secrets"], strict=True) for pair in both]
        for at, (secret, drawn) in enumerate(zip(secrets, private["coefficients"], strict=True)):
            coefficients = [int(text, 16) for text in drawn]
            held = {sharing.element(sharing.share(int(secret, 16), coefficients, x)).hex() for x in points.values()}
            found["pair" if at % 2 else "self", int(owner), at // 2] = held
    return found


@pytest.mark.parametrize("name", MASKED)
def test_no_step_shows_shares_of_both_secrets_of_one_member(name: str) -> None:
    openings = "|".join(m["frame"] for m in CASES[name]["expected"]["messages"] if m["name"] == "Openings")
    shown = {place for place, held in shares_by_secret(name).items() if any(share in openings for share in held)}
    named = {(f["step"], member) for f in fields(name, "OpenRequest") for member in f["dead"]}
    set_up = next(iter(fields(name, "Inbox")))["members"]
    answered = {f["step"] for f in fields(name, "Openings")}
    assert named
    assert shown == {
        ("pair" if (step, member) in named else "self", member, step) for member in set_up for step in answered
    }


@pytest.mark.parametrize("mode", ["passive", "active"])
def test_whoever_a_step_does_not_ask_is_named_dead_in_it_and_back_in_the_next(mode: str) -> None:
    name = f"round_{mode}: round: {mode}"
    (step,) = (at for at, about in enumerate(CASES[name]["given"]["steps"]) if about["exactly"] is not None)
    messages = CASES[name]["expected"]["messages"]
    (asked,) = (m["to"] for m in messages if (m["name"], m["step"]) == ("StepRequest", step))
    assert asked == CASES[name]["given"]["steps"][step]["exactly"]
    dead = {f["step"]: f["dead"] for f in fields(name, "OpenRequest")}
    assert (dead[step], dead[step + 1]) == ([200], [])


@pytest.mark.parametrize("mode", ["passive", "active"])
def test_a_step_that_failed_while_it_was_opened_is_repeated_over_the_same_members_with_other_masks(mode: str) -> None:
    name = f"round_{mode}: round: {mode}"
    (failed,) = {f["step"] for f in fields(name, "Abort")}
    given = CASES[name]["given"]["steps"]
    vectors = {f["step"]: f["ring"] for f in fields(name, "Contribution") if f["member"] == 1}
    sums = {entry["step"]: entry for entry in CASES[name]["expected"]["sums"]}
    assert failed not in sums
    assert sums[failed + 1]["contributors"] == given[failed + 1]["exactly"]
    assert given[failed + 1]["contributions"].items() <= given[failed]["contributions"].items()
    first, again = (encoding.ring_elements(vectors[step], 32) for step in (failed, failed + 1))
    assert all(once != twice for once, twice in zip(first, again, strict=True))


@pytest.mark.parametrize("mode", ["passive", "active"])
def test_a_server_that_showed_the_clients_another_context_opens_nothing(mode: str) -> None:
    case = CASES[f"round_{mode}: round: {mode}"]
    given = with_altered(case["given"], ("steps", 0, "context"))
    if mode == "active":
        with pytest.raises(ValueError, match="signed other survivors"):
            rounds.sums(given, case["expected"]["messages"])
        return
    opened = rounds.sums(given, case["expected"]["messages"])
    ring, right = (bytes.fromhex(entry["ring"]) for entry in (opened[0], case["expected"]["sums"][0]))
    elements = zip(encoding.ring_elements(ring, 32), encoding.ring_elements(right, 32), strict=True)
    assert all(wrong != value for wrong, value in elements)
    assert opened[1:] == case["expected"]["sums"][1:]


@pytest.mark.parametrize("name", MASKED)
def test_no_private_input_is_in_a_message_in_clear(name: str) -> None:
    sent = "".join(message["frame"] for message in CASES[name]["expected"]["messages"])
    for private in CASES[name]["given"]["clients"].values():
        secrets = [private["identity"], private["round_key"], *private["self_secrets"], *private["pair_secrets"]]
        assert not [secret for secret in secrets if secret in sent]


@pytest.mark.parametrize("mode", ["passive", "active"])
def test_a_late_vector_is_still_under_its_self_mask_when_its_pairwise_masks_are_open(mode: str) -> None:
    case = CASES[f"round_{mode}: round: {mode}"]
    given, step, member = case["given"], 1, 200
    setting = rounds.Setting(given)
    (late,) = (m for m in case["expected"]["messages"] if (m["from"], m["step"], m["taken"]) == (member, step, False))
    ring = encoding.ring_elements(frames.parse(bytes.fromhex(late["frame"])).fields["ring"], 64)
    private = given["clients"][str(member)]
    shares = next(m for m in case["expected"]["messages"] if m["name"] == "Shares" and m["from"] == member)
    sealed = frames.parse(bytes.fromhex(shares["frame"])).fields["backups"][step]
    seeds = sharing.open_backup(setting.session, member, step, int(private["pair_secrets"][step], 16), sealed)
    peers = setting.neighbours[member]
    keys = [bindings.pair_key(seed, setting.asked(step)) for seed in seeds]
    signs = [(-1 if peer > member else 1, key) for peer, key in zip(peers, keys, strict=True)]
    vector, left = rounds.encoded(setting, step, member), rounds.add_masks(ring, signs, 64)
    assert all(masked != value for masked, value in zip(left, vector, strict=True))
    self_key = bindings.self_key(int(private["self_secrets"][step], 16), setting.asked(step))
    assert rounds.add_masks(left, [(-1, self_key)], 64) == vector


# The generator and the checker as programs


def test_the_generator_writes_the_same_files_again(tmp_path: Path) -> None:
    """CKKS encodes in floating point: where that rounds otherwise, what is written has to pass the checker instead."""
    subprocess.run([sys.executable, HERE / "make_vectors.py", tmp_path], check=True, cwd=ROOT)
    assert {path.name for path in FILES} == {path.name for path in tmp_path.iterdir()}
    for path in FILES:
        again = tmp_path / path.name
        if path.name.startswith("round_ckks") and again.read_bytes() != path.read_bytes():
            assert all(checks.recompute(case["kind"], case["given"]) == case["expected"] for case in checks.load(again))
        else:
            assert again.read_bytes() == path.read_bytes(), f"{path.name}: run make_vectors.py"


def checker(folder: Path) -> subprocess.CompletedProcess[str]:
    """The checker as a program of its own, with no installed package in reach."""
    program = (
        "import runpy, sys; sys.path.insert(0, sys.argv.pop(1)); runpy.run_module('independent', run_name='__main__')"
    )
    command = [sys.executable, "-I", "-S", "-c", program, HERE, folder]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_checker_runs_without_any_installed_package_and_notices_a_wrong_vector(tmp_path: Path) -> None:
    content = json.loads((HERE / "sharing.json").read_text(encoding="utf-8"))
    (tmp_path / "sharing.json").write_text(json.dumps(content), encoding="utf-8")
    right = checker(tmp_path)
    assert (right.returncode, right.stderr) == (0, "")
    content["cases"][-1]["expected"]["ciphertext"] = altered(content["cases"][-1]["expected"]["ciphertext"])
    (tmp_path / "sharing.json").write_text(json.dumps(content), encoding="utf-8")
    wrong = checker(tmp_path)
    assert wrong.returncode == 1
    assert content["cases"][-1]["name"] in wrong.stdout


def test_the_checker_shares_no_code_with_the_package() -> None:
    for path in (HERE / "independent").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names = set() if node.level == 1 else {(node.module or "").split(".")[0]}
            else:
                continue
            assert names <= sys.stdlib_module_names, path.name


# The page


def table(heading: str) -> list[list[str]]:
    """The rows of the first table under a heading of the page."""
    (section,) = re.findall(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#|\Z)", PAGE, flags=re.MULTILINE | re.DOTALL)
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line[:1] == "|"]
    return rows[2:]


def test_the_page_lists_the_labels_that_the_checker_uses() -> None:
    listed = {name: label.strip("`").encode("ascii") + b"\0" for name, label, *_ in table("Labels")}
    assert listed == bindings.LABELS


def test_the_page_lists_every_label_of_the_package() -> None:
    found = set()
    for path in (ROOT / "protocols").rglob("*.py"):
        family = "homomorphic" if "homomorphic" in path.parts else "masked"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.Constant(value=bytes(label)) if label.startswith(b"codream-secure") and label[-1:] != b" ":
                    found.add(label)
                case ast.Call(func=ast.Name(id="label"), args=[ast.Constant(value=str(purpose))]):
                    found.add(f"codream-secure {family} v1 {purpose}\0".encode("ascii"))
    assert found == set(bindings.LABELS.values())


def test_the_page_lists_every_message_and_its_fields() -> None:
    listed = {
        name.strip("`"): (int(number), re.findall(r"`(\w+)`", fields)) for number, name, _, fields in table("Messages")
    }
    assert listed == {name: (number, list(fields)) for name, (number, fields) in frames.MESSAGES.items()}


def test_the_page_gives_the_checksum_that_frames_have() -> None:
    (stated,) = re.findall(r"nine bytes `123456789` it is `([0-9a-f]{32})`", PAGE)
    assert frames.checksum(1, b"123456789").hex() == stated


def test_the_page_names_every_file_of_vectors() -> None:
    assert {path.name for path in FILES} == set(re.findall(r"`(\w+\.json)`", PAGE))
