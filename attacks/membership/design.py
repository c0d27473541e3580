"""Who is in which trial, and which trials an attack on one of them may learn from.

A trial is one federation trained on a random half of the candidates. Each trial in turn is the target, the others
are the adversary's references. In a balanced design the target's membership is what is missing from the others': a
candidate that is IN in M/2 - 1 of them is IN in the target. :func:`references` takes away that tell.
"""

from __future__ import annotations

import numpy as np


def balanced_memberships(candidates: int, trials: int, *, generator: np.random.Generator) -> np.ndarray:
    """Draw the design: each candidate is IN in exactly half of the trials, independently of the other candidates.

    So within one trial the candidates' memberships are independent fair coins, and across trials each candidate has as
    many trials with it as without it.

    Args:
        candidates: N, 1 or more.
        trials: M, even, 4 or more.
        generator: of the adversary's choices; seeded, so that an audit can be repeated.

    Returns:
        (M, N) bool, True for IN.

    Raises:
        ValueError: an argument is out of range.
    """
    if candidates < 1:
        raise ValueError(f"candidates is {candidates}: give 1 or more")
    if trials < 4 or trials % 2:
        raise ValueError(f"trials is {trials}: give an even number, 4 or more, or there is no reference of each kind")
    halves = np.repeat(np.arange(trials)[:, None] < trials // 2, candidates, axis=1)
    return generator.permuted(halves, axis=0)


def references(members: np.ndarray, target: int, *, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw equally many IN and OUT references for each candidate, whatever its membership in the target.

    Of the M - 1 other trials, M/2 have the target's opposite membership; one of those is left out, at random. Given
    the two sets, the target's membership is then a fair coin again.

    Args:
        members: (M, N) bool, balanced: M/2 True in each column.
        target: the trial under attack, 0 to M - 1.
        generator: of the adversary's choices.

    Returns:
        Numbers of trials, IN and OUT, each (N, M/2 - 1) int64, without the target, in random order.

    Raises:
        ValueError: the memberships are not balanced, or there is no such trial.
    """
    members = checked_memberships(members)
    trials = len(members)
    if not 0 <= target < trials:
        raise ValueError(f"target is {target}: the {trials} trials are numbered from 0")
    each = trials // 2 - 1
    keys = generator.random(members.shape)
    keys[target] = np.inf
    ins = np.argsort(np.where(members, keys, np.inf), axis=0)[:each]
    outs = np.argsort(np.where(members, np.inf, keys), axis=0)[:each]
    return np.ascontiguousarray(ins.T), np.ascontiguousarray(outs.T)


def checked_memberships(members: np.ndarray) -> np.ndarray:
    """Refuse what is not a balanced design.

    Raises:
        ValueError: not (M, N) bool with M even and 4 or more, or some candidate is not IN in M/2 of the trials.
    """
    members = np.asarray(members)
    if members.ndim != 2 or members.dtype != bool:
        raise ValueError(f"members is {members.dtype} of shape {members.shape}: give (trials, candidates) bool")
    if len(members) < 4 or len(members) % 2:
        raise ValueError(f"members has {len(members)} trials: give an even number, 4 or more")
    uneven = np.flatnonzero(members.sum(axis=0) != len(members) // 2)
    if len(uneven):
        raise ValueError(
            f"members has candidate {uneven[0]} in {members[:, uneven[0]].sum()} of {len(members)} trials: draw them "
            "with balanced_memberships, or counts of references tell memberships"
        )
    return members
