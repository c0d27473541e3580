"""A server's numbers in the Prometheus text format. They say how many members, never which."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

from codream_secure.deployment.monitor import Monitor, Traffic
from codream_secure.errors import ConfigError

_PHASES = ("advertise", "share", "collect", "vote", "open")
_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)


def load_prometheus() -> Any:
    """The ``prometheus_client`` module.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        importlib.import_module("prometheus_client.core")
        return importlib.import_module("prometheus_client")
    except ImportError as error:
        raise ConfigError(
            f"metrics need prometheus_client, which cannot be imported ({error}): "
            "pip install 'codream-secure[metrics]', or leave --metrics out"
        ) from None


class Metrics(Monitor):
    """Counts in a registry of its own, so that nothing else in the process is told to whoever asks.

    Raises:
        ConfigError: ``prometheus_client`` is not installed.
    """

    def __init__(self) -> None:
        self._library = prometheus = load_prometheus()
        self._registry = registry = prometheus.CollectorRegistry()
        self.ready = False
        """Whether a round could be opened since this program began."""
        self._planned = prometheus.Gauge("codream_rounds", "Rounds of this training.", registry=registry)
        self._finished = prometheus.Gauge(
            "codream_rounds_finished", "Rounds finished, by earlier programs too.", registry=registry
        )
        self._current = prometheus.Gauge("codream_round", "The round that goes on; 0 before any.", registry=registry)
        self._broken = prometheus.Counter(
            "codream_rounds_broken_off", "Attempts at a round that broke off.", registry=registry
        )
        self._sums = prometheus.Counter("codream_sums", "Sums asked for.", ["outcome"], registry=registry)
        self._seconds = prometheus.Histogram(
            "codream_sum_seconds",
            "From the question to the opened sum, clients' computing included.",
            buckets=_SECONDS,
            registry=registry,
        )
        self._dropouts = prometheus.Counter(
            "codream_dropouts", "Members who had not answered when a phase ended.", ["phase"], registry=registry
        )
        self._refusals = prometheus.Counter(
            "codream_answers_refused", "Answers refused, by members or by the server.", registry=registry
        )
        # A series that begins with its first event hides that event from rates.
        for outcome in ("opened", "failed"):
            self._sums.labels(outcome)
        for phase in _PHASES:
            self._dropouts.labels(phase)

    def text(self) -> tuple[bytes, str]:
        """All of it now, and its content type."""
        return self._library.generate_latest(self._registry), self._library.CONTENT_TYPE_LATEST

    def watches(self, traffic: Traffic) -> None:
        self._registry.register(_Streams(self._library.core, traffic))

    def planned(self, rounds: int, finished: int) -> None:
        self._planned.set(rounds)
        self._finished.set(finished)

    def began(self, number: int) -> None:
        self._current.set(number)

    def opened(self) -> None:
        self.ready = True

    def broke_off(self) -> None:
        self._broken.inc()

    def finished(self, number: int) -> None:
        self._finished.set(number)

    def summed(self, seconds: float, *, opened: bool) -> None:
        self._sums.labels("opened" if opened else "failed").inc()
        if opened:
            self._seconds.observe(seconds)

    def dropped(self, phase: str, members: int) -> None:
        self._dropouts.labels(phase).inc(members)

    def refused(self, answers: int) -> None:
        self._refusals.inc(answers)


class _Streams:
    """What streams count themselves, read when somebody asks."""

    def __init__(self, core: Any, traffic: Traffic) -> None:
        self._core = core
        self._traffic = traffic

    def collect(self) -> Iterator[Any]:
        gauge, counter = self._core.GaugeMetricFamily, self._core.CounterMetricFamily
        yield gauge("codream_members_present", "Members with a stream that stands.", value=self._traffic.present())
        yield counter(
            "codream_down_bytes",
            "Of messages for members, before frames and TLS, those that wait included.",
            value=self._traffic.bytes_down(),
        )
        yield counter(
            "codream_streams_refused",
            "Streams refused before they had proved who they are.",
            value=self._traffic.turned_away(),
        )
