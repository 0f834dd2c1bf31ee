"""From devices held to charges in the accounts."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from schedulers.clock import Clock
from schedulers.meter import Holding, Meter, Phase
from schedulers.rules import Rules
from schedulers.sweep_state import SweepState

FLUSH_SECONDS = 1.0
"""Charges reach the disk at most so much later; grants before anything runs on them."""


@dataclass
class _Start:
    """A process that is awaited on a grant, or is on its way to its first step."""

    booked: float
    key: str | None = None
    began: float | None = None
    reused: bool = False


class Charging:
    """Meters what is held, and enters it into the accounts.

    Args:
        state: What the journal says so far.
        rules: What the sweep spends by.
        clock: Tells the time.
        append: Enters a record, as :meth:`schedulers.core.SweepCore.append` does.
    """

    def __init__(self, state: SweepState, rules: Rules, clock: Clock, append: Callable[..., None]) -> None:
        self._state = state
        self._rules = rules
        self._clock = clock
        self._append = append
        self._meter = Meter()
        self._unposted: dict[str, dict[tuple[str, str], float]] = {}
        self._all_unposted = 0.0
        self._trained: dict[str, float] = {}
        self._prices: dict[str, float] = {}
        self._starting: dict[str, _Start] = {}
        self._posted = self._ticked = clock.monotonic()

    def tick(self, held: Mapping[str, Holding]) -> None:
        """Meter what was held since the last tick.

        Args:
            held: Every live process, by a key of its own.
        """
        for key, holding in held.items():
            self._see_start(key, holding)
        self._ticked = self._clock.monotonic()
        for account, amount in self._meter.read(self._ticked, held).items():
            self._enter(account, amount)
        for holding in held.values():
            self._prices[holding.trial] = holding.devices
            if holding.phase == "train":
                self.note_start(holding.grant)

    def price(self, name: str) -> float:
        """Device-seconds that a wall second of a trial costs where it was seen last."""
        return self._prices.get(name, self._rules.devices)

    def turn(self, key: str, holding: Holding | None) -> None:
        """Meter one process at the very moment at which it turns to something else (None: it is gone)."""
        if holding is not None:
            self._see_start(key, holding)
        if (charge := self._meter.turn(self._clock.monotonic(), key, holding)) is not None:
            self._enter(*charge)
        if holding is not None:
            self._prices[holding.trial] = holding.devices
            if holding.phase == "train":
                self.note_start(holding.grant)

    def _enter(self, account: tuple[str, str, Phase], amount: float) -> None:
        grant, trial, phase = account
        selecting = self._state.searches[trial].kind == "select"
        unposted, key = self._unposted.setdefault(trial, {}), (grant, "select" if selecting else phase)
        unposted[key] = unposted.get(key, 0.0) + amount
        self._all_unposted += amount
        if phase == "train" and not selecting:
            self._trained[trial] = self._trained.get(trial, 0.0) + amount
        if self._left(grant, trial) <= 0:
            # What is held beyond a grant was never promised, and so is not free any more.
            self.post(trial)

    @property
    def due(self) -> bool:
        """Whether charges must be posted and made durable."""
        return self._clock.monotonic() - self._posted >= FLUSH_SECONDS

    def hurry(self) -> None:
        """Have the next tick's charges made durable at once."""
        self._posted = -math.inf

    def post(self, name: str | None = None) -> None:
        """Enter what was metered into the accounts; that of one trial, or of all."""
        if name is None:
            self._posted = self._clock.monotonic()
        for trial in list(self._unposted) if name is None else [name]:
            for (grant, kind), amount in self._unposted.pop(trial, {}).items():
                self._all_unposted -= amount
                # Rounded up: what guards a cap may count too much, but not too little.
                rounded = math.ceil(amount * 1e6) / 1e6
                self._append("charge", grant=grant, trial=trial, kind=kind, amount=rounded)

    def unposted(self, name: str | None = None) -> float:
        """Device-seconds that are held and not in the accounts yet; of one trial what was metered, or of all."""
        if name is None:
            return self._all_unposted + self._meter.unread(self._clock.monotonic())
        return sum(self._unposted.get(name, {}).values())

    def _left(self, grant: str, trial: str) -> float:
        """What is left of a grant after all that was metered; 0 if it is not open."""
        if grant not in self._state.ledger.grants:
            return 0.0
        unposted = sum(amount for (on, _), amount in self._unposted.get(trial, {}).items() if on == grant)
        return self._state.ledger.grants[grant].left - unposted

    def booked(self, grant: str) -> None:
        """Take note that a process is awaited on a grant."""
        self._starting[grant] = _Start(self._clock.monotonic())

    def _see_start(self, key: str, holding: Holding) -> None:
        """A process begins to start when it is seen on its grant: until then it may have waited for a node."""
        start = self._starting.get(holding.grant)
        if start is not None and start.key != key and (start.key is None or not self._meter.holds(start.key)):
            start.key, start.reused = key, self._meter.holds(key)
            start.began = max(start.booked, self._ticked)

    def closed(self, grant: str) -> None:
        """Take note that nothing starts on a grant any more."""
        self._starting.pop(grant, None)

    def note_start(self, grant: str | None, in_vain: bool = False) -> None:
        """Learn from how long a process took to be ready; nothing if none was starting.

        Args:
            grant: What it runs on.
            in_vain: Whether it ended before: then it may have hung, so that the next one is given twice the time at
                most.
        """
        start = self._starting.pop(grant, None) if grant is not None else None
        if start is None or start.began is None:
            return
        taken, state = self._clock.monotonic() - start.began, self._state
        longest = (state.reset_seconds if start.reused else state.boot_seconds) or 0.0
        if in_vain:
            guess = self._rules.reset_seconds if start.reused else self._rules.boot_seconds
            taken = min(taken, 2 * (longest or guess))
        if not start.reused and (not in_vain or taken > longest):
            self._append("timing", boot_seconds=taken)
        elif start.reused and taken > longest:
            self._append("timing", reset_seconds=taken)

    def settle_training(self, name: str, step_seconds: float) -> None:
        """A search's kind train is the reported step time; what was held beside it in this time is set-up."""
        if self._state.searches[name].kind == "select":
            return
        held, trained = self._trained.pop(name, 0.0), step_seconds * self.price(name)
        spare = self._state.ledger.unsaved.get(name, {}).get("setup", 0.0)
        kinds, amount = {"from": "train", "to": "setup"}, held - trained
        if amount < 0:
            kinds, amount = {"from": "setup", "to": "train"}, min(-amount, spare)
        if amount > 0:
            self._append("relabel", trial=name, **kinds, amount=round(amount, 6))

    def crashed(self, name: str) -> None:
        """Forget what a trial has trained since its last report: it is lost."""
        self._trained.pop(name, None)

    def within(self, held: Mapping[str, Holding], wall_seconds: float) -> list[str]:
        """The keys of processes whose grant has no more than this left, or is not open."""
        return [
            key
            for key, holding in held.items()
            if self._left(holding.grant, holding.trial) <= wall_seconds * holding.devices
        ]
