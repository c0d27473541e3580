"""A control without a model: can images alone tell members from non-members?

Where members and non-members come from different distributions, any attack that looks at them seems to work. This
classifier sees the images and no model. Unless it sits at .5, what an attack finds beside it proves nothing.
"""

from __future__ import annotations

import numpy as np
from scipy import stats
from sklearn.model_selection import StratifiedGroupKFold

from attacks.estimates import Estimate

MOST_PIXELS = 1024
"""Larger images are averaged over blocks down to so many values; a shift of distribution shows in them too."""


def blind_auc(
    images: np.ndarray, members: np.ndarray, *, generator: np.random.Generator, folds: int = 5, permutations: int = 199
) -> Estimate:
    """The AUC of a classifier of membership that was trained on other images, and saw no model.

    Half of the score is a ridge regression's of membership on pixels and their statistics, half the difference of the
    distances to both means: each out of fold, and as its rank within the fold. Equal images are always in one fold: a
    copy in the training folds would be recognised rather than classified.

    Args:
        images: (N, C, H, W) or (N, ...) float.
        members: (N,) bool, one trial's memberships.
        generator: draws the folds and the permutations.
        folds: 2 or more; each side needs twice as many images.
        permutations: of the memberships, 39 or more.

    Returns:
        The AUC; the interval reaches to either side as far as 95 % of random permutations of the memberships bring it
        away from .5. (Scores out of fold depend on each other, so that DeLong's would be too short.) It must hold .5;
        for a random split it does so in 95 % of cases.

    Raises:
        ValueError: shapes do not fit, a pixel is not finite, or there are too few images of a side or permutations.
    """
    pixels, inside = _checked(images, members)
    if folds < 2 or min(inside.sum(), (~inside).sum()) < 2 * folds:
        raise ValueError(
            f"folds is {folds} for {inside.sum()} members and {(~inside).sum()} non-members: give 2 or more, and twice "
            "as many images of each side"
        )
    if permutations < 39:
        raise ValueError(f"permutations is {permutations}: give 39 or more")
    values = _features(pixels)
    copies = np.repeat(inside[:, None], permutations, axis=1)
    sides = np.column_stack([inside, generator.permuted(copies, axis=0)]).astype(np.float64)
    split = StratifiedGroupKFold(n_splits=folds, shuffle=True, random_state=int(generator.integers(2**31)))
    scores = np.zeros(sides.shape)
    for trained, held in split.split(values, inside, groups=_copies(pixels)):
        known, asked = _standardised(values[trained], values[held])
        for score in (_ridge, _nearest_mean):
            scores[held] += stats.rankdata(score(known, sides[trained], asked), axis=0) / len(held)
    count = int(inside.sum())
    ranks = (stats.rankdata(scores, axis=0) * sides).sum(axis=0)
    areas = (ranks - count * (count + 1) / 2) / (count * (len(inside) - count))
    value = float(areas[0])
    reach = float(np.quantile(np.abs(areas[1:] - 0.5), 0.95, method="higher"))
    note = f"no model seen; out of {folds} folds; {duplicates(images, members)} images of members among non-members"
    return Estimate(value=value, low=max(0.0, value - reach), high=min(1.0, value + reach), n=len(inside), note=note)


def duplicates(images: np.ndarray, members: np.ndarray) -> int:
    """How many non-members are, value by value, the image of some member.

    Such a non-member has been trained on all the same, and counts against an attack that says so.

    Args:
        images: (N, ...) float or integer.
        members: (N,) bool.

    Raises:
        ValueError: shapes do not fit, or a pixel is not finite.
    """
    pixels, inside = _checked(images, members)
    copies = _copies(pixels)
    return int(np.isin(copies[~inside], copies[inside]).sum())


def _checked(images: np.ndarray, members: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    pixels, inside = np.asarray(images, dtype=np.float64), np.asarray(members)
    if pixels.ndim < 2 or inside.shape != (len(pixels),) or inside.dtype != bool:
        raise ValueError(
            f"images has shape {pixels.shape}, members {inside.shape} {inside.dtype}: give (N, ...), (N,) bool"
        )
    if not np.isfinite(pixels).all():
        raise ValueError("images has a value that is not finite")
    return pixels, inside


def _copies(pixels: np.ndarray) -> np.ndarray:
    """(N,) the same number for equal images."""
    return np.unique(pixels.reshape(len(pixels), -1) + 0.0, axis=0, return_inverse=True)[1].reshape(-1)


def _features(pixels: np.ndarray) -> np.ndarray:
    """(N, F): pixels, averaged over blocks where they are many, and what a preprocessing would change."""
    flat = pixels.reshape(len(pixels), -1)
    quantiles = np.quantile(flat, [0, 0.1, 0.5, 0.9, 1], axis=1).T
    steps = (
        np.abs(np.diff(pixels, axis=-1)).reshape(len(pixels), -1).mean(axis=1)
        if pixels.shape[-1] > 1
        else 0 * flat[:, 0]
    )
    statistics = np.column_stack([flat.mean(axis=1), flat.std(axis=1), quantiles, steps])
    block = 1
    while pixels.ndim == 4 and flat.shape[1] / block**2 > MOST_PIXELS and min(pixels.shape[2:]) >= 2 * block:
        block *= 2
    if block > 1:
        n, channels, height, width = pixels.shape
        cut = pixels[:, :, : height // block * block, : width // block * block]
        blocks = cut.reshape(n, channels, height // block, block, width // block, block)
        flat = blocks.mean(axis=(3, 5)).reshape(n, -1)
    return np.hstack([flat, statistics])


def _standardised(known: np.ndarray, asked: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    mean, std = known.mean(axis=0), known.std(axis=0)
    std = np.where(std > 0, std, 1.0)
    return (known - mean) / std, (asked - mean) / std


def _ridge(known: np.ndarray, sides: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """(H, P) scores of the asked images for each column of sides (K, P).

    Features are many and images few, so that it is solved among images, once for all columns. The penalty is the mean
    eigenvalue: a shift of distribution is seen in the large ones.
    """
    inner = known @ known.T
    penalty = max(float(np.trace(inner)) / len(inner), 1e-12)
    weights = np.linalg.solve(inner + penalty * np.eye(len(inner)), sides - sides.mean(axis=0))
    return np.asarray(asked @ (known.T @ weights))


def _nearest_mean(known: np.ndarray, sides: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """(H, P): how much nearer the members' mean is than the non-members', squared."""
    own, other = (known.T @ side / np.maximum(side.sum(axis=0), 1) for side in (sides, 1 - sides))
    return np.asarray(2 * asked @ (own - other) - ((own**2).sum(axis=0) - (other**2).sum(axis=0)))
