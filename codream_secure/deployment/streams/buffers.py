"""Large buffers come and go at every step: have the C library keep their memory in between."""

from __future__ import annotations

from functools import cache

_KEPT_BYTES = 4 << 20


@cache
def keep_freed_memory() -> None:
    """Raise, once a process, how much freed memory glibc keeps for what is allocated next: to 8 MiB a heap.

    By default it gives all but the last few hundred kilobytes back to the system, which then has to find, clear and map
    as many pages for the next message: for vectors of 400 kB that takes longer than to copy them. glibc learns from the
    largest buffer of its own mapping that was ever freed, so freeing one is all it takes; its pages are never touched.
    Other C libraries are left as they are, and ``MALLOC_TRIM_THRESHOLD_`` or ``MALLOC_MMAP_THRESHOLD_`` in the
    environment keep their word.
    """
    bytes(_KEPT_BYTES)
