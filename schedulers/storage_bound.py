"""Which checkpoints go when they may not take more room than a bound allows, and which bound is too small."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from schedulers.ledger import KEPT_CHECKPOINTS
from schedulers.search_record import CheckpointRecord, SearchRecord
from schedulers.sizes import format_least_size, format_size
from schedulers.sweep_state import SweepState


@dataclass(frozen=True)
class Surplus:
    """A checkpoint that makes room.

    Attributes:
        search: Whose it is.
        checkpoint: What goes.
        last: Whether the search has no other one: it then loses its weights, else only what it would fall back to if
            its newest checkpoint were damaged.
    """

    search: SearchRecord
    checkpoint: CheckpointRecord
    last: bool


def surplus(state: SweepState, bound: int, at_work: Callable[[str], bool], results_stay: bool) -> list[Surplus]:
    """The checkpoints that must go so that the next ones, one of each search that runs, fit the bound.

    The older checkpoints go first, then weights, those of the worst searches before those of better ones. Searches are
    compared by their best value; whoever has none is worse than all who have one, and fewer epochs are worse where
    values are equal. A search that runs keeps its newest checkpoint, and the incumbent loses its weights after all
    others, but for the finalists of the present selection. Nobody goes on with a search that has ended, so that its
    weights go before those of paused ones, unless they are its result.

    Args:
        state: The sweep.
        bound: Bytes that checkpoints may take.
        at_work: Whether a search of this id is at work, whatever its state in the journal is yet.
        results_stay: Whether the result of a search stays when its weights are deleted.

    Returns:
        No more than are needed, and all that can go if that is too little; in the order in which they go.
    """
    searches = sorted(state.searches.values(), key=lambda search: _worth(state, search))
    working, resting, ended = list[SearchRecord](), list[SearchRecord](), list[SearchRecord]()
    for search in searches:
        works = search.state == "running" or at_work(search.id)
        (working if works else resting if search.state == "paused" else ended).append(search)
    early, late = (_weights(ended), []) if results_stay else ([], _weights(ended))
    in_order = [*_spares(ended), *early, *_spares(resting), *_spares(working), *_weights(resting), *late]
    best = state.incumbent

    def late_by(one: Surplus) -> int:
        finalist = one.search.kind == "select" and state.counts(one.search)
        return 2 * finalist + (one.search is best) if one.last else 0

    in_order.sort(key=late_by)
    to_be_deleted = sum(gone.bytes for search in searches for gone in search.given_up)
    needed = state.stored_bytes - to_be_deleted + state.largest_checkpoint_bytes * len(working) - bound
    going = []
    for one in in_order:
        if needed <= 0:
            break
        needed -= one.checkpoint.bytes
        going.append(one)
    return going


def most_running(state: SweepState, bound: int) -> int | None:
    """How many searches can run at once under a bound: each has a checkpoint, and writes another one.

    Returns:
        None as long as no checkpoint was written.
    """
    if state.largest_checkpoint_bytes == 0:
        return None
    return max(0, bound - _remains(state)) // (KEPT_CHECKPOINTS * state.largest_checkpoint_bytes)


def too_small(state: SweepState, bound: int, slots: int) -> str:
    """Why a bound cannot hold what so many running searches need, and which one could; empty if it can."""
    most = most_running(state, bound)
    if most is None or most >= slots:
        return ""
    return told_too_small(bound, state.largest_checkpoint_bytes, slots, _remains(state))


def told_too_small(bound: int, checkpoint_bytes: int, slots: int, remains: int = 0) -> str:
    """That a bound is too small for this many trials, and which one would do."""
    least = format_least_size(KEPT_CHECKPOINTS * checkpoint_bytes * slots + remains)
    return (
        f"max_storage is {format_size(bound)}, but each of {slots} running trials needs room for {KEPT_CHECKPOINTS} "
        f"checkpoints of {format_size(checkpoint_bytes)}: {least} would do"
        + (", or a smaller max_concurrent" if slots > 1 else "")
    )


def _remains(state: SweepState) -> int:
    """What stays of the searches whose weights are gone."""
    return sum(search.remains.bytes for search in state.searches.values() if search.remains)


def _worth(state: SweepState, search: SearchRecord) -> tuple[float, int, int]:
    value = search.best_value
    if value is None:
        return -math.inf, search.epochs, -search.index
    return value if state.mode == "max" else -value, search.epochs, -search.index


def _spares(searches: list[SearchRecord]) -> list[Surplus]:
    return [Surplus(search, made, last=False) for search in searches for made in search.checkpoints[:-1] if made.bytes]


def _weights(searches: list[SearchRecord]) -> list[Surplus]:
    return [Surplus(search, made, last=True) for search in searches for made in search.checkpoints[-1:] if made.bytes]
