"""Where a sweep is kept."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass
from pathlib import Path

from nasib_ray.config import SweepConfig, is_uri


@dataclass(frozen=True)
class Place:
    """Where a sweep is kept.

    Attributes:
        storage: Its parent folder or URI, absolute.
        name: Its own name there.
    """

    storage: str
    name: str

    @classmethod
    def of(cls, config: SweepConfig) -> Place:
        """The place that a configuration names; without a name a new one is made."""
        made = f"{_slug(config.data.name)}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
        return cls(config.storage_path.rstrip("/"), config.name or made)

    @classmethod
    def at(cls, path: str) -> Place:
        """The place whose :attr:`path` this is; a local one may be relative, or begin at home."""
        if not is_uri(path):
            here = Path(path).expanduser().resolve()
            return cls(str(here.parent), here.name)
        folder, mark, options = path.partition("?")
        storage, _, name = folder.rstrip("/").rpartition("/")
        return cls(f"{storage}{mark}{options}", name)

    @property
    def path(self) -> str:
        """STORAGE/NAME; of a URI the options, which stand behind a question mark, stay at its end."""
        folder, mark, options = self.storage.partition("?") if is_uri(self.storage) else (self.storage, "", "")
        return f"{folder.rstrip('/')}/{self.name}{mark}{options}"

    def inside(self, name: str) -> Place:
        """The place of a sweep in this one's folder."""
        return Place(self.path, name)


def _slug(name: str) -> str:
    last = name.rstrip("/").rsplit("/", 1)[-1].rsplit(":", 1)[-1]
    return "".join(sign if sign.isalnum() or sign in "-_" else "-" for sign in last) or "sweep"
