"""The benchmark of secure sums: what it reports, on vectors too short to be worth timing."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR

from codream_secure.bench import flower
from codream_secure.bench.floor import Floor
from codream_secure.bench.others import FLOWER
from codream_secure.bench.protocols import bench_protocols, cohort_sizes, dropout_shares
from codream_secure.bench.pulse import Pulse
from codream_secure.bench.row import Row, client_vectors
from codream_secure.bench.tenseal_default import DEFAULT
from codream_secure.cli import main
from codream_secure.errors import ConfigError
from protocols import Dropouts, FixedPoint, Phase, Simulation, Terms, make_protocol

ASKED_FOR = {
    "protocol",
    "clients",
    "values",
    "dropout",
    "setup_cpu_s",
    "client_cpu_s",
    "server_cpu_s",
    "upload_bytes_per_value",
    "max_abs_error",
    "setup_bytes",
    "unmask_cpu_s",
    "degree",
    "floor_cpu_s",
}
SMALL = ("bench", "protocols", "--clients", "6,8", "--values", "300", "--dropout", "0,0.2", "--steps", "1")

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run ``codream-secure`` in this process: exit code, standard output and standard error."""
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    # typer replaces the hook; a test must not leave it behind.
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["codream-secure", *map(str, arguments)])
        capsys.readouterr()
        code: object = 0
        try:
            main()
        except SystemExit as stop:
            code = stop.code or 0
        assert isinstance(code, int)
        return code, *capsys.readouterr()

    return call


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    """Two cohorts of both protections, nobody or three tenths gone."""
    return bench_protocols(
        ["plain", "masked"], clients=[6, 10], dropouts=[0.0, 0.3], values=300, steps=2, planned_steps=4
    )


def test_there_is_a_row_for_every_protection_size_and_dropout(rows: list[Row]) -> None:
    assert [(row.protocol, row.clients, row.dropout, row.vanished) for row in rows] == [
        (name, size, dropout, vanished)
        for size, gone in ((6, 1), (10, 3))
        for name in ("plain", "masked")
        for dropout, vanished in ((0.0, 0), (0.3, gone))
    ]


def test_every_figure_is_there_and_possible(rows: list[Row]) -> None:
    for row in rows:
        assert dataclasses.asdict(row).keys() >= ASKED_FOR
        assert (row.values, row.steps, row.steps_per_setup) == (300, 2, 4)
        times = [row.setup_cpu_s, row.client_cpu_s, row.server_cpu_s, row.unmask_cpu_s]
        assert all(math.isfinite(seconds) and seconds > 0 for seconds in times)
        assert row.unmask_cpu_s < row.server_cpu_s
        if row.protocol == "plain":
            assert row.degree is row.floor_cpu_s is row.floor_ratio is None
        else:
            assert row.degree == row.clients - 1
            assert row.floor_cpu_s is not None
            assert row.floor_cpu_s > 0
            assert row.floor_ratio == pytest.approx(row.client_cpu_s / row.floor_cpu_s)


def test_the_error_is_that_of_rounding_and_the_same_whatever_the_protection(rows: list[Row]) -> None:
    for plain, masked in ((rows[0], rows[2]), (rows[1], rows[3]), (rows[4], rows[6]), (rows[5], rows[7])):
        assert (plain.clients, plain.dropout) == (masked.clients, masked.dropout)
        assert plain.max_abs_error == masked.max_abs_error
        # Half a unit of 2^-e, the largest scale at which the clients' sum stays below 2^31.
        unit = 2.0 ** -math.floor(math.log2((2**31 - 1) / plain.clients))
        assert 0 < plain.max_abs_error <= (plain.clients - plain.vanished) * unit / 2


@pytest.mark.parametrize("name", ["plain", "masked"])
def test_bytes_are_those_of_a_simulation(rows: list[Row], name: str) -> None:
    terms = Terms(streams={"values": FixedPoint(clip=1.0, clients=10)}, steps=4)
    network = Dropouts(lambda phase, step, member: phase is Phase.COLLECT and member >= 7)
    cohort = Simulation(make_protocol(name), range(10), terms=terms, network=network)
    cohort.open()
    cohort.sum(dict(enumerate(client_vectors(10, 300))), stream="values")
    (row,) = (row for row in rows if (row.protocol, row.clients, row.vanished) == (name, 10, 3))
    assert row.upload_bytes_per_value == cohort.costs.of(0, "step").sent / 300
    setup = cohort.costs.of(0, "setup")
    assert row.setup_bytes == setup.sent + setup.received


def test_vectors_differ_from_client_to_client_and_use_the_whole_precision() -> None:
    vectors = client_vectors(3, 1000)
    assert [len(vector) for vector in vectors] == [1000] * 3
    assert not np.array_equal(vectors[0], vectors[1])
    assert all(np.abs(vector).max() <= 1 for vector in vectors)
    # Multiples of 2^-23 would be encoded without any error.
    assert np.count_nonzero(vectors[0] * 2**23 % 1) > 500


@pytest.mark.parametrize("values", [1, 32_768, 40_000])
def test_the_floor_adds_the_whole_keystream_of_every_mask(monkeypatch: pytest.MonkeyPatch, values: int) -> None:
    keys = [hashlib.sha256(bytes([index])).digest() for index in range(3)]
    source = iter(keys)
    monkeypatch.setattr(os, "urandom", lambda count: next(source)[:count])
    floor = Floor(values, 3)
    assert floor.seconds() > 0
    expected = np.ones(values, dtype=np.uint32)
    for key in keys:
        stream = Cipher(AES(key), CTR(bytes(16))).encryptor().update(bytes(4 * values))
        expected += np.frombuffer(stream, dtype="<u4")
    assert np.array_equal(floor._total, expected)


def test_the_pulse_tells_of_what_takes_long_and_of_nothing_else() -> None:
    heard, lines = threading.Event(), []

    def observe(text: str) -> None:
        lines.append(text)
        heard.set()

    with Pulse(observe, quiet=3600):
        pass
    assert not lines
    with Pulse(observe, quiet=0.01) as pulse:
        pulse.say("long")
        assert heard.wait(60)
        heard.clear()
        pulse.say("longer")
        assert heard.wait(60)
    assert [line.split(" (")[0] for line in lines] == ["long", "longer"]


def test_the_pulse_stops_when_what_it_watches_fails() -> None:
    before = threading.active_count()
    with pytest.raises(RuntimeError, match="a bug"), Pulse(lambda text: None, quiet=0.01):
        raise RuntimeError("a bug")
    assert threading.active_count() == before


@pytest.mark.parametrize("text", ["", "ten", "10,,50", "10;50", "1.5", "-3", "²"])
def test_cohort_sizes_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="flower_clients=.*must be whole numbers"):
        cohort_sizes(text, "flower_clients")


def test_dropouts_are_read_once_each() -> None:
    assert dropout_shares("0.2,0,0.20") == [0.2, 0.0]


# The command


def test_json_is_written_to_the_file_and_nothing_is_left_beside_it(command: Command, tmp_path: Path) -> None:
    target = tmp_path / "new" / "rows.json"
    code, out, _ = command(*SMALL, "--no-flower", "--json", target)
    assert (code, out) == (0, f"results: {target}\n")
    assert list(target.parent.iterdir()) == [target]
    found = json.loads(target.read_text())
    assert [(row["protocol"], row["clients"], row["dropout"]) for row in found] == [
        (name, size, dropout)
        for size, names in ((6, ("plain", "masked", "bfv", "ckks", DEFAULT)), (8, ("plain", "masked")))
        for name in names
        for dropout in (0.0, 0.2)
    ]
    assert all(row.keys() == {field.name for field in dataclasses.fields(Row)} for row in found)
    assert {field.name for field in dataclasses.fields(Row)} >= ASKED_FOR


def test_json_on_standard_output_is_nothing_but_json(command: Command) -> None:
    code, out, err = command(*SMALL, "--protections", "plain", "--no-flower", "--json", "-")
    assert (code, err) == (0, "")
    assert {row["protocol"] for row in json.loads(out)} == {"plain"}


def test_tables_name_every_row(command: Command) -> None:
    code, out, _ = command(*SMALL, "--no-flower")
    assert code == 0
    assert out.count("plain") == out.count("masked") == 8
    assert "Flower" not in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--clients", "ten"), "clients='ten' must be whole numbers"),
        (("--clients", "10,1"), "clients has 1: a sum needs at least 2"),
        (("--dropout", "none"), "dropout='none' must be numbers"),
        (("--dropout", "0,1"), "dropout has 1: a share of the cohort"),
        (("--dropout", "-0.1"), "dropout has -0.1"),
        (("--dropout", "nan"), "dropout has nan"),
        (("--clients", "10", "--dropout", "0.9"), "may collude"),
        (("--values", "0"), "--values"),
        (("--steps", "0"), "--steps"),
        (("--protections", "maskd"), "did you mean 'masked'?"),
        (("--planned-steps", "1"), "planned_steps is 1: 1 timed steps at each of 2 dropouts need 2"),
        (("--json", "."), "--json"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_wrong_arguments_are_messages_with_exit_code_2(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = command(*SMALL, "--no-flower", "--json", "rows.json", *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert "Traceback" not in err
    assert not list(tmp_path.iterdir()), "a refused command leaves nothing behind"


def test_flowers_cohorts_are_among_ours() -> None:
    with pytest.raises(ConfigError, match="flower_clients has 7, which clients has not: 3, 5"):
        bench_protocols(["plain"], clients=[3, 5], dropouts=[0.0], values=1, flower_clients=[7])


# Encrypted sums


def test_encrypted_sums_are_measured_beside_the_usual_settings_where_asked_for() -> None:
    names = ["plain", "bfv", "ckks", "bfv-authority", DEFAULT]
    found = bench_protocols(
        names, clients=[3, 4], dropouts=[0.0, 0.25], values=5000, steps=1, planned_steps=2, encrypted_clients=[4]
    )
    assert [(row.protocol, row.clients, row.vanished) for row in found] == [
        ("plain", 3, 0),
        ("plain", 3, 0),
        *((name, 4, vanished) for name in names for vanished in (0, 1)),
    ]
    rows = {(row.protocol, row.vanished): row for row in found if row.clients == 4}
    for (name, _), row in rows.items():
        assert 0 < row.contribute_cpu_s <= row.client_cpu_s
        assert row.max_abs_error < 1e-6
        assert (row.authority_cpu_s is not None) == (name == "bfv-authority")
    # Three chunks of 2048 values at 5 or 6 bytes and a seed; or two of 4096 slots with two polynomials of two primes.
    assert rows["bfv", 0].upload_bytes_per_value == pytest.approx(3 * (2048 * 5 + 64) / 5000, rel=0.05)
    assert rows["ckks", 0].upload_bytes_per_value == pytest.approx(3 * (2048 * 6 + 64) / 5000, rel=0.05)
    assert rows["bfv", 0].download_bytes_per_value == pytest.approx(3 * 2 * 2048 * 5 / 5000, rel=0.05)
    assert rows[DEFAULT, 0].upload_bytes_per_value > 8 * rows["bfv", 0].upload_bytes_per_value


def test_encrypted_clients_have_to_be_among_the_clients() -> None:
    with pytest.raises(ConfigError, match="encrypted_clients has 7, which clients has not: 3, 5"):
        bench_protocols(["bfv"], clients=[3, 5], dropouts=[0.0], values=1, encrypted_clients=[7])


# Flower


def test_without_flower_the_command_says_how_to_get_it_and_goes_on(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "flwr", None)
    code, out, err = command(*SMALL, "--protections", "plain")
    assert code == 0
    assert out.count("plain") == 8
    assert err == (
        "Flower's rows are left out: flwr is not installed; install it with: pip install 'codream-secure[bench]'\n"
    )


def test_another_version_of_flower_is_not_timed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "flwr").mkdir()
    (tmp_path / "flwr" / "__init__.py").touch()
    (tmp_path / "flwr-1.7.0.dist-info").mkdir()
    (tmp_path / "flwr-1.7.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: flwr\nVersion: 1.7.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    reason = flower.obstacle()
    assert reason is not None
    assert reason.startswith("flwr 1.7.0 is installed, but what is timed are inner parts of flwr 1.41.0")
    with pytest.raises(ConfigError, match="flwr 1.7.0"):
        flower.time_flower(
            client_vectors(3, 10),
            shares=3,
            threshold=0.5,
            vanished=(),
            clip=1.0,
            floor=lambda: 0.0,
            observe=lambda text: None,
        )


def test_the_version_that_is_timed_is_the_one_that_is_installed_for_it() -> None:
    project = Path(__file__).resolve().parents[2] / "pyproject.toml"
    assert f'bench = ["flwr=={flower.VERSION}"]' in project.read_text()


@pytest.mark.slow
def test_flower_sums_and_is_timed_beside_ours() -> None:
    pytest.importorskip("flwr")
    told: list[str] = []
    found = bench_protocols(
        ["masked"],
        clients=[7],
        dropouts=[0.0, 0.2, 0.3],
        values=2000,
        steps=1,
        planned_steps=3,
        flower_clients=[7],
        observe=told.append,
    )
    theirs = [row for row in found if row.protocol == FLOWER]
    assert [(row.dropout, row.vanished, row.degree) for row in theirs] == [(0.0, 0, 6), (0.3, 2, 6)]
    for row in theirs:
        times = [row.setup_cpu_s, row.client_cpu_s, row.floor_cpu_s, row.unmask_cpu_s]
        assert all(seconds is not None and math.isfinite(seconds) and seconds > 0 for seconds in times)
        assert row.unmask_cpu_s < row.server_cpu_s
        assert 8 < row.upload_bytes_per_value < 9
        # Every client's value is rounded to one of 2^22 levels between -1 and 1, up or down.
        assert 0 < row.max_abs_error < (7 - row.vanished) * 2.0**-21


@pytest.mark.slow
@pytest.mark.parametrize(("shares", "vanished"), [(9, ()), (9, (2, 7, 8)), (5, (3,))])
def test_short_cuts_spare_neither_flowers_server_nor_the_timed_client_a_mask(
    monkeypatch: pytest.MonkeyPatch, shares: int, vanished: tuple[int, ...]
) -> None:
    pytest.importorskip("flwr")
    parts = flower._Flower()
    drawn = {"client": 0, "server": 0}

    def count(side: str, module: Any) -> None:
        generate = module.pseudo_rand_gen

        def counted(*arguments: Any) -> Any:
            drawn[side] += 1
            return generate(*arguments)

        monkeypatch.setattr(module, "pseudo_rand_gen", counted)

    count("client", parts.client)
    count("server", parts.server)
    before_turn: list[int] = []

    def floor() -> float:
        before_turn.append(drawn["client"])
        return 1.0

    vectors = client_vectors(9, 50)
    found = flower.time_flower(
        vectors, shares=shares, threshold=0.4, vanished=vanished, clip=1.0, floor=floor, observe=lambda text: None
    )
    assert np.diff(before_turn).tolist() == [shares, shares]
    # A mask of its own for each that stayed, and one for each neighbour of each that vanished.
    assert drawn["server"] == 9 - len(vanished) + len(vanished) * (shares - 1)
    expected = sum(vector.astype(np.float64) for member, vector in enumerate(vectors) if member not in vanished)
    assert np.abs(found.total - expected).max() < 9 * 2.0**-21
    assert found.floor_cpu_s == 1.0
