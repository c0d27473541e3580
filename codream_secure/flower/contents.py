"""From Flower's records to one vector and back, and a digest of what a node was shown."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict

from codream_secure.errors import ConfigError
from codream_secure.flower.settings import TRAIN, Protection

Vector = npt.NDArray[np.float64]


def shown_digest(content: RecordDict, settings: bytes, stream: str) -> bytes:
    """32 bytes for all that a train or evaluate message shows a node, in whatever order its records are kept.

    Masks cancel only among nodes that answer the same: a server that shows one of them another model, or another
    configuration, learns nothing of that one's answer.

    Args:
        content: of the message, without this package's own record.
        settings: :meth:`~codream_secure.flower.settings.Protection.digest`.
        stream: what is asked for.
    """
    parts: list[object] = [settings, stream]
    for name, record in sorted(content.items()):
        parts += [name, type(record).__name__]
        if isinstance(record, ArrayRecord):
            parts += [arrays_digest(record)]
        else:
            parts += [[key, value] for key, value in sorted(record.items())]
    return hashlib.sha256(b"codream-secure flower shown v1\0" + msgspec.msgpack.encode(parts)).digest()


def arrays_digest(record: ArrayRecord) -> bytes:
    """32 bytes for the arrays of a record."""
    digest = hashlib.sha256(b"codream-secure flower arrays v1\0")
    for name, array in sorted(record.items()):
        head = [name, array.dtype, list(array.shape), array.stype, len(array.data)]
        digest.update(msgspec.msgpack.encode(head) + array.data)
    return digest.digest()


def values_digest(record: ArrayRecord) -> bytes:
    """32 bytes for the names and numbers in a record, however they are typed, shaped and written down."""
    digest = hashlib.sha256(b"codream-secure flower values v1\0")
    for name, array in sorted(record.items()):
        values, kind = array.numpy(), "numbers"
        if values.dtype.kind in "biuf":
            # Zeros have one sign, and what is no number one form.
            values = np.add(values, 0.0, dtype="<f8")
            values = np.where(np.isnan(values), np.nan, values)
        else:
            kind = values.dtype.str
        digest.update(msgspec.msgpack.encode([name, kind, values.size]) + values.tobytes())
    return digest.digest()


@dataclass(frozen=True)
class Layout:
    """Where a message's arrays lie in the vector that is summed: sorted by name, metrics after them.

    Args:
        record: name of the ArrayRecord; None for evaluate replies, which have none.
        arrays: the arrays that the nodes were shown.
        metrics: names and bounds, in order.
        clip: bound of every value of the vector.
    """

    record: str | None
    arrays: dict[str, npt.NDArray[np.generic]]
    metrics: dict[str, float]
    clip: float

    @property
    def values(self) -> int:
        """Length of the vector."""
        return sum(array.size for array in self.arrays.values()) + len(self.metrics)

    def vector(self, arrays: ArrayRecord | None, metrics: MetricRecord) -> Vector:
        """A reply as a vector: what training changed, then the metrics in units of their bounds.

        Returns:
            ``(values,)`` float64; not clipped.

        Raises:
            ConfigError: the reply has other arrays or shapes than were shown, or lacks a metric.
        """
        parts = []
        if self.record is not None:
            found = {} if arrays is None else {name: array.numpy() for name, array in sorted(arrays.items())}
            if {name: array.shape for name, array in found.items()} != {
                name: array.shape for name, array in self.arrays.items()
            }:
                raise ConfigError(
                    "the reply's arrays differ in name or shape from those that were sent: a protected sum needs the "
                    "same ones back"
                )
            parts += [
                np.asarray(found[name], np.float64).ravel() - np.asarray(array, np.float64).ravel()
                for name, array in self.arrays.items()
            ]
        scaled = [self._scalar(metrics, name) * (self.clip / bound) for name, bound in self.metrics.items()]
        return np.concatenate([*parts, np.asarray(scaled, np.float64)])

    def _scalar(self, metrics: MetricRecord, name: str) -> float:
        value = metrics.get(name)
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise ConfigError(f"the metric {name!r} is announced, but the reply has no such finite number")
        return float(value)

    def reply(self, mean: Vector, weight: int, weight_key: str) -> RecordDict:
        """The mean as the reply of one node that has all the examples: averaging it by itself gives the mean."""
        content, at = RecordDict(), 0
        if self.record is not None:
            moved = {}
            for name, array in self.arrays.items():
                change = mean[at : at + array.size].reshape(array.shape)
                at += array.size
                # Means of whole numbers are none; FedAvg makes such arrays float64, too.
                kind = array.dtype if np.issubdtype(array.dtype, np.floating) else np.dtype(np.float64)
                moved[name] = Array(np.asarray(np.asarray(array, np.float64) + change, kind))
            content[self.record] = ArrayRecord(moved)
        means: dict[str, Any] = {weight_key: weight}
        for offset, (name, bound) in enumerate(self.metrics.items()):
            means[name] = float(mean[at + offset] * (bound / self.clip))
        content["metrics"] = MetricRecord(means)
        return content


def layout(content: RecordDict, protection: Protection, stream: str) -> Layout:
    """The layout of the vectors that answer a message.

    Raises:
        ConfigError: a train message has not exactly one ArrayRecord, or an array that is not of real numbers.
    """
    metrics, clip = dict(protection.bounds(stream)), protection.terms.streams[stream].clip
    if stream != TRAIN:
        return Layout(None, {}, metrics, clip)
    if len(content.array_records) != 1:
        raise ConfigError(
            f"the train message has {len(content.array_records)} ArrayRecords: a protected sum needs exactly one"
        )
    ((name, record),) = content.array_records.items()
    arrays = {key: array.numpy() for key, array in sorted(record.items())}
    for key, array in arrays.items():
        if not np.issubdtype(array.dtype, np.floating) and not np.issubdtype(array.dtype, np.integer):
            raise ConfigError(f"the array {key!r} is of {array.dtype}: only real numbers are summed")
    return Layout(name, arrays, metrics, clip)


def weight_of(metrics: MetricRecord, key: str) -> int:
    """The number of examples in a reply.

    Raises:
        ConfigError: there is none, or it is no whole number; the message does not say which.
    """
    value = metrics.get(key)
    if not isinstance(value, int | float) or not math.isfinite(value) or value != int(value):
        raise ConfigError(f"the reply has no whole number {key!r} in its MetricRecord: it weighs the mean")
    return int(value)


def without(content: RecordDict, name: str) -> RecordDict:
    """The other records, themselves and not copies."""
    return RecordDict({key: record for key, record in content.items() if key != name})


def records_of(content: RecordDict, stream: str) -> tuple[ArrayRecord | None, MetricRecord]:
    """What a node's own function answered.

    Raises:
        ConfigError: a train reply has not exactly one ArrayRecord, or a reply not exactly one MetricRecord.
    """
    arrays, metrics = list(content.array_records.values()), list(content.metric_records.values())
    if len(metrics) != 1 or (stream == TRAIN and len(arrays) != 1):
        raise ConfigError(
            f"the {stream} reply has {len(arrays)} ArrayRecords and {len(metrics)} MetricRecords: a protected sum "
            "needs exactly one of each that the strategy averages"
        )
    return (arrays[0] if stream == TRAIN else None), metrics[0]
