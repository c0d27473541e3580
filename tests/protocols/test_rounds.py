"""A client's memory of rounds and steps, in memory and on disk."""

from __future__ import annotations

import gc
import os
import resource
import stat
import zlib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from protocols import FileRoundLog, MessageError, RoundLog, RoundReuseError, StepError

FIRST, SECOND = bytes(16), bytes(range(16))
Make = Callable[[], RoundLog]


@pytest.fixture(params=["memory", "file"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    """A new log of either kind; the one on disk goes on where the last one ended."""
    if request.param == "memory":
        return RoundLog
    return lambda: FileRoundLog(tmp_path / "rounds")


def test_a_round_is_taken_part_in_once(make: Make) -> None:
    log = make()
    log.claim(FIRST)
    log.claim(SECOND)
    for round_id in (FIRST, SECOND):
        with pytest.raises(RoundReuseError, match=f"round {round_id.hex()} has been taken part in before"):
            log.claim(round_id)


@pytest.mark.parametrize("length", [0, 15, 17, 32])
def test_a_round_id_of_another_length_is_refused(make: Make, length: int) -> None:
    with pytest.raises(MessageError, match=f"the round id has {length} bytes: 16 are needed"):
        make().claim(bytes(length))


def test_steps_of_a_round_only_go_up(make: Make) -> None:
    log = make()
    log.claim(FIRST)
    log.claim(SECOND)
    log.claim_step(FIRST, 0)
    log.claim_step(FIRST, 5)
    for step in (0, 4, 5):
        with pytest.raises(StepError, match=f"step {step} is over: step 5 has been masked"):
            log.claim_step(FIRST, step)
    log.claim_step(FIRST, 6)
    log.claim_step(SECOND, 0)


def test_no_step_of_a_round_that_was_never_claimed_is_masked(make: Make) -> None:
    with pytest.raises(StepError, match="never claimed"):
        make().claim_step(FIRST, 0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A log of two rounds: one at its step 3, one without a step."""
    with closing(FileRoundLog(tmp_path / "rounds")) as log:
        log.claim(FIRST)
        for step in (0, 1, 3):
            log.claim_step(FIRST, step)
        log.claim(SECOND)
    return log.path


def check(path: Path) -> None:
    """The log knows what the fixture claimed, and takes what comes next."""
    with closing(FileRoundLog(path)) as log:
        for round_id in (FIRST, SECOND):
            with pytest.raises(RoundReuseError):
                log.claim(round_id)
        with pytest.raises(StepError, match="step 3 has been masked"):
            log.claim_step(FIRST, 3)
        log.claim_step(FIRST, 4)
        log.claim_step(SECOND, 0)


def test_a_log_on_disk_outlives_restarts(path: Path) -> None:
    check(path)
    with closing(FileRoundLog(path)) as log:
        for round_id, step in ((FIRST, 4), (SECOND, 0)):
            with pytest.raises(StepError):
                log.claim_step(round_id, step)


def test_a_claim_is_on_disk_before_it_counts(path: Path) -> None:
    text = "00000000000000000000000000000000"
    claims = [f"{text} -0000001", f"{text} 00000000", f"{text} 00000001", f"{text} 00000003"]
    claims.append("000102030405060708090a0b0c0d0e0f -0000001")
    assert path.read_text() == "".join(f"{claim} {zlib.crc32(claim.encode()):08x}\n" for claim in claims)


@pytest.mark.parametrize("room", [0, 5, 30])
def test_a_claim_that_cannot_be_written_whole_does_not_count(path: Path, room: int) -> None:
    """The system allows this process no longer files, as on a disk that is full; then it does again."""
    content = path.read_bytes()
    with closing(FileRoundLog(path)) as log:
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(content) + room, limits[1]))
        try:
            with pytest.raises(OSError, match=r"too large|whole"):
                log.claim_step(FIRST, 4)
            with pytest.raises(OSError, match=r"too large|whole"):
                log.claim(b"a new round's id")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert path.read_bytes() == content
        log.claim_step(FIRST, 4)
        log.claim(b"a new round's id")
    with closing(FileRoundLog(path)) as log, pytest.raises(StepError):
        log.claim_step(FIRST, 4)


def test_a_claim_that_did_not_reach_the_disk_does_not_count(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The line was written, but the disk did not take it: it goes again, or a restart would believe it."""
    content = path.read_bytes()

    def fail(descriptor: int) -> None:
        raise OSError("input/output error")

    with closing(FileRoundLog(path)) as log:
        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", fail)
            with pytest.raises(OSError, match="input/output error"):
                log.claim_step(FIRST, 4)
        assert path.read_bytes() == content
        log.claim_step(FIRST, 4)


def test_two_logs_do_not_share_a_file(path: Path) -> None:
    """Each would know nothing of what the other claims."""
    with closing(FileRoundLog(path)), pytest.raises(RoundReuseError, match="in use by another log"):
        FileRoundLog(path)
    check(path)


def test_a_log_that_was_given_up_claims_nothing(path: Path) -> None:
    content = path.read_bytes()
    log = FileRoundLog(path)
    log.close()
    log.close()
    with pytest.raises(OSError, match="descriptor"):
        log.claim_step(FIRST, 4)
    assert path.read_bytes() == content


def test_a_log_that_nobody_holds_any_more_lets_go_of_its_file(path: Path) -> None:
    FileRoundLog(path)
    gc.collect()
    check(path)


def test_a_log_in_a_folder_that_is_not_there_is_refused_by_the_system(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        FileRoundLog(tmp_path / "absent" / "rounds")
    gc.collect()


@pytest.mark.parametrize(
    "cut", [b"0", b"00000000000000000000000000000000", b"00000000000000000000000000000000 1", b"\0\0"]
)
def test_a_last_line_that_a_crash_cut_short_is_dropped(path: Path, cut: bytes) -> None:
    """Its claim was never acted upon; and what is claimed next stands on a line of its own."""
    content = path.read_bytes()
    path.write_bytes(content + cut)
    FileRoundLog(path).close()
    assert path.read_bytes() == content
    check(path)
    FileRoundLog(path).close()


def test_a_crash_at_any_byte_of_the_last_claim_leaves_a_log_that_can_be_read(path: Path) -> None:
    content = path.read_bytes()
    for length in range(len(content) - 36, len(content)):
        path.write_bytes(content[:length])
        with closing(FileRoundLog(path)) as log, pytest.raises(StepError, match="step 3 has been masked"):
            log.claim_step(FIRST, 3)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"00",
        b"zz 3",
        b"00000000000000000000000000000000  3",
        b"00000000000000000000000000000000 x",
        b"00000000000000000000000000000000 1 2",
        b"00000000000000000000000000000000\t3",
        b"\xff\xfe 3",
        b"\0\0\0",
        b"0000 3",
        b"000000000000000000000000000000000000 3",
    ],
)
@pytest.mark.parametrize("place", [0, 2, 4])
def test_a_damaged_line_is_named_and_nothing_is_claimed_from_it(path: Path, line: bytes, place: int) -> None:
    """Which rounds are over cannot be known then, so none is begun."""
    lines = path.read_bytes().splitlines()
    lines.insert(place, line)
    path.write_bytes(b"\n".join(lines) + b"\n")
    with pytest.raises(RoundReuseError, match=f"damaged in line {place + 1}"):
        FileRoundLog(path)


def test_an_older_line_that_comes_again_brings_no_step_back(path: Path) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    for older in (lines[0], lines[1]):
        path.write_bytes(b"".join([*lines, older]))
        check(path)


def test_the_file_is_for_its_owner_only(path: Path) -> None:
    """Even where the process would let others read what it writes."""
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    old = os.umask(0)
    try:
        with closing(FileRoundLog(path.with_name("others"))) as log:
            log.claim(FIRST)
    finally:
        os.umask(old)
    assert stat.S_IMODE(log.path.stat().st_mode) == 0o600


def test_an_empty_or_absent_file_is_an_empty_log(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    for name in ("empty", "absent"):
        with closing(FileRoundLog(tmp_path / name)) as log:
            log.claim(FIRST)
        with closing(FileRoundLog(tmp_path / name)) as log, pytest.raises(RoundReuseError):
            log.claim(FIRST)


def test_no_changed_byte_brings_a_claim_back(tmp_path: Path) -> None:
    path = tmp_path / "another"
    log = FileRoundLog(path)
    log.claim(bytes(16))
    log.claim_step(bytes(16), 7)
    log.close()
    content = path.read_bytes()
    for at in range(len(content)):
        for flip in (1, 8, 128):
            path.write_bytes(content[:at] + bytes([content[at] ^ flip]) + content[at + 1 :])
            with pytest.raises(RoundReuseError, match="damaged in line"):
                FileRoundLog(path)
