"""Keeping memory that was freed, so that the next step finds it mapped."""

from __future__ import annotations

import ctypes
import ctypes.util
import sys

# The parameters' numbers in malloc.h of the GNU C library.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
_LARGEST_MMAP_THRESHOLD = 32 * 1024 * 1024  # more than this some versions refuse


def keep_freed_memory(*, spare: int = 128 * 1024 * 1024) -> bool:
    """Have this process keep what it frees, up to ``spare`` bytes beyond what it uses.

    Every step of an ensemble allocates and frees the same megabytes. By default the GNU C library hands blocks of that
    size back to the system, which clears them for the next step: up to a third of all processor time here. For the rest
    of the process's life; nothing but the memory that it holds changes.

    Returns:
        Whether it took effect; False where there is another C library.
    """
    if sys.platform != "linux":
        return False
    name = ctypes.util.find_library("c")
    mallopt = getattr(ctypes.CDLL(name), "mallopt", None) if name else None
    if mallopt is None:
        return False
    settings = ((_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD), (_TRIM_THRESHOLD, spare), (_TOP_PAD, spare // 4))
    taken = [mallopt(parameter, value) for parameter, value in settings]
    return all(each == 1 for each in taken)
