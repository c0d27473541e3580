"""What a reconstruction has to beat: held-out images, and plain grey.

A high PSNR alone says little: on dark or smooth images another image of the same kind, or none at all, gets close.
Every control here is given the chance that the attack has: the same matching, the same number of images.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from scipy import stats

from attacks.estimates import Estimate, clopper_pearson
from attacks.reconstruction.image_metrics import match, psnr, squared_errors
from codream_secure.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Reconstruction:
    """How well targets were reconstructed, beside the controls. PSNR in dB, pixels in [0, 1].

    Attributes:
        psnr: median over targets, each matched to a reconstruction of its own.
        above_30: share of targets reconstructed at more than 30 dB.
        first: share of reconstructions that lie nearer to their target than to every held-out image ("rank 1").
        chance: what ``first`` is for reconstructions that know nothing of the targets: 1 / (ranked + 1).
        rank: median rank of the target, 1 for the nearest of ``ranked`` + 1.
        held_out: the control: median PSNR of held-out images, the best of them matched to the targets.
        grey: the control: median PSNR of the held-out images' mean colour.
        ranked: N, against how many draws of held-out images a target is ranked.
    """

    psnr: Estimate
    above_30: Estimate
    first: Estimate
    chance: float
    rank: Estimate
    held_out: Estimate
    grey: Estimate
    ranked: int


def assess(
    reconstructions: torch.Tensor, targets: torch.Tensor, *, held_out: torch.Tensor, batch_size: int | None = None
) -> Reconstruction:
    """Compare reconstructions of one batch, or of several one after another, with their images and held-out ones.

    A batch of B is matched one to one, and to be matched is an advantage even for noise. So ranks compare like with
    like: the held-out images are cut into batches of B as well, each is matched to the reconstructions in the same
    way, and each reconstruction's target is ranked among the images that it was given in those. Ties count against
    the attack. Intervals take images as independent, which those of one batch are not quite, and hold for one model.

    Args:
        reconstructions: (N, C, H, W) float, as pixels in [0, 1] (what lies outside is clipped); in any order within a
            batch.
        targets: (N, C, H, W), pixels in [0, 1].
        held_out: (M, C, H, W), from the targets' distribution, seen by neither client nor attacker; M at least B.
        batch_size: B, which divides N: how many images stand behind one gradient; None for all N.

    Raises:
        DataError: the shapes differ, B does not divide N, or there are too few held-out images.
    """
    size = len(targets) if batch_size is None else batch_size
    if reconstructions.shape != targets.shape or size < 1 or len(targets) % size or not len(targets):
        raise DataError(
            f"reconstructions {tuple(reconstructions.shape)} and targets {tuple(targets.shape)} must be alike, and "
            f"batch_size={size} must divide their number"
        )
    if len(held_out) < size:
        raise DataError(
            f"held_out has {len(held_out)} images for batches of {size}: give as many, better 100 times that"
        )
    guesses = torch.nan_to_num(reconstructions.detach(), nan=0.5).clamp(0, 1)
    grey = held_out.mean(dim=(0, 2, 3), keepdim=True)
    reached, best_held_out, ranks = [], [], []
    for guess, truth in zip(guesses.split(size), targets.split(size), strict=True):
        matched = guess[match(guess, truth)]
        reached.append(psnr(matched, truth))
        best_held_out.append(psnr(held_out[match(held_out, truth)], truth))
        ranks.append(target_ranks(matched, truth, held_out=held_out))
    count, rank, decibels = len(targets), torch.cat(ranks), torch.cat(reached)
    return Reconstruction(
        psnr=median(decibels),
        above_30=_share(int((decibels > 30).sum()), count),
        first=_share(int((rank == 1).sum()), count),
        chance=1 / (len(held_out) // size + 1),
        rank=median(rank),
        held_out=median(torch.cat(best_held_out)),
        grey=median(psnr(grey.expand_as(targets), targets)),
        ranked=len(held_out) // size,
    )


def target_ranks(matched: torch.Tensor, targets: torch.Tensor, *, held_out: torch.Tensor) -> torch.Tensor:
    """Rank, from 1, of each target by distance to its reconstruction, among one image from each held-out batch.

    Args:
        matched: (B, C, H, W), at the targets' places.
        targets: (B, C, H, W).
        held_out: (M, C, H, W); M // B batches are made of it.

    Returns:
        (B,) int64 in 1..M // B + 1.
    """
    size = len(targets)
    own = (matched.double() - targets.double()).flatten(1).square().mean(dim=1)
    ranks = torch.ones(size, dtype=torch.int64)
    if size == 1:  # no matching to be done, and thousands of images to be compared
        return ranks + (squared_errors(matched, held_out)[0] <= own).sum()
    for batch in held_out[: len(held_out) // size * size].split(size):
        errors = squared_errors(matched, batch)
        ranks += errors[torch.arange(size), match(batch, matched)] <= own
    return ranks


def median(values: torch.Tensor) -> Estimate:
    """The median with the exact 95 % interval that order statistics give, of independent values.

    Fewer than 6 values allow no such interval. Infinite values (a perfect reconstruction) are kept as they are.

    Args:
        values: (n,) float, n at least 1.
    """
    ordered = values.double().sort().values
    n = len(ordered)
    value = float(ordered[(n - 1) // 2]) if n % 2 else float((ordered[n // 2 - 1] + ordered[n // 2]) / 2)
    # P[k-th smallest > median] = P[fewer than k values below it], Bin(n, 1/2).
    lowest = int(stats.binom.ppf(0.025, n, 0.5))
    if n < 6 or lowest < 1:
        return Estimate(value=value, low=None, high=None, n=n, note=f"too few ({n}) for an interval")
    return Estimate(value=value, low=float(ordered[lowest - 1]), high=float(ordered[n - lowest]), n=n)


def _share(successes: int, trials: int) -> Estimate:
    low, high = clopper_pearson(successes, trials)
    return Estimate(value=successes / trials, low=low, high=high, n=trials)
