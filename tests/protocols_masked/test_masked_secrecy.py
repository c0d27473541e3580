"""What the server's whole transcript opens and what it does not; what is said aloud; what is left in memory.

Vectors and masks meet here as ring elements. "Hidden" is tested as uniform, by chi-square over bytes and over 16-bit
halves. Each of these has a false-alarm rate of 1e-13, or a few times that where a cell expects few hits, and no test
makes more than 100 of them: a test fails by chance at most once in 1e10 runs.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import logging
import pickle
import random
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from scipy import stats

from protocols import FileRoundLog, Phase, ProtocolError, ShareError, StepError, TooFewSurvivorsError, wire
from protocols.keys import Secret, context_digest, request_context
from protocols.masked_client import MaskedClient
from protocols.masks import next_root, pair_mask_key, pair_seed, self_mask_key
from protocols.openings import _backup_key, open_backup, self_secret
from protocols.shares import PRIME

Make = Callable[..., Any]
Secrets = Callable[..., dict[str, bytes]]
Buffers = Callable[[MaskedClient], dict[str, bytearray]]
Atoms = Callable[[Any], list[Any]]
Read = Callable[..., Any]

MEMBERS = (3, 7, 8, 20, 41)
VICTIM = 8
PEERS = (3, 7, 20, 41)
VALUES = 1 << 15
FALSE_ALARM = 1e-13
BOTH_MODES = pytest.mark.parametrize("active", [False, True], ids=["passive", "active"])


def looks_uniform(ring: np.ndarray) -> bool:
    """Whether bytes and 16-bit halves are as even as those of random ring elements; false alarms: 2 * FALSE_ALARM."""
    for kind, cells in ((np.uint8, 256), (np.uint16, 65536)):
        counts = np.bincount(np.ascontiguousarray(ring).view(kind), minlength=cells)
        statistic = float(((counts - counts.mean()) ** 2).sum() / counts.mean())
        if not FALSE_ALARM / 2 < stats.chi2.sf(statistic, cells - 1) < 1 - FALSE_ALARM / 2:
            return False
    return True


def request_of(step: int, values: int = VALUES, context: bytes = b"") -> bytes:
    return request_context(step, "g", values, context_digest(context))


def root_at(root: Secret, step: int) -> Secret:
    """The root of a step, given that of step 0."""
    for _ in range(step):
        root = next_root(root)
    return root


def mask(key: bytes, values: int = VALUES) -> np.ndarray:
    """AES-256 in counter mode over zeros from block 2 on, in one go."""
    encryptor = Cipher(algorithms.AES(key), modes.CTR(bytes(15) + b"\2")).encryptor()
    return np.frombuffer(encryptor.update(bytes(4 * values)), dtype="<u4")


def combined(shares: dict[int, bytes]) -> int:
    """The secret under Shamir shares by evaluation point: Lagrange's formula at zero, written out."""
    secret = 0
    for here, share in shares.items():
        weight = 1
        for other in shares:
            if other != here:
                weight = weight * other * pow(other - here, -1, PRIME)
        secret += int.from_bytes(share, "big") * weight
    return secret % PRIME


class Adversary:
    """The server, with a memory for everything that it sent and received, and a pocket calculator.

    It learns from the transcript only.
    """

    def __init__(self, cohort: Any, read: Read) -> None:
        self.cohort = cohort
        seen = [(sent.sender, read(sent.message)) for sent in cohort.transcript]
        self.shares = {sender: message for sender, message in seen if isinstance(message, wire.Shares)}
        self.contributions = {
            (sender, message.step): np.frombuffer(message.ring, dtype="<u4")
            for sender, message in seen
            if isinstance(message, wire.Contribution)
        }
        self.openings = {
            (sender, message.step): message.shares for sender, message in seen if isinstance(message, wire.Openings)
        }

    def opened(self, member: int, step: int) -> int:
        """The secret of a member that the answers at a step open: which of the two, the answers decided."""
        at = 32 * MEMBERS.index(member)
        held = {
            MEMBERS.index(holder) + 1: shares[at : at + 32]
            for (holder, when), shares in self.openings.items()
            if when == step
        }
        assert len(held) >= self.cohort.topology.threshold
        return combined(held)

    def self_mask(self, member: int, step: int) -> np.ndarray:
        key = self_mask_key(self_secret(self.opened(member, step)), request_of(step))
        return mask(key)

    def seeds(self, member: int, step: int) -> list[bytes]:
        """The pairwise seeds of a member that was given up for dead at a step, by its peers in ascending order."""
        backup = self.shares[member].backups[step]
        return open_backup(backup, self.opened(member, step), self.cohort.session(), member, step)


def pairwise(seeds: Iterable[bytes], step: int) -> np.ndarray:
    """What the victim's masks with its peers add up to, given their seeds."""
    total = np.zeros(VALUES, dtype="<u4")
    for peer, seed in zip(PEERS, seeds, strict=True):
        stream = mask(pair_mask_key(seed, request_of(step)))
        total += stream if peer > VICTIM else -stream
    return total


@pytest.fixture(scope="module", params=[False, True], ids=["passive", "active"])
def story(
    request: pytest.FixtureRequest,
    make_cohort: Make,
    read_message: Read,
    list_secrets: Secrets,
) -> Any:
    """Three steps; at the middle one the victim's contribution is too late, and it is given up for dead."""
    cohort = make_cohort(MEMBERS, active=request.param, values=VALUES)
    cohort.ready()
    victim = cohort.clients[VICTIM]
    secrets = list_secrets(victim, values=VALUES)
    cohort.roots = {peer: Secret(secrets[f"root with {peer}"]) for peer in PEERS}
    cohort.selves = [Secret(secrets[f"self secret of step {step}"]) for step in range(4)]
    cohort.finish()
    cohort.go(Phase.COLLECT)
    victim.receive(cohort.outbox.pop(VICTIM))
    cohort.late = np.frombuffer(read_message(victim.contribute(cohort.vector(VICTIM), stream="g")).ring, dtype="<u4")
    cohort.finish(contributors=PEERS)
    cohort.finish()
    cohort.adversary = Adversary(cohort, read_message)
    return cohort


def truth(cohort: Any, member: int, step: int) -> np.ndarray:
    return cohort.integers[step, member].astype("<u4")


def test_the_statistic_tells_an_encoded_vector_from_a_mask(story: Any) -> None:
    assert not looks_uniform(truth(story, VICTIM, 1))
    assert not looks_uniform(np.zeros(VALUES, dtype="<u4"))
    almost = mask(bytes(32)).copy()
    almost[:100] = 0
    assert not looks_uniform(almost)
    assert looks_uniform(mask(bytes(32)))


def test_opening_a_dead_client_gives_exactly_its_pairwise_masks_of_that_step(story: Any) -> None:
    seeds = story.adversary.seeds(VICTIM, 1)
    assert seeds == [pair_seed(root_at(story.roots[peer], 1)) for peer in PEERS]
    own = mask(self_mask_key(story.selves[1], request_of(1)))
    unmasked = story.late - pairwise(seeds, 1)
    # What the late message hides behind, once its pairwise masks are gone, is its self-mask and nothing else.
    np.testing.assert_array_equal(unmasked, truth(story, VICTIM, 1) + own)


def test_a_late_contribution_is_still_hidden_by_its_self_mask(story: Any) -> None:
    unmasked = story.late - pairwise(story.adversary.seeds(VICTIM, 1), 1)
    assert looks_uniform(story.late)
    assert looks_uniform(unmasked)
    # As a one-time pad: neither does the vector show through it.
    assert looks_uniform(unmasked - truth(story, VICTIM, 1))


def test_the_self_secret_of_the_dead_stays_shut(story: Any, read_message: Read) -> None:
    """No answer at the step holds a share of it, and what they hold opens another secret."""
    opened = story.adversary.opened(VICTIM, 1)
    assert opened.to_bytes(32, "big") != bytes(story.selves[1].value)
    guess = mask(self_mask_key(self_secret(opened), request_of(1)))
    unmasked = story.late - pairwise(story.adversary.seeds(VICTIM, 1), 1)
    assert looks_uniform(unmasked - guess - truth(story, VICTIM, 1))


@pytest.mark.parametrize("step", [0, 2])
def test_what_was_opened_at_one_step_opens_nothing_of_the_steps_beside_it(story: Any, step: int) -> None:
    """The victim's self-masks of those steps are known by then: its pairwise masks alone hide it.

    Whatever the adversary takes for these masks, what is left after the true vector is taken off as well is uniform:
    no value of the true vector shows through.
    """
    adversary = story.adversary
    seeds, secret = adversary.seeds(VICTIM, 1), adversary.opened(VICTIM, 1)
    hidden = adversary.contributions[VICTIM, step] - adversary.self_mask(VICTIM, step)
    true_seeds = [pair_seed(root_at(story.roots[peer], step)) for peer in PEERS]
    # With the right masks nothing is left: the adversary's arithmetic is right, and only the masks are missing.
    np.testing.assert_array_equal(hidden - pairwise(true_seeds, step), truth(story, VICTIM, step))

    backup = adversary.shares[VICTIM].backups[step]
    for claimed in (1, step):
        with pytest.raises(ShareError):
            open_backup(backup, secret, story.session(), VICTIM, claimed)
    # Nor does the right secret open the right backup as if it were of another step, member or round.
    own_backup = adversary.shares[VICTIM].backups[1]
    for session, member, claimed in (
        (story.session(), VICTIM, step),
        (story.session(), PEERS[0], 1),
        (story.session(round_id=bytes(16)), VICTIM, 1),
    ):
        with pytest.raises(ShareError):
            open_backup(own_backup, secret, session, member, claimed)
    # AES-GCM without its tag is AES in counter mode, whose counter begins at 2.
    counter = bytes(12) + (2).to_bytes(4, "big")
    decryptor = Cipher(algorithms.AES(_backup_key(secret)), modes.CTR(counter)).decryptor()
    torn_open = decryptor.update(backup[:-16])
    guesses = {
        "no masks": None,
        "the other step's masks": pairwise(seeds, 1),
        "masks from the other step's seeds": pairwise(seeds, step),
        "seeds from the other step's seeds": pairwise([pair_seed(Secret(seed)) for seed in seeds], step),
        "seeds from roots after the other step's seeds": pairwise(
            [pair_seed(next_root(Secret(seed))) for seed in seeds], step
        ),
        "the other step's mask keys as seeds": pairwise([pair_mask_key(seed, request_of(1)) for seed in seeds], step),
        "this step's backup under the other step's secret": pairwise(
            [torn_open[at : at + 32] for at in range(0, len(torn_open), 32)], step
        ),
        "the other step's secret as a seed": pairwise([secret.to_bytes(32, "big")] * 4, step),
        "the other step's secret as a root": pairwise([pair_seed(self_secret(secret))] * 4, step),
    }
    for name, guess in guesses.items():
        candidate = hidden if guess is None else hidden - guess
        assert looks_uniform(candidate - truth(story, VICTIM, step)), name
        assert looks_uniform(candidate), name
    # The backup can be torn open so with the right secret, so the attempt above was no straw man.
    own = (
        Cipher(algorithms.AES(_backup_key(secret)), modes.CTR(counter))
        .decryptor()
        .update(adversary.shares[VICTIM].backups[1][:-16])
    )
    assert own == b"".join(seeds)


@pytest.mark.parametrize("step", [1, 2])
@pytest.mark.parametrize("member", PEERS)
def test_a_survivor_whose_self_mask_was_opened_is_hidden_by_its_neighbours(story: Any, member: int, step: int) -> None:
    adversary = story.adversary
    hidden = adversary.contributions[member, step] - adversary.self_mask(member, step)
    if step == 1:
        seed = adversary.seeds(VICTIM, 1)[PEERS.index(member)]
        shared = mask(pair_mask_key(seed, request_of(1)))
        hidden = hidden - shared if member < VICTIM else hidden + shared
    assert looks_uniform(hidden)
    assert looks_uniform(hidden - truth(story, member, step))


def test_the_survivors_masks_cancel_and_only_their_sum_is_in_clear(story: Any) -> None:
    adversary = story.adversary
    total = np.zeros(VALUES, dtype="<u4")
    for member in PEERS:
        total += adversary.contributions[member, 1] - adversary.self_mask(member, 1)
        seed = adversary.seeds(VICTIM, 1)[PEERS.index(member)]
        shared = mask(pair_mask_key(seed, request_of(1)))
        total += shared if member > VICTIM else -shared
        if member != PEERS[-1]:
            # Of some of them, nothing.
            assert looks_uniform(total)
    assert total.tolist() == story.expected(PEERS, 1)


def test_what_a_client_still_holds_opens_no_step_that_is_over(
    story: Any, list_secrets: Secrets, atoms_of: Atoms
) -> None:
    """Whoever seizes a client and has the server's transcript as well gets none of the vectors that it has sent."""
    adversary, client = story.adversary, story.clients[VICTIM]
    held = {atom for atom in atoms_of(client) if isinstance(atom, bytes) and len(atom) == 32}
    now = {name: secret for name, secret in list_secrets(client, values=VALUES).items() if len(secret) == 32}
    for step in (0, 2):
        hidden = adversary.contributions[VICTIM, step] - adversary.self_mask(VICTIM, step)
        gone = [root_at(story.roots[peer], step) for peer in PEERS]
        assert not held & {bytes(root.value) for root in gone}
        assert not held & {pair_seed(root) for root in gone}
        roots = [Secret(now[f"root with {peer}"]) for peer in PEERS]
        for guess in (
            [pair_seed(root) for root in roots],
            [bytes(root.value) for root in roots],
            [pair_seed(next_root(root)) for root in roots],
        ):
            assert looks_uniform(hidden - pairwise(guess, step) - truth(story, VICTIM, step))


@pytest.mark.parametrize("other", [{"values": VALUES - 1}, {"context": b"other dreams"}], ids=["length", "context"])
def test_answers_to_different_questions_at_one_step_do_not_cancel(
    make_cohort: Make, read_message: Read, list_secrets: Secrets, other: dict[str, Any]
) -> None:
    """A server that asks one client something else cannot take known masks off the others' vectors, nor off its own."""
    cohort = make_cohort(MEMBERS, values=VALUES)
    cohort.go(Phase.COLLECT)
    total = np.zeros(VALUES - 1, dtype="<u4")
    for member in MEMBERS:
        asked = {"values": VALUES, "context": b"dreams"} | (other if member == VICTIM else {})
        client = cohort.clients[member]
        own = Secret(list_secrets(client, values=VALUES)["self secret of step 0"])
        client.receive(cohort.request(0, **asked))
        vector = cohort.vector(member)[: asked["values"]]
        message = read_message(client.contribute(vector, stream="g", context=asked["context"]))
        own_mask = mask(self_mask_key(own, request_of(0, asked["values"], asked["context"])), asked["values"])
        total += (np.frombuffer(message.ring, dtype="<u4") - own_mask)[: VALUES - 1]
    assert looks_uniform(total)
    assert looks_uniform(total - np.array(cohort.expected(MEMBERS, 0), dtype="<u4")[:-1])


# What is said aloud


def spellings(secret: bytes) -> list[bytes]:
    """The ways in which a secret could stand in a text or a file."""
    number = int.from_bytes(secret, "big")
    return [
        secret,
        secret[::-1],
        secret.hex().encode(),
        secret.hex().upper().encode(),
        repr(secret)[2:-1].encode(),
        str(number).encode(),
        str(int.from_bytes(secret, "little")).encode(),
        hex(number)[2:].encode(),
        base64.b64encode(secret)[:42],
        base64.urlsafe_b64encode(secret)[:42],
        # Half of a secret would be too much, too.
        secret[:16],
        secret[16:],
        secret[:8].hex().encode(),
        secret[-8:].hex().encode(),
    ]


def found_in(secrets: dict[str, bytes], haystack: bytes) -> list[str]:
    return [name for name, secret in secrets.items() if any(spelling in haystack for spelling in spellings(secret))]


def test_a_secret_that_is_said_is_found() -> None:
    secret = hashlib.sha256(b"a secret").digest()
    for told in (repr(secret), secret.hex(), str(int.from_bytes(secret, "big")), f"{bytearray(secret)!r}"):
        assert found_in({"it": secret}, f"the key is {told}".encode()) == ["it"]
    assert found_in({"it": secret}, b"prefix" + secret + b"suffix") == ["it"]
    assert found_in({"it": secret}, hashlib.sha256(secret).digest()) == []


def provoke(cohort: Any, member: int, others: list[bytes], generator: random.Random) -> list[BaseException]:
    """The errors that a client in some phase answers all sorts of hostile messages with."""
    errors: list[BaseException] = []
    messages = [*(sent.message for sent in cohort.transcript), *cohort.outbox.values(), *others]
    messages += [
        cohort.open_request(step, dead) for step in (0, 1, 3) for dead in ([], [3], [VICTIM], [3, 3], [1, 2, 3])
    ]
    messages += [
        cohort.request(9),
        cohort.request(0),
        cohort.request(1, stream="x"),
        cohort.abort(2),
        cohort.ballots(0, []),
    ]
    messages += [cohort.ballots(0, [cohort.vote(peer, [], by=3) for peer in PEERS])]
    for message in list(messages):
        changed = bytearray(message[: -wire.CHECKSUM_BYTES])
        changed[generator.randrange(30 if len(changed) > 60 else 1, len(changed))] ^= 1 << generator.randrange(8)
        messages += [bytes(changed) + wire.checksum(changed[0], bytes(changed[1:]))]
        messages += [bytes(changed) + message[-wire.CHECKSUM_BYTES :]]
    client = cohort.clients[member]
    before = client._state
    for message in messages:
        # Nothing that would be accepted: the client has to stay where it is.
        if message in cohort.outbox.values():
            continue
        try:
            client.receive(message)
        except ProtocolError as error:
            errors.append(error)
        if client._state is not before:
            break
    for values in (np.zeros(3), np.full(cohort.values, np.nan), np.zeros((2, 2)), "vector"):
        try:
            client.contribute(values, stream="g")
        except ProtocolError as error:
            errors.append(error)
    return errors


@BOTH_MODES
@pytest.mark.parametrize("phase", [Phase.SHARE, Phase.READY, Phase.COLLECT, Phase.OPEN])
def test_no_error_and_no_repr_holds_a_secret(
    make_cohort: Make,
    list_secrets: Secrets,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    active: bool,
    phase: Phase,
) -> None:
    caplog.set_level(logging.DEBUG)
    cohort = make_cohort(MEMBERS, active=active, values=5)
    earlier = make_cohort(MEMBERS, active=active, values=5, before=cohort)
    earlier.finish()
    cohort.go(phase)
    client = cohort.clients[VICTIM]
    secrets = list_secrets(client, values=5)
    assert len(secrets) > (1 if phase is Phase.SHARE else 40)
    errors = provoke(cohort, VICTIM, [sent.message for sent in earlier.transcript], random.Random(1))
    assert len(errors) > 40
    assert len({type(error) for error in errors}) >= 3
    said = [text for error in errors for text in (str(error), repr(error), repr(error.args), repr(vars(error)))]
    held = [client, cohort.server, client._credentials, client._credentials.identity, client._credentials.rounds]
    held += [client._round_key, client._steps, cohort.terms, cohort.roster, client._holdings, *client._pairs.values()]
    held += [secret for pair in client._pairs.values() for secret in (pair.masks, pair.incoming, pair.outgoing)]
    held += [*client._holdings.roots.values(), *client._holdings.selves]
    said += [text for thing in held for text in (repr(thing), str(thing), f"{thing}")]
    written = capfd.readouterr()
    said += [record.getMessage() for record in caplog.records] + [written.out, written.err]
    assert found_in(secrets, "\n".join(said).encode()) == []


@BOTH_MODES
def test_nothing_is_logged_or_printed_in_a_whole_round(
    make_cohort: Make, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str], active: bool
) -> None:
    caplog.set_level(logging.DEBUG)
    cohort = make_cohort(MEMBERS, active=active)
    cohort.finish()
    cohort.clients[VICTIM].close()
    assert not caplog.records
    assert capfd.readouterr() == ("", "")


def test_no_secret_can_be_pickled_or_compared_by_accident() -> None:
    secret = Secret(bytes(range(32)))
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError):
            pickle.dumps(secret, protocol)
    assert secret != Secret(bytes(range(32)))
    assert repr(secret) == str(secret) == f"{secret}" == "Secret(...)"


@BOTH_MODES
def test_what_the_server_saw_and_holds_has_no_secret_of_a_step_that_was_not_opened(
    make_cohort: Make,
    list_secrets: Secrets,
    atoms_of: Atoms,
    active: bool,
) -> None:
    cohort = make_cohort(MEMBERS, active=active, values=5)
    cohort.finish()
    cohort.finish()
    secrets = {
        f"{name} of {member}": secret
        for member, client in cohort.clients.items()
        for name, secret in list_secrets(client, values=5).items()
        if "at step 0" not in name and "at step 1" not in name
    }
    assert len(secrets) > 100
    seen = b"\n".join(sent.message for sent in cohort.transcript)
    held = b"\n".join(atom for atom in atoms_of(cohort.server) if isinstance(atom, bytes))
    in_clear = cohort.server.snapshot()
    for haystack in (seen, held, in_clear):
        assert found_in(secrets, haystack) == []
    # The search is able to find what is there: the public keys that went the same way.
    assert found_in({"key": cohort.server._keys[VICTIM].public_key}, seen) == ["key"]
    assert found_in({"key": cohort.server._keys[VICTIM].public_key}, in_clear) == ["key"]


def test_a_clients_stored_state_and_log_hold_no_secret_in_clear(
    make_cohort: Make, list_secrets: Secrets, tmp_path: Path
) -> None:
    cohort = make_cohort(MEMBERS, values=5)
    cohort.rounds[VICTIM] = FileRoundLog(tmp_path / "rounds")
    cohort.clients[VICTIM] = cohort.new_client(VICTIM)
    cohort.finish()
    client, key = cohort.clients[VICTIM], bytes(range(32))
    saved = client.snapshot(key)
    secrets = list_secrets(client, values=5)
    assert found_in(secrets | {"key": key}, saved) == []
    assert found_in(secrets, (tmp_path / "rounds").read_bytes()) == []
    # They are in there, under the key.
    restored = MaskedClient.restore(saved, key, terms=cohort.terms, credentials=cohort.credentials(VICTIM))
    again = list_secrets(restored, values=5)
    assert again == secrets
    assert any(name.startswith("root with") for name in secrets)
    # And not twice in the same way.
    assert client.snapshot(key)[12:] != saved[12:]


# What is left in memory


def test_the_keys_of_the_set_up_are_wiped_when_it_is_finished(
    make_cohort: Make, list_secrets: Secrets, atoms_of: Atoms, list_buffers: Buffers
) -> None:
    cohort = make_cohort(MEMBERS)
    cohort.go(Phase.SHARE)
    round_key = list_secrets(cohort.clients[VICTIM], values=6)["round key"]
    assert round_key in atoms_of(cohort.clients[VICTIM])
    # Member 41 advertises a key, and then vanishes.
    cohort.go(Phase.READY, absent=[41])
    client = cohort.clients[VICTIM]
    buffers, secrets = list_buffers(client), list_secrets(client, values=6)
    cohort.go(Phase.COLLECT)
    done = [name for name in buffers if name.startswith(("outgoing", "incoming")) or name == "root 41"]
    assert len(done) == 9
    assert all(not any(buffers[name]) for name in done)
    assert all(any(buffers[name]) for name in buffers if name not in done)
    atoms = atoms_of(client)
    assert round_key not in atoms
    gone = [
        secret for name, secret in secrets.items() if name.startswith(("outgoing", "incoming")) or "with 41" in name
    ]
    assert len(gone) >= 9
    assert not set(gone) & {atom for atom in atoms if isinstance(atom, bytes)}


@BOTH_MODES
def test_what_opened_a_step_is_wiped_and_what_opens_the_next_is_not(
    make_cohort: Make, list_secrets: Secrets, atoms_of: Atoms, active: bool, list_buffers: Buffers
) -> None:
    cohort = make_cohort(MEMBERS, active=active)
    cohort.ready()
    client = cohort.clients[VICTIM]
    for step in range(3):
        buffers, secrets = list_buffers(client), list_secrets(client, values=6)
        cohort.finish()
        assert not any(buffers[f"self secret {step}"])
        for member in MEMBERS:
            batch = buffers[f"shares of {member}"]
            assert batch is client._holdings.batches[member]
            assert not any(batch[: 64 * (step + 1)])
            assert all(any(batch[at : at + 32]) for at in range(64 * (step + 1), len(batch), 32))
        assert all(any(buffers[f"self secret {later}"]) for later in range(step + 1, 4))
        now = b"\n".join(atom for atom in atoms_of(client) if isinstance(atom, bytes))
        used = [
            name
            for name in secrets
            if (name.endswith(f"step {step}") and "share" in name) or name == f"self secret of step {step}"
        ]
        assert len(used) == 2 * len(MEMBERS) + 1
        assert all(secrets[name] not in now for name in used)
        # Nor is there anything left that would make its masks again; what makes the next step's is in place.
        over = [name for name in secrets if name.startswith("root with") or f"at step {step}" in name]
        assert len(over) >= 3 * len(PEERS)
        assert all(secrets[name] not in now for name in over)
        assert not any(any(buffers[f"root {peer}"]) for peer in PEERS)
        assert all(any(root) for name, root in list_buffers(client).items() if name.startswith("root"))


def test_steps_that_were_skipped_are_wiped_with_the_next_one_that_is_opened(
    make_cohort: Make, list_buffers: Buffers
) -> None:
    cohort = make_cohort(MEMBERS)
    cohort.ready()
    client = cohort.clients[VICTIM]
    buffers = list_buffers(client)
    client.receive(cohort.request(2))
    cohort.step = 2
    client.contribute(cohort.vector(VICTIM), stream="g")
    assert all(not any(buffers[f"self secret {step}"]) for step in range(3))
    assert any(buffers["self secret 3"])
    client.receive(cohort.open_request(2))
    for member in MEMBERS:
        assert not any(buffers[f"shares of {member}"][: 64 * 3])
        assert any(buffers[f"shares of {member}"][64 * 3 :])


def close(cohort: Any) -> None:
    cohort.clients[VICTIM].close()


def abort(cohort: Any) -> None:
    with pytest.raises(TooFewSurvivorsError):
        cohort.clients[VICTIM].receive(cohort.abort(None))


@pytest.mark.parametrize("end", [close, abort])
@pytest.mark.parametrize("phase", [Phase.ADVERTISE, Phase.SHARE, Phase.READY, Phase.COLLECT, Phase.OPEN])
def test_after_the_end_of_a_round_every_buffer_holds_zeros(
    make_cohort: Make,
    list_secrets: Secrets,
    atoms_of: Atoms,
    phase: Phase,
    end: Callable[[Any], None],
    list_buffers: Buffers,
) -> None:
    cohort = make_cohort(MEMBERS)
    cohort.go(phase)
    client = cohort.clients[VICTIM]
    if phase is Phase.ADVERTISE:
        client.receive(cohort.outbox[VICTIM])
    buffers, secrets = list_buffers(client), list_secrets(client, values=6)
    assert len(buffers) >= {Phase.ADVERTISE: 0, Phase.SHARE: 0}.get(phase, 9)
    end(cohort)
    assert not any(any(buffer) for buffer in buffers.values())
    left = b"\n".join(atom for atom in atoms_of(client) if isinstance(atom, bytes))
    # The identity is the caller's, and outlives the round.
    assert [name for name, secret in secrets.items() if secret in left] == ["identity"]
    with pytest.raises(ProtocolError):
        client.snapshot(bytes(32))
    client.close()


def test_a_restored_client_wipes_like_any_other(
    make_cohort: Make, atoms_of: Atoms, list_secrets: Secrets, list_buffers: Buffers
) -> None:
    cohort = make_cohort(MEMBERS)
    cohort.finish()
    saved = cohort.clients[VICTIM].snapshot(bytes(32))
    credentials = cohort.credentials(VICTIM)
    client = MaskedClient.restore(saved, bytes(32), terms=cohort.terms, credentials=credentials)
    cohort.clients[VICTIM] = client
    buffers, secrets = list_buffers(client), list_secrets(client, values=6)
    assert not any(name.endswith("step 0") and "share" in name for name in secrets)
    cohort.finish()
    assert not any(buffers["self secret 1"])
    assert not any(any(batch[: 64 * 2]) for batch in client._holdings.batches.values())
    client.close()
    assert not any(any(buffer) for buffer in buffers.values())
    left = {atom for atom in atoms_of(client) if isinstance(atom, bytes)}
    assert [name for name, secret in secrets.items() if secret in left] == ["identity"]


def test_a_secret_that_was_wiped_is_zeros_and_gives_nothing_any_more() -> None:
    secret = Secret(bytes(range(1, 33)))
    buffer = secret.value
    assert secret.derive(b"x") == hmac.digest(bytes(range(1, 33)), b"x", "sha256")
    secret.wipe()
    assert buffer == bytes(32)
    for use in (lambda: secret.value, lambda: secret.derive(b"x")):
        with pytest.raises(ValueError, match="wiped"):
            use()
    secret.wipe()


def test_a_step_whose_self_secret_is_gone_is_not_masked_without_it(make_cohort: Make) -> None:
    cohort = make_cohort(MEMBERS)
    cohort.ready()
    client = cohort.clients[VICTIM]
    client.receive(cohort.request(1))
    cohort.step = 1
    client.contribute(cohort.vector(VICTIM), stream="g")
    cohort.refuses(VICTIM, cohort.request(0), StepError)
