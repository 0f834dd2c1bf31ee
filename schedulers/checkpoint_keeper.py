"""Keeps the checkpoints of a sweep within the room that they may take."""

from __future__ import annotations

import logging
from collections.abc import Callable

from schedulers.checkpoint_store import CheckpointStore
from schedulers.core import SweepCore
from schedulers.journal import JournalWriteError
from schedulers.search_record import SearchRecord
from schedulers.storage_bound import most_running, surplus, too_small
from schedulers.terms import Terms

logger = logging.getLogger(__name__)

Forget = Callable[[SearchRecord, str], None]

_WHY = "its weights made room for better searches"


class CheckpointKeeper:
    """Enters the sizes of checkpoints, and deletes what is too much: first in the journal, then in Tune, then on disk.

    Args:
        core: The spending, with the journal.
        store: Where checkpoints are.
        terms: What checkpoints may take, and which of their files stay when their weights go.
        at_work: Whether a search is at work.
    """

    def __init__(
        self,
        core: SweepCore,
        store: CheckpointStore,
        terms: Terms,
        at_work: Callable[[str], bool],
    ) -> None:
        self._core = core
        self._store = store
        self._bound = terms.max_storage_bytes
        self._kept_files = terms.kept_files
        self._at_work = at_work
        # What a driver that died has left may be half a checkpoint.
        self._unsure = {search.id for search in core.state.searches.values() if search.state == "running"}
        self._slots_checked = False
        self._warned = False

    def size(self, path: str) -> int:
        """Bytes of a checkpoint; those of the largest one if it cannot be read now."""
        try:
            return self._store.size(path)
        except OSError as error:
            logger.warning("the size of %s is not known: %s", path, error)
            return self._core.state.largest_checkpoint_bytes

    def slots(self, slots: int) -> int:
        """How many of so many trials can run at once: when nodes have come the bound may be too small for all."""
        most = None if self._bound is None else most_running(self._core.state, self._bound)
        if most is None or most >= slots:
            return slots
        if not self._warned:
            self._warned = True
            logger.warning("%s", too_small(self._core.state, self._bound or 0, slots))
        return max(1, most)

    def refusal(self, slots: int) -> str:
        """Why the sweep cannot go on under its bound, which is entered; empty if it can.

        Asked for the first time when the size of a checkpoint is known, the bound must do for all slots.
        """
        state = self._core.state
        if self._bound is None or state.largest_checkpoint_bytes == 0 or state.refused:
            return state.refused
        slots, self._slots_checked = 1 if self._slots_checked else max(1, slots), True
        if why := too_small(state, self._bound, slots):
            self._core.append("refused", why=why)
        return why

    def crashed(self, name: str) -> None:
        """Take note that a trial's process died, perhaps while it was writing."""
        self._unsure.add(name)

    def make_room(self, forget: Forget) -> None:
        """See to it that the next checkpoint of each search that runs fits the bound.

        Args:
            forget: Called before a checkpoint of a search is deleted, with its path: Tune must not use it any more.
        """
        self._delete_given_up(forget)
        if self._bound is None:
            return
        self._delete_unknown()
        state = self._core.state
        # What stays of a checkpoint is known only afterwards, so that one round may not do.
        while going := surplus(state, self._bound, self._at_work, bool(self._kept_files)):
            for one in going:
                self._core.append("weights-dropped", trial=one.search.id, path=one.checkpoint.path, why=_WHY)
            if not self._delete_given_up(forget):
                return

    def _delete_given_up(self, forget: Forget) -> bool:
        """Delete what was given up; whether that could be done. What could not is deleted the next time."""
        searches = [search for search in self._core.state.searches.values() if search.given_up]
        try:
            if searches:
                self._core.flush()
            for search in searches:
                for gone in list(search.given_up):
                    forget(search, gone.path)
                    newest = not search.checkpoints and gone is search.given_up[-1]
                    left = self._store.delete(gone.path, self._kept_files if newest else ())
                    self._core.append("weights-deleted", trial=search.id, path=gone.path, bytes=left)
        except (JournalWriteError, OSError) as error:
            logger.warning("checkpoints that must make room are not deleted yet: %s", error)
            return False
        return True

    def _delete_unknown(self) -> None:
        for name in [name for name in self._unsure if not self._at_work(name)]:
            search = self._core.state.searches[name]
            rest = [search.remains] if search.remains else []
            known = {kept.path for kept in (*search.checkpoints, *search.given_up, *rest)}
            try:
                self._store.delete_others(name, known)
            except OSError as error:
                logger.warning("what is left of the checkpoints of trial %s cannot be looked at yet: %s", name, error)
                return
            self._unsure.discard(name)
