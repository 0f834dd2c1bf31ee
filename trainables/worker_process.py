"""Settings of a process that trains, beside PyTorch's own."""

from __future__ import annotations

import ctypes
import os

# From glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4

# oneDNN keeps 1024 prepared convolutions unless told otherwise; the drawn candidates of a superkernel need more.
_PREPARED_CONVOLUTIONS = "16384"


def settle_process() -> None:
    """Let the process keep the memory that it freed, and oneDNN the convolutions that it prepared.

    Every batch allocates and frees the same activations. By default glibc gives large ones back to the kernel at once,
    and a tenth to a fifth of a step on the CPU goes into getting them again. Other C libraries are left as they are.
    The environment's own settings come first.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", _PREPARED_CONVOLUTIONS)
    if any(name.startswith("MALLOC_") for name in os.environ) or os.environ.get("LD_PRELOAD"):
        return
    library = ctypes.CDLL(None)
    if hasattr(library, "gnu_get_libc_version"):
        library.mallopt(_M_MMAP_MAX, 0)
        library.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
