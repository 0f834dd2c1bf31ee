"""The names of candidate operations. No torch here: settings and reports read names without it."""

from __future__ import annotations

import re
from collections.abc import Sequence

# The space of the papers' NASIB-1 ("the widely used narrow search space").
NARROW_NAMES: tuple[str, ...] = (
    "conv3x3",
    "conv5x5",
    "sepconv3x3",
    "sepconv5x5",
    "avg_pool3x3",
    "max_pool3x3",
    "identity",
)

_KERNEL = re.compile(r"(conv|sepconv|avg_pool|max_pool)([1-9]\d*)x([1-9]\d*)")
_IMPORT_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


def superkernel_names(m: int, K: int) -> tuple[str, ...]:
    """Names of the m * m candidates of a superkernel, in the order (1, 1), (1, 2) ... (m, m).

    A kernel of height i and width j is a standard convolution where i * j <= K and a depthwise separable one above
    (section 3.4 of the paper: kernels with more than K parameters for a single channel).
    """
    return tuple(f"{'conv' if i * j <= K else 'sepconv'}{i}x{j}" for i in range(1, m + 1) for j in range(1, m + 1))


def candidate_names(candidates: str | Sequence[str], m: int, K: int) -> tuple[str, ...]:
    """The names that the setting ``candidates`` stands for, in the order of the columns of alpha."""
    if candidates == "superkernel":
        return superkernel_names(m, K)
    if candidates == "narrow":
        return NARROW_NAMES
    assert not isinstance(candidates, str), f"settings let the candidates {candidates!r} through"
    return tuple(candidates)


def kernel_of(name: str) -> tuple[str, int, int] | None:
    """(kind, height i, width j) of a named kernel, such as ("sepconv", 7, 2); None for any other operation.

    The kinds are conv, sepconv, avg_pool and max_pool.
    """
    found = _KERNEL.fullmatch(name)
    return (found[1], int(found[2]), int(found[3])) if found else None


def is_import_path(name: str) -> bool:
    """Whether the name is that of a user's own operation, "package.module:Class"."""
    return _IMPORT_PATH.fullmatch(name) is not None


def check_window(kind: str, i: int, j: int) -> None:
    """Raise ValueError if a pooling window of height i and width j has no middle."""
    if kind.endswith("_pool") and (i % 2 == 0 or j % 2 == 0):
        raise ValueError(f"{kind}{i}x{j}: a pooling window has odd height and width, such as {kind}3x3")


def check_name(name: str) -> None:
    """Raise ValueError unless the name is one that an operation can be built from."""
    if kernel := kernel_of(name):
        check_window(*kernel)
    if name == "identity" or kernel or is_import_path(name):
        return
    raise ValueError(
        f"no operation is called {name!r}: the names are convIxJ, sepconvIxJ, avg_poolIxJ and max_poolIxJ "
        "(I rows, J columns, such as conv3x5), identity, and package.module:Class for an operation of your own"
    )
