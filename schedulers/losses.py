"""What is lost when a trial, its driver or a checkpoint is gone, entered in the journal."""

from __future__ import annotations

from collections.abc import Callable

from schedulers.ledger import KINDS
from schedulers.search_record import SearchRecord
from schedulers.sweep_state import SweepState


class Losses:
    """Enters losses.

    Args:
        state: The sweep.
        append: Writes a record and folds it into the state.
    """

    def __init__(self, state: SweepState, append: Callable[..., None]) -> None:
        self._state = state
        self._append = append

    def of_dead_driver(self, devices: float, seconds_unseen: float) -> None:
        """Close what a driver that died has left open.

        Args:
            devices: The most devices that one of its trials may have held.
            seconds_unseen: Wall seconds that a trial may have held them after the last charge.
        """
        for name, grant in list(self._state.ledger.grants.items()):
            unseen = min(grant.left, seconds_unseen * devices)
            if unseen > 0:
                self._append("charge", grant=name, trial=grant.trial, kind="lost", amount=unseen, unseen=True)
            self._append("release", grant=name, trial=grant.trial, amount=grant.left)
        for search in self._state.searches.values():
            # One that was to go on in its slot rests already where the records end just there.
            ahead = search.state == "paused" and search.epochs > _kept_epochs(search)
            if search.state == "running" or ahead:
                self.of_dead_trial(search, "the driver ended", blameless=True)
                self._append("state", trial=search.id, state="paused", why="the driver ended")

    def of_dead_trial(self, search: SearchRecord, why: str, blameless: bool = False) -> None:
        """What a trial has held since its newest checkpoint is lost.

        Args:
            search: The trial's search.
            why: What happened.
            blameless: Whether it was none of the trial's doing, and so is no failure.
        """
        self._relabel_unsaved(search)
        self._append("failure", trial=search.id, epochs=_kept_epochs(search), why=why, blameless=blameless)

    def of_checkpoint(self, search: SearchRecord, why: str) -> None:
        """A search's newest checkpoint is damaged: it goes back to the one before, or to nothing."""
        *kept, lost = search.checkpoints
        ledger = self._state.ledger
        accounts = ledger.saved.get(search.id, {}).get(lost.path, {}), ledger.unsaved.get(search.id, {})
        held = sum(amount for kinds in accounts for kind, amount in kinds.items() if kind != "lost")
        gone = {"path": lost.path, "epochs": kept[-1].epochs if kept else 0, "device_seconds": round(held, 6)}
        self._append("checkpoint-lost", trial=search.id, why=why, **gone)
        self._relabel_unsaved(search)

    def _relabel_unsaved(self, search: SearchRecord) -> None:
        unsaved = dict(self._state.ledger.unsaved.get(search.id, {}))
        for kind in KINDS:
            if kind != "lost" and unsaved.get(kind, 0.0) > 0:
                fields = {"from": kind, "to": "lost"}
                self._append("relabel", trial=search.id, **fields, amount=round(unsaved[kind], 6))


def _kept_epochs(search: SearchRecord) -> int:
    return search.checkpoints[-1].epochs if search.checkpoints else 0
