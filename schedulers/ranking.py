"""Names in order."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator


class Ranking:
    """Names, the best score first; equal ones in the order of their index.

    Entering, leaving and asking for a place take time that hardly grows with the number of names.
    """

    def __init__(self) -> None:
        self._keys: list[tuple[float, int, str]] = []
        self._key_of: dict[str, tuple[float, int, str]] = {}

    def put(self, name: str, score: float, index: int) -> None:
        """Enter a name, or give it another score."""
        self.drop(name)
        self._key_of[name] = (-score, index, name)
        insort(self._keys, self._key_of[name])

    def drop(self, name: str) -> None:
        """Take a name out, if it is there."""
        if (key := self._key_of.pop(name, None)) is not None:
            del self._keys[bisect_left(self._keys, key)]

    def place(self, name: str) -> int:
        """How many come before a name that is there."""
        return bisect_left(self._keys, self._key_of[name])

    def score(self, name: str) -> float:
        """The score of a name that is there."""
        return -self._key_of[name][0]

    def __contains__(self, name: str) -> bool:
        return name in self._key_of

    def __iter__(self) -> Iterator[str]:
        return (name for _, _, name in self._keys)

    def __len__(self) -> int:
        return len(self._keys)
