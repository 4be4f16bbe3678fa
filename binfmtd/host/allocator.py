"""The memory allocator of the C library."""

_M_ARENA_MAX = -8  # malloc.h of glibc


def share_heap() -> None:
    """Have all threads allocate from one heap (M_ARENA_MAX in mallopt(3)).

    Otherwise glibc gives a new thread a heap of its own, of up to 64 MiB, if none is free, and keeps it: the memory
    then grows whenever more threads than before happen to run at once.  A C library without mallopt, such as musl, has
    one heap.
    """
    import ctypes

    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)
