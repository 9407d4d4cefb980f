"""What the C library does with memory that is free again."""

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # https://man7.org/linux/man-pages/man3/mallopt.3.html


def give_back(from_bytes: int) -> None:
    """Blocks at least so large go back to the system when they are free.

    glibc would do so with the first, and take those after it from what it keeps, up to 32 MiB each: of a few large bodies
    a process would have the memory ever after.  Another C library is left as it is.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(M_MMAP_THRESHOLD, from_bytes)
        libc.mallopt(M_TRIM_THRESHOLD, from_bytes)
