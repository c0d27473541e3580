"""Messages that are lost or repeated, clients and servers that die: survivors finish, and nothing is summed twice."""

from __future__ import annotations

import contextlib
import errno
import stat
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from codream_secure.deployment.connection import Connection
from codream_secure.deployment.conversation import Conversation, Standing
from codream_secure.deployment.messages.correspondence import MESSAGES, Kept, forget
from codream_secure.deployment.messages.packets import read_reply, unpack
from codream_secure.deployment.storage import StoredRoundLog
from codream_secure.deployment.streams import Limits, Tls
from codream_secure.deployment.streams.calls import Ask, Begin, Downward, End, Relay, Show
from codream_secure.errors import CheckpointError, ConfigError, StorageError
from protocols import RoundReuseError

LIMITS = Limits()
FEW: dict[str, Any] = {
    "dreaming": {"steps": 2, "local_steps": 1, "label_midway": False},
    "distillation": {"cutmix": 0, "relabel": False},
    "model": {"clients": ["mlp"], "server": None},
    "run": {"evaluate_every": 1},
}


def calls(packet: bytes) -> list[Downward]:
    return [call for call, _ in unpack(packet, limits=LIMITS).calls]


class Nth:
    """Whether this is the n-th packet for a member of those that hold such a call."""

    def __init__(self, member: int, number: int, *kinds: type) -> None:
        self._member, self._left, self._kinds = member, number, kinds

    def __call__(self, member: int, packet: bytes) -> bool:
        if member == self._member and isinstance(calls(packet)[-1], self._kinds):
            self._left -= 1
            return self._left == 0
        return False


def serve_until(cohort: Any, dies: Nth) -> None:
    """A server that dies at that packet, for once."""

    def meddle(member: int, packet: bytes, send: Callable[[bytes], bytes]) -> bytes:
        if dies(member, packet):
            raise KeyboardInterrupt
        return send(packet)

    cohort.meddle = meddle
    with pytest.raises(KeyboardInterrupt):
        cohort.serve()


def summed_over(cohort: Any, number: int) -> set[str]:
    """Over whom a client has let its vectors be summed, all in all."""
    folder = cohort.folder / f"client{number}" / "consents"
    return {path.read_text() for path in folder.rglob("*") if path.is_file()}


def contributors(rows: Iterable[dict[str, Any]]) -> list[list[int]]:
    return [row["contributors"] for row in rows]


@pytest.fixture
def cohort(make_cohort: Callable[..., Any]) -> Any:
    return make_cohort(**FEW)


@pytest.mark.parametrize("taken", [False, True], ids=["packet lost", "reply lost"])
def test_a_member_whose_message_is_lost_is_out_and_comes_back(cohort: Any, taken: bool) -> None:
    lost = Nth(2, 2, Ask)

    def meddle(member: int, packet: bytes, send: Callable[[bytes], bytes]) -> bytes | None:
        if lost(member, packet):
            if taken:
                send(packet)
            return None
        return send(packet)

    cohort.meddle = meddle
    rows = cohort.serve()
    assert contributors(rows) == [[0, 1, 2], [0, 1, 2]]
    # It hears nothing more of round 1, not even its end; in round 2 it is given the buffer.
    ends = [member for member, packet in cohort.sent if isinstance(calls(packet)[-1], End)]
    assert ends == [0, 1, 0, 1, 2]
    for name in ("images", "labels"):
        found = [cohort.state(f"client{number}", 2)["buffer"][name] for number in range(3)]
        assert all(found[0].equal(other) for other in found[1:])


def test_a_program_that_dies_has_left_the_round(cohort: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    dies = Nth(1, 2, Relay)
    later: list[bytes] = []

    def meddle(member: int, packet: bytes, send: Callable[[bytes], bytes]) -> bytes | None:
        if dies(member, packet):
            with monkeypatch.context() as patch:
                patch.setattr("codream_secure.deployment.messages.respondent._last_answer", _raise_interrupt)
                with pytest.raises(KeyboardInterrupt):
                    send(packet)
            # What it has begun to deal with it does not deal with once more, nor with what comes next.
            again = read_reply(send(packet), limits=LIMITS)
            later.append(bytes([again.out, len(again.answer)]))
            return None
        return send(packet)

    cohort.meddle = meddle
    assert contributors(cohort.serve()) == [[0, 2], [0, 1, 2]]
    assert later == [bytes([True, 0])]


def _raise_interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def test_a_packet_that_comes_again_is_refused_and_does_no_harm(cohort: Any) -> None:
    seen = []

    def meddle(member: int, packet: bytes, send: Callable[[bytes], bytes]) -> bytes:
        reply = send(packet)
        if member == 0 and not isinstance(calls(packet)[0], Begin):
            again = read_reply(send(packet), limits=LIMITS)
            seen.append((again.out, len(again.answer)))
        return reply

    cohort.meddle = meddle
    assert contributors(cohort.serve()) == [[0, 1, 2]] * 2
    assert summed_over(cohort, 0) == {"0 1 2"}
    assert seen == [(True, 0)] * len(seen)
    assert len(seen) == 2 * (2 + 2 * 4)


def test_a_packet_of_an_earlier_round_does_no_harm(cohort: Any) -> None:
    earlier: list[bytes] = []
    seen = []

    def meddle(member: int, packet: bytes, send: Callable[[bytes], bytes]) -> bytes:
        if member == 0 and isinstance(calls(packet)[-1], Ask):
            earlier.append(packet)
            if len(earlier) == 6:
                seen.append(read_reply(send(earlier[0]), limits=LIMITS).out)
        return send(packet)

    cohort.meddle = meddle
    assert contributors(cohort.serve()) == [[0, 1, 2]] * 2
    assert seen == [True]


@pytest.mark.parametrize("protection", ["masked", "plain"])
def test_the_beginning_of_an_earlier_round_does_no_harm(protection: str, make_cohort: Callable[..., Any]) -> None:
    cohort = make_cohort(**{**FEW, "protocol": {"protection": protection}})
    begins: list[bytes] = []
    seen = []

    def meddle(member: int, packet: bytes, send: Callable[[bytes], bytes]) -> bytes:
        if member == 0 and isinstance(calls(packet)[0], Begin):
            begins.append(packet)
        elif member == 0 and len(begins) == 2:
            seen.append(read_reply(send(begins[0]), limits=LIMITS).out)
        return send(packet)

    cohort.meddle = meddle
    assert contributors(cohort.serve()) == [[0, 1, 2]] * 2
    assert seen == [True] * len(seen)
    assert seen
    # Nothing of a round is left when it is over.
    assert list((cohort.folder / "client0" / "messages").iterdir()) == []


def test_what_is_shown_again_goes_out_in_packets_that_are_not_too_long(make_cohort: Callable[..., Any]) -> None:
    """A server that dies late in a round begins it again by showing all that followed from the sums it has."""
    cohort = make_cohort(**{**FEW, "dreaming": {**FEW["dreaming"], "steps": 6}, "run": {"rounds": 1}})
    cohort.limits = Limits(frame_bytes=4096, message_bytes=4096, window_bytes=8192)
    serve_until(cohort, Nth(0, 7, Ask))
    before = len(cohort.sent)
    assert contributors(cohort.serve()) == [[0, 1, 2]]
    shows = [packet for member, packet in cohort.sent[before:] if member == 0 and isinstance(calls(packet)[-1], Show)]
    assert len(shows) > 0


def test_a_stream_takes_over_from_messages(cohort: Any, tmp_path: Path) -> None:
    """Or what was agreed to in one transport could be dropped while the other still has the vector masked."""
    left: list[Path] = []

    def meddle(member: int, packet: bytes, send: Callable[[bytes], bytes]) -> bytes | None:
        reply = send(packet)
        if member == 0 and isinstance(calls(packet)[-1], Ask) and not left:
            left.append(cohort.folder / "client0" / "messages")
            assert (left[0] / "state").exists()
            forget(left[0])
            assert list(left[0].iterdir()) == []
            assert read_reply(send(packet), limits=LIMITS).out
            return None
        return reply

    cohort.meddle = meddle
    assert contributors(cohort.serve()) == [[1, 2], [0, 1, 2]]
    assert left
    forget(tmp_path / "never made")
    assert not (tmp_path / "never made").exists()


def test_a_stream_does_not_take_over_while_a_message_is_dealt_with(cohort: Any) -> None:
    """What that message writes last would be there still, and could be gone on with after the stream."""
    folder = cohort.folder / "client0"
    (folder / MESSAGES).mkdir(mode=0o700, parents=True)
    (folder / MESSAGES / "state").touch()
    tls = Tls(authority=b"", certificate=b"", private_key=b"")
    connection = Connection(address="localhost:1", identity=cohort.identities[0], roster=cohort.roster, tls=tls)
    with (
        contextlib.closing(StoredRoundLog(folder / "rounds.log")),
        pytest.raises(RoundReuseError, match="in use"),
        connection.carry(lambda log: pytest.fail("it takes over"), Conversation(), folder=folder),
    ):
        pass
    assert (folder / MESSAGES / "state").exists()


def test_what_is_kept_of_a_vector_is_sealed(cohort: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors: list[bytes] = []
    contribute = Conversation.contribute

    def noting(self: Conversation, phase: str, values: int, compute: Callable[[], Any]) -> None:
        def noted() -> Any:
            vector = compute()
            vectors.append(vector.tobytes())
            return vector

        contribute(self, phase, values, noted)

    found = []

    def meddle(member: int, packet: bytes, send: Callable[[bytes], bytes]) -> bytes:
        reply = send(packet)
        files = [path.read_bytes() for path in (cohort.folder / "client0" / MESSAGES).rglob("*") if path.is_file()]
        found.append(any(vector[:16] in content for vector in vectors for content in files))
        return reply

    monkeypatch.setattr(Conversation, "contribute", noting)
    cohort.meddle = meddle
    cohort.serve()
    assert vectors
    assert not any(found)
    secret = Standing(1, None, "soft_labels", b"a vector")
    assert "a vector" not in repr(secret)
    assert "a vector" not in repr(Kept(bytes(16), 0, None, secret, False))


def test_a_server_that_dies_in_the_middle_goes_on_without_asking_again(
    make_cohort: Callable[..., Any], equal: Callable[[Any, Any], bool]
) -> None:
    cohort = make_cohort()
    serve_until(cohort, Nth(0, 6, Ask))
    opened = sum(1 for _ in (cohort.folder / "server" / "journal" / "000001").glob("*.npz"))
    assert opened == 5
    before = len(cohort.sent)
    rows = cohort.serve()
    assert contributors(rows) == [[0, 1, 2]] * 2
    # Of the six sums of round 1 the one that was not opened is asked for, and the round's heading comes first.
    packets = [packet for member, packet in cohort.sent[before:] if member == 0]
    assert sum(isinstance(call, Ask) for packet in packets for call in calls(packet)) == 1 + 8
    expected = cohort.in_one_process()
    for number in range(3):
        assert equal(cohort.state(f"client{number}", 2)["clients"], [expected["clients"][number]])
        assert summed_over(cohort, number) == {"0 1 2"}


def test_who_is_away_is_waited_for_and_then_done_without(cohort: Any) -> None:
    cohort.away = {1}
    assert contributors(cohort.serve()) == [[0, 2], [0, 2]]
    assert cohort.learners[1] == 0


def test_a_client_under_other_terms_leaves(make_cohort: Callable[..., Any]) -> None:
    cohort = make_cohort(**FEW)
    other = make_cohort(**{**FEW, "dreaming": {**FEW["dreaming"], "tv": 0.5}})
    other.identities, other.roster, other.folder = cohort.identities, cohort.roster, cohort.folder
    said = []

    def meddle(member: int, packet: bytes, send: Callable[[bytes], bytes]) -> bytes | None:
        if member != 1:
            return send(packet)
        try:
            reply: bytes = other.client(1).answer(packet)
        except ConfigError as error:
            said.append(str(error))
            return None
        return reply

    cohort.meddle = meddle
    assert contributors(cohort.serve()) == [[0, 2], [0, 2]]
    assert all("other terms of training" in text for text in said)
    assert said


def test_a_full_disk_is_said_and_no_answer_leaves(cohort: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What could not be written is not acted upon: the machine is not used, or its answer is kept back."""
    fills = Nth(0, 2, Ask)
    said = []

    def no_room(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def meddle(member: int, packet: bytes, send: Callable[[bytes], bytes]) -> bytes | None:
        if fills(member, packet):
            with monkeypatch.context() as patch:
                patch.setattr("os.fsync", no_room)
                with pytest.raises(StorageError, match="cannot be written: No space left on device") as caught:
                    send(packet)
            said.append(caught.value)
            return None
        return send(packet)

    cohort.meddle = meddle
    assert contributors(cohort.serve()) == [[0, 1, 2]] * 2
    assert len(said) == 1


def test_what_is_kept_is_for_its_owner_only_and_damage_is_said(cohort: Any) -> None:
    damaged: list[str] = []
    hit = Nth(0, 2, Ask)

    def meddle(member: int, packet: bytes, send: Callable[[bytes], bytes]) -> bytes | None:
        if hit(member, packet):
            folder = cohort.folder / "client0" / "messages"
            for path in [folder, *folder.rglob("*")]:
                assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600)
            (folder / "state").write_bytes(b"\x93")
            with pytest.raises(CheckpointError, match="is damaged: remove it") as caught:
                send(packet)
            damaged.append(str(caught.value))
            return None
        return send(packet)

    cohort.meddle = meddle
    assert contributors(cohort.serve()) == [[0, 1, 2]] * 2
    assert len(damaged) == 1


def test_two_servers_do_not_work_in_one_folder(make_cohort: Callable[..., Any]) -> None:
    cohort = make_cohort(**FEW)
    refused: list[str] = []

    def meddle(member: int, packet: bytes, send: Callable[[bytes], bytes]) -> bytes:
        if not refused:
            with pytest.raises(ConfigError, match="another run") as caught:
                cohort.serve()
            refused.append(str(caught.value))
        return send(packet)

    cohort.meddle = meddle
    assert [row["round"] for row in cohort.serve()] == [1, 2]
    assert refused
