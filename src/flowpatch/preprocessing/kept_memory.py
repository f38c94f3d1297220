"""Freed memory kept by the process, for a command that takes the same sizes again and again.

Given back to the system and asked for anew, memory is faulted in and cleared page by page. What a
process does with its memory is its own affair, so a library does not decide it, and a command may.
"""

import ctypes
import os

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MOST_ARENAS = -1, -3, -8
"""Options of glibc's mallopt, as malloc.h numbers them."""
_LARGEST_KEPT = 32 * 2**20
"""Of one piece: more than glibc allows would be refused."""
_KEPT = 2**31 - 1


def keep_freed_memory() -> None:
    """To be called before Arrow is imported, as its allocator reads its options when it is."""
    os.environ.setdefault("MIMALLOC_PURGE_DELAY", "-1")
    # Other systems' C libraries have no such options.
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):
        mallopt(_MMAP_THRESHOLD, _LARGEST_KEPT)
        mallopt(_TRIM_THRESHOLD, _KEPT)
        # Threads come and go, and each may find another arena that has no memory yet.
        mallopt(_MOST_ARENAS, os.cpu_count() or 1)
