"""What the server's whole transcript opens and what it does not.

Vectors and masks meet here as ring elements. "Hidden" is tested as uniform, by chi-square over bytes and over 16-bit
halves. Each of these has a false-alarm rate of 1e-13, or a few times that where a cell expects few hits, and no test
makes more than 100 of them: a test fails by chance at most once in 1e10 runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from scipy import stats

from protocols import Phase, ShareError, wire
from protocols.keys import Secret, context_digest, request_context
from protocols.masks import next_root, pair_mask_key, pair_seed, self_mask_key
from protocols.openings import _backup_key, open_backup, self_secret
from protocols.shares import PRIME

Make = Callable[..., Any]
Secrets = Callable[..., dict[str, bytes]]
Atoms = Callable[[Any], list[Any]]
Read = Callable[..., Any]

MEMBERS = (3, 7, 8, 20, 41)
VICTIM = 8
PEERS = (3, 7, 20, 41)
VALUES = 1 << 15
FALSE_ALARM = 1e-13


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
