"""Everything that has a bound: sizes in bytes, times in seconds."""

from __future__ import annotations

from dataclasses import dataclass, fields

from codream_secure.errors import ConfigError

FRAME_OVERHEAD = 64
"""Most bytes that a frame adds to the chunk it carries."""
CHUNK_COST = 512
"""What a chunk counts for beside its bytes, so that a flood of tiny messages fills a window as well."""
_MIN_FRAME = 4096


def _check_positive(settings: object) -> None:
    for field in fields(settings):  # type: ignore[arg-type]
        value = getattr(settings, field.name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            raise ConfigError(f"{field.name} is {value!r}: it has to be a number above 0")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one side takes from the other before it hangs up. Both sides need the same sizes.

    Args:
        frame_bytes: longest frame, and so the longest thing that is read before anything about it is known. At least
            4096.
        message_bytes: longest message; it travels in as many frames as it takes.
        window_bytes: most bytes of messages on the way and not yet acknowledged, in each direction of one session: what
            a reconnecting side may have to send again. At least twice ``message_bytes``.
        handshake_s: a connection that has not proved who it is by then is closed.
        unauthenticated: most streams at a time that have not proved it yet.
        keepalive_s: a silent connection is probed after so long, and given up if the probe is not answered in as long.

    Raises:
        ConfigError: a number is out of range.
    """

    frame_bytes: int = 1 << 20
    message_bytes: int = 64 << 20
    window_bytes: int = 256 << 20
    handshake_s: float = 10.0
    unauthenticated: int = 16
    keepalive_s: float = 20.0

    def __post_init__(self) -> None:
        _check_positive(self)
        if self.frame_bytes < _MIN_FRAME:
            raise ConfigError(f"frame_bytes is {self.frame_bytes}: at least {_MIN_FRAME}")
        if self.window_bytes < 2 * self.message_bytes:
            raise ConfigError(
                f"window_bytes is {self.window_bytes}: it has to hold two messages of {self.message_bytes} bytes, or "
                "one that waits for its acknowledgement would block the next"
            )

    @property
    def chunk_bytes(self) -> int:
        """Most bytes of a message in one frame."""
        return self.frame_bytes - FRAME_OVERHEAD

    def cost(self, size: int) -> int:
        """What a message of so many bytes counts for in a window."""
        return size + CHUNK_COST * -(-size // self.chunk_bytes)


@dataclass(frozen=True, kw_only=True)
class Deadlines:
    """How long an aggregator waits; who has not answered by then has dropped out of that phase.

    Args:
        join_s: for members to connect before a round.
        setup_s: for each phase of the set-up.
        contribute_s: for the vectors of a step.
        open_s: for each phase that opens a step.
        reconnect_s: for a member whose stream is cut, counted from the cut; the phase's own deadline holds as well.

    Raises:
        ConfigError: a number is not above 0.
    """

    join_s: float = 60.0
    setup_s: float = 30.0
    contribute_s: float = 120.0
    open_s: float = 30.0
    reconnect_s: float = 15.0

    def __post_init__(self) -> None:
        _check_positive(self)


@dataclass(frozen=True, kw_only=True)
class Backoff:
    """How a client tries again: after waits that double, each shortened at random so that clients do not march in step.

    Args:
        first_s: the first wait is at most this.
        most_s: and none is longer.
        patience_s: it gives up when it has not had a working connection for so long.

    Raises:
        ConfigError: a number is not above 0.
    """

    first_s: float = 0.1
    most_s: float = 5.0
    patience_s: float = 300.0

    def __post_init__(self) -> None:
        _check_positive(self)

    def longest(self, attempt: int) -> float:
        """Seconds that the wait before this attempt, counted from 0, has at most.

        >>> [Backoff(first_s=1, most_s=5).longest(attempt) for attempt in range(4)]
        [1, 2, 4, 5]
        """
        return min(self.most_s, self.first_s * 2 ** min(attempt, 60))
