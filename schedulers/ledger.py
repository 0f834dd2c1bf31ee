"""The accounts of a sweep: who was promised how much device-time, who held it, and as what."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

KINDS = ("setup", "train", "checkpoint", "idle", "lost", "select")
"""What device-time is held for; every charge is of exactly one kind, so that kinds sum to what was held."""

ROUNDING = 1e-6
"""Device-seconds by which sums of floats may differ without meaning anything."""


KEPT_CHECKPOINTS = 2
"""A search keeps its newest checkpoint, and the one before it in case that one is damaged."""


@dataclass
class Grant:
    """Device-seconds promised to one trial, all-in, and how much of them it has held so far.

    Attributes:
        trial: The trial's id.
        amount: Device-seconds promised.
        charged: Device-seconds held under this grant; above ``amount`` only if a kill came late.
    """

    trial: str
    amount: float
    charged: float = 0.0

    @property
    def left(self) -> float:
        """Device-seconds still promised, never below zero."""
        return max(0.0, self.amount - self.charged)


def _no_kinds() -> dict[str, float]:
    return dict.fromkeys(KINDS, 0.0)


@dataclass
class Ledger:
    """Budget, open grants and charges; changed only by :meth:`apply`, so that a replay gives the same balances.

    The invariant is ``spent + granted <= budget`` whenever a grant is booked.

    Attributes:
        budget: Device-seconds that the whole sweep may hold.
        spent_by_kind: Device-seconds held, by kind.
        spent_by_trial: The same for each trial.
        unsaved: For each trial, what it held since its last checkpoint, by kind: what a crash would lose.
        saved: For each trial, by the paths of its newest checkpoints, what it held before each and after the one
            before: what the loss of that checkpoint would lose.
        grants: The open grants, by id.
    """

    budget: float = 0.0
    spent_by_kind: dict[str, float] = field(default_factory=_no_kinds)
    spent_by_trial: dict[str, dict[str, float]] = field(default_factory=dict)
    unsaved: dict[str, dict[str, float]] = field(default_factory=dict)
    saved: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    grants: dict[str, Grant] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # Follows from the grants, and so is no field: it is neither saved nor compared.
        self._granted, self._changes = 0.0, math.inf

    @property
    def spent(self) -> float:
        """Device-seconds held so far."""
        return sum(self.spent_by_kind.values())

    def spent_on(self, trial: str) -> float:
        """Device-seconds that a trial has held so far."""
        return sum(self.spent_by_trial.get(trial, {}).values())

    @property
    def granted(self) -> float:
        """Device-seconds promised and not held yet."""
        # Added up anew after as many changes as there are grants, so that no rounding can pile up.
        if self._changes >= len(self.grants):
            self._granted, self._changes = sum(grant.left for grant in self.grants.values()), 0
        return self._granted

    def _regrant(self, more: float) -> None:
        self._granted += more
        self._changes += 1

    @property
    def free(self) -> float:
        """Device-seconds neither held nor promised; below zero only after a kill that came too late."""
        return self.budget - self.spent - self.granted

    def apply(self, record: Mapping[str, Any]) -> None:
        """Fold one journal record into the accounts; records of other events are ignored.

        A charge whose grant is already closed (a late event) is still device-time held and is counted as such.

        Args:
            record: A record with ``event`` one of budget, grant, charge, relabel, release, checkpoint, checkpoint-lost,
                weights-dropped.

        Raises:
            AssertionError: If a grant is booked that the budget does not cover, or a kind is unknown.
        """
        match record["event"]:
            case "budget":
                self.budget = float(record["device_seconds"])
            case "grant":
                self._book(record["grant"], record["trial"], float(record["amount"]))
            case "charge":
                self._charge(record["grant"], record["trial"], record["kind"], float(record["amount"]))
            case "relabel":
                self._relabel(record["trial"], record["from"], record["to"], float(record["amount"]))
            case "release":
                if (grant := self.grants.pop(record["grant"], None)) is not None:
                    self._regrant(-grant.left)
            case "checkpoint":
                self._save(record["trial"], record["path"])
            case "weights-dropped":
                self._give_up(record["trial"], record["path"])
            case "checkpoint-lost":
                for kind, amount in self.saved.get(record["trial"], {}).pop(record["path"], {}).items():
                    unsaved = self.unsaved.setdefault(record["trial"], {})
                    unsaved[kind] = unsaved.get(kind, 0.0) + amount

    def _book(self, grant: str, trial: str, amount: float) -> None:
        assert amount > 0, f"a grant of {amount} device-seconds to trial {trial} buys nothing"
        assert amount <= self.free + ROUNDING, (
            f"a grant of {amount:.3f} device-seconds exceeds the {self.free:.3f} that are free"
        )
        assert grant not in self.grants, f"grant {grant} is booked already"
        self.grants[grant] = Grant(trial, amount)
        self._regrant(amount)

    def _charge(self, grant: str, trial: str, kind: str, amount: float) -> None:
        assert kind in KINDS, f"{kind!r} is none of the kinds {KINDS}"
        assert amount >= 0, f"a charge of {amount} device-seconds would give budget back"
        if grant in self.grants:
            before = self.grants[grant].left
            self.grants[grant].charged += amount
            self._regrant(self.grants[grant].left - before)
        self.spent_by_kind[kind] += amount
        by_kind = self.spent_by_trial.setdefault(trial, {})
        by_kind[kind] = by_kind.get(kind, 0.0) + amount
        unsaved = self.unsaved.setdefault(trial, {})
        unsaved[kind] = unsaved.get(kind, 0.0) + amount

    def _save(self, trial: str, path: str) -> None:
        saved = self.saved.setdefault(trial, {})
        saved[path] = self.unsaved.pop(trial, {})
        for oldest in list(saved)[:-KEPT_CHECKPOINTS]:
            del saved[oldest]

    def _give_up(self, trial: str, path: str) -> None:
        """Nothing is lost: what a checkpoint held is in the one after it, which would lose it too."""
        saved = self.saved.get(trial, {})
        held = saved.pop(path, {})
        for kind, amount in held.items() if saved else ():
            newest = saved[next(reversed(saved))]
            newest[kind] = newest.get(kind, 0.0) + amount

    def _relabel(self, trial: str, source: str, target: str, amount: float) -> None:
        assert source in KINDS, f"{source!r} is none of the kinds {KINDS}"
        assert target in KINDS, f"{target!r} is none of the kinds {KINDS}"
        by_trial = self.spent_by_trial.setdefault(trial, {})
        for accounts in (self.spent_by_kind, by_trial):
            accounts[source] = accounts.get(source, 0.0) - amount
            accounts[target] = accounts.get(target, 0.0) + amount
        # Part of it may have been held before a checkpoint that came meanwhile, and is saved.
        for held in (self.unsaved.setdefault(trial, {}), *reversed(self.saved.get(trial, {}).values())):
            moved = min(amount, max(0.0, held.get(source, 0.0)))
            held[source] = held.get(source, 0.0) - moved
            if target != "lost":
                held[target] = held.get(target, 0.0) + moved
            amount -= moved

    def to_json(self) -> dict[str, Any]:
        """The accounts as plain data, for a snapshot."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Ledger:
        """The accounts that :meth:`to_json` wrote."""
        grants = {name: Grant(**grant) for name, grant in data["grants"].items()}
        return cls(**{**data, "grants": grants})
