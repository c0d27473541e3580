"""The model and its data: numpy alone, and the same numbers on every machine."""

from __future__ import annotations

import numpy as np
from sklearn.datasets import load_digits

Arrays = dict[str, np.ndarray]

CLASSES, PIXELS = 10, 64


def initial() -> Arrays:
    """Zeros: ``weights`` (64, 10) and ``bias`` (10,), float32."""
    return {"weights": np.zeros((PIXELS, CLASSES), np.float32), "bias": np.zeros(CLASSES, np.float32)}


def load(part: int, parts: int) -> tuple[np.ndarray, np.ndarray]:
    """One node's images (n, 64) in [0, 1] and labels (n,); later parts are larger."""
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(images))
    ends = np.cumsum(np.arange(1, parts + 1)) / sum(range(1, parts + 1)) * len(images)
    mine = order[int(ends[part - 1]) if part else 0 : int(ends[part])]
    return images[mine] / 16.0, labels[mine]


def predict(arrays: Arrays, images: np.ndarray) -> np.ndarray:
    """Probabilities (n, 10), float64."""
    scores = images @ arrays["weights"].astype(np.float64) + arrays["bias"]
    scores = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(scores / scores.sum(axis=1, keepdims=True))


def train(arrays: Arrays, images: np.ndarray, labels: np.ndarray, *, learning_rate: float) -> tuple[Arrays, float]:
    """Ten steps of gradient descent on all images; the arrays, and the loss before the last step."""
    arrays, loss, wanted = dict(arrays), 0.0, np.eye(CLASSES)[labels]
    for _ in range(10):
        found = predict(arrays, images)
        loss = float(-np.log(found[np.arange(len(labels)), labels] + 1e-12).mean())
        slope = (found - wanted) / len(labels)
        arrays["weights"] = (arrays["weights"] - learning_rate * images.T @ slope).astype(np.float32)
        arrays["bias"] = (arrays["bias"] - learning_rate * slope.sum(axis=0)).astype(np.float32)
    return arrays, loss


def accuracy(arrays: Arrays, images: np.ndarray, labels: np.ndarray) -> float:
    """Share of the images that are told right."""
    return float((predict(arrays, images).argmax(axis=1) == labels).mean())
