"""What whoever runs a server sees of it: lines that hold no secret, and numbers over HTTP."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import logging
import re
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from codream_secure.deployment.client_data import load_client_data
from codream_secure.deployment.connection import Connection, listen
from codream_secure.deployment.conversation import Conversation
from codream_secure.deployment.coordinator import Coordinator, Waits
from codream_secure.deployment.files import own_private_folder
from codream_secure.deployment.identity import load_identity, save_identity
from codream_secure.deployment.learner import Learner
from codream_secure.deployment.logs import LogFormat, logging_to
from codream_secure.deployment.membership import next_roster
from codream_secure.deployment.messages.correspondence import MESSAGES, Correspondence, Kept
from codream_secure.deployment.metrics import Metrics
from codream_secure.deployment.public_half import make_public_half
from codream_secure.deployment.status_server import StatusServer
from codream_secure.deployment.streams.certificates import load, make_certificates
from codream_secure.deployment.training import make_training
from protocols import Identity
from protocols.keys import Secret

PASSPHRASE = b"correct horse battery staple"
CLIENTS = 3
TERMS: dict[str, Any] = {
    "data": {"clients": CLIENTS, "samples_per_client": 10, "validation_samples": 0},
    "model": {"clients": ["mlp"]},
    "local": {"warmup_epochs": 1, "epochs": 1},
    "dreaming": {"images": 4, "steps": 1, "labels": "probabilities"},
    "distillation": {"epochs": 1, "buffer": 8},
    "protocol": {"protection": "masked", "dropout": 0.34, "corruption": 0.25},
    "run": {"rounds": 1},
    "images": {"classes": 10, "channels": 1, "height": 8, "width": 8, "mean": [0.3053], "std": [0.3760]},
}


@dataclass
class Watched:
    """A round that is over, and what was seen of it."""

    lines: list[str] = field(default_factory=list)
    secrets: list[bytes] = field(default_factory=list)
    before: tuple[int, str] = (0, "")
    after: tuple[int, str] = (0, "")
    during: dict[str, float] = field(default_factory=dict)
    """In the middle of the round."""
    numbers: dict[str, float] = field(default_factory=dict)


def get(address: str, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def numbers(text: str) -> dict[str, float]:
    """Series to value."""
    pairs = (line.rsplit(" ", 1) for line in text.splitlines() if line and not line.startswith("#"))
    return {name: float(value) for name, value in pairs}


def shapes(secret: bytes) -> Iterator[str]:
    """How the beginning of some bytes may look in a text."""
    head = secret[:12]
    yield head.hex()
    yield head.hex().upper()
    yield base64.b64encode(head).decode().rstrip("=")
    yield base64.urlsafe_b64encode(head).decode().rstrip("=")
    yield repr(head)[2:-1]
    yield str(list(head))[1:-1]
    if len(secret) >= 16 and len(secret) % 4 == 0:
        yield from (repr(float(value)) for value in np.frombuffer(secret[:16], "<f4") if len(repr(float(value))) > 8)


def leaks(lines: list[str], secrets: list[bytes]) -> list[str]:
    text = "\n".join(lines) + "\n" + "\n".join(str(json.loads(line)["message"]) for line in lines)
    return [shape for secret in secrets if any(secret) for shape in shapes(secret) if shape in text]


@contextlib.contextmanager
def noted(secrets: list[bytes]) -> Iterator[None]:
    """Every key that this process makes or reads, and every vector that a client gives."""
    made, given = Secret.__init__, Conversation.contribute

    def make(self: Secret, value: bytes | bytearray) -> None:
        made(self, value)
        secrets.append(bytes(value))

    def contribute(self: Conversation, phase: str, values: int, compute: Callable[[], Any]) -> None:
        def noting() -> Any:
            vector = compute()
            secrets.append(vector.tobytes())
            return vector

        given(self, phase, values, noting)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Secret, "__init__", make)
        patch.setattr(Conversation, "contribute", contribute)
        yield


@contextlib.contextmanager
def json_lines() -> Iterator[io.StringIO]:
    """Everything that this package says, down to what nobody asks for."""
    stream = io.StringIO()
    with logging_to(LogFormat.JSON, verbose=True, stream=stream):
        logging.getLogger("codream_secure").setLevel(logging.DEBUG)
        yield stream


def knock(address: str, tls: Any) -> None:
    """A stream with a certificate and without an identity."""
    grpc = pytest.importorskip("grpc")
    credentials = grpc.ssl_channel_credentials(tls.authority, tls.private_key, tls.certificate)
    with grpc.secure_channel(address, credentials) as channel:
        list(channel.stream_stream("/codream_secure.Streams/Open")(iter([b"nobody\nin particular"]), timeout=30))


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Watched:
    return watch(tmp_path_factory.mktemp("operations"), CLIENTS, join=60)


def watch(folder: Path, present: int, *, join: float) -> Watched:
    """Run a round with so many of the clients."""
    pytest.importorskip("grpc")
    pytest.importorskip("prometheus_client")
    found = Watched()
    with json_lines() as stream, noted(found.secrets), contextlib.ExitStack() as stack:
        publics = []
        for number in range(CLIENTS):
            identity = Identity.generate()
            save_identity(identity, folder / f"{number}.key", passphrase=Secret(PASSPHRASE))
            publics.append(make_public_half(identity, f"member{number}", member=number))
            found.secrets.append(identity.private_bytes())
        training, roster = make_training(TERMS), next_roster(None, publics).roster()
        make_certificates(folder / "tls", ["client"])
        tls = load(folder / "tls", "client")
        for name in ("client", "server"):
            # From the middle of the key: what it begins with is the same in all of them.
            found.secrets.append(base64.b64decode((folder / "tls" / f"{name}.key").read_text().splitlines()[2]))
        metrics = Metrics()
        status = stack.enter_context(StatusServer("0", metrics))
        waits = Waits(join=join)
        aggregator = stack.enter_context(
            listen(
                "127.0.0.1:0",
                training,
                roster=roster,
                tls=load(folder / "tls", "server"),
                deadlines=waits.deadlines(),
            )
        )
        coordinator = Coordinator(
            training,
            aggregator,
            state=folder / "server",
            waits=waits,
            monitor=metrics,
            observe=lambda *_: found.during or found.during.update(numbers(get(status.address, "/metrics")[1])),
        )
        address = f"127.0.0.1:{aggregator.port}"
        found.before = get(status.address, "/healthz")
        knock(address, tls)
        failures: list[BaseException] = []

        def learn(number: int) -> None:
            try:
                Learner(
                    training,
                    number,
                    data=load_client_data("digits", training, part=number),
                    carriage=Connection(
                        address=address,
                        identity=load_identity(folder / f"{number}.key", passphrase=Secret(PASSPHRASE)),
                        roster=roster,
                        tls=tls,
                    ),
                    state=folder / f"client{number}",
                ).run()
            except BaseException as error:
                failures.append(error)

        # A round that messages carried before: a stream takes over.
        own_private_folder(folder / "client0")
        Correspondence(folder / "client0" / MESSAGES, key=bytes(32)).write(Kept(bytes(16), 1, None, None, False))
        threads = [threading.Thread(target=learn, args=(number,), daemon=True) for number in range(present)]
        for thread in threads:
            thread.start()
        coordinator.run()
        for thread in threads:
            thread.join()
        assert failures == []
        assert list((folder / "client0" / MESSAGES).iterdir()) == []
        found.after = get(status.address, "/healthz")
        found.numbers = numbers(get(status.address, "/metrics")[1])
        assert get(status.address, "/")[0] == 404
    found.lines = stream.getvalue().splitlines()
    return found


def test_every_line_is_an_object_with_named_fields(watched: Watched) -> None:
    rows = [json.loads(line) for line in watched.lines]
    assert all({"time", "level", "logger", "message"} <= row.keys() for row in rows)
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]{12}\+00:00", row["time"]) for row in rows)
    [finished] = [row for row in rows if row["message"] == "round 1 is finished" and "member" not in row]
    assert (finished["round"], finished["attempt"], finished["level"]) == (1, 1, "INFO")
    own = [row["member"] for row in rows if row["message"] == "round 1 is finished" and "member" in row]
    assert sorted(own) == [0, 1, 2]
    summed = [row for row in rows if row["message"].endswith("is open")]
    assert len({row["phase"] for row in summed}) > 1
    assert {row["members"] for row in summed} == {CLIENTS}


def test_no_line_holds_a_key_a_passphrase_or_a_vector(watched: Watched) -> None:
    assert PASSPHRASE in watched.secrets
    # Identities, what a round agrees on for masks, and vectors: the look saw something to look for.
    assert sum(len(secret) == 32 for secret in watched.secrets) > 10
    assert any(len(secret) > 1000 for secret in watched.secrets)
    assert len(watched.lines) > 10
    assert leaks(watched.lines, watched.secrets) == []
    assert PASSPHRASE.decode() not in "".join(watched.lines)


@pytest.mark.parametrize("show", [bytes.hex, repr, lambda secret: base64.b64encode(secret).decode(), list])
def test_the_look_finds_a_secret_that_is_there(watched: Watched, show: Any) -> None:
    secret = max(watched.secrets, key=len)
    assert leaks([json.dumps({"message": f"a vector: {show(secret)}"})], [secret])


def test_health_waits_for_the_first_round(watched: Watched) -> None:
    assert watched.before == (503, "no round could be opened yet\n")
    assert watched.after == (200, "serving\n")


def test_numbers_say_what_happened(watched: Watched) -> None:
    found = watched.numbers
    assert (found["codream_rounds"], found["codream_rounds_finished"], found["codream_round"]) == (1, 1, 1)
    opened = sum("is open" in line for line in watched.lines)
    assert opened > 1
    assert found['codream_sums_total{outcome="opened"}'] == found["codream_sum_seconds_count"] == opened
    assert found['codream_sum_seconds_bucket{le="+Inf"}'] == opened
    assert found['codream_sums_total{outcome="failed"}'] == 0
    assert {phase: found[f'codream_dropouts_total{{phase="{phase}"}}'] for phase in ("share", "collect", "open")} == {
        "share": 0,
        "collect": 0,
        "open": 0,
    }
    assert (found["codream_streams_refused_total"], found["codream_answers_refused_total"]) == (1, 0)
    # Four dreams of 8x8 floats to each of three, at the least.
    assert found["codream_down_bytes_total"] > 3 * 4 * 8 * 8 * 4


def test_numbers_are_of_the_moment(watched: Watched) -> None:
    found = watched.during
    assert (found["codream_round"], found["codream_rounds_finished"]) == (1, 0)
    assert found["codream_members_present"] == CLIENTS
    assert found["codream_down_bytes_total"] < watched.numbers["codream_down_bytes_total"]


def test_who_is_missing_is_counted_by_phase(tmp_path: Path) -> None:
    found = watch(tmp_path, CLIENTS - 1, join=0.1).numbers
    phases = ("advertise", "share", "collect", "vote", "open")
    missing = {phase: found[f'codream_dropouts_total{{phase="{phase}"}}'] for phase in phases}
    assert missing == {"advertise": 1, "share": 0, "collect": 0, "vote": 0, "open": 0}
    assert found["codream_rounds_finished"] == 1
