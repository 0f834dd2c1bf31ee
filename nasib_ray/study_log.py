"""A sweep as an Optuna study in a file, for optuna-dashboard."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection
from optuna.trial import TrialState, create_trial

logger = logging.getLogger(__name__)

STUDY_FILE = "optuna.log"
STUDY_NAME = "nasib-ray"

_SEARCH = "search"


@contextmanager
def quiet_optuna() -> Iterator[None]:
    """Keep Optuna from announcing studies and experimental features; the user's settings are back afterwards."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(max(verbosity, optuna.logging.WARNING))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(verbosity)


class StudyLog:
    """Appends what happens to the searches of a sweep to a journal of Optuna's; it decides nothing.

    A paused search stays RUNNING there, as it may go on. Where writing fails, a warning is logged and the log ends:
    no sweep stops for it.

    Args:
        folder: The sweep's folder, a local one; the file is ``optuna.log`` in it.
        mode: ``max`` or ``min``.
    """

    def __init__(self, folder: str | PathLike[str], mode: str = "max") -> None:
        self._file = Path(folder) / STUDY_FILE
        self._direction = StudyDirection.MAXIMIZE if mode == "max" else StudyDirection.MINIMIZE
        self._storage: BaseStorage | None = None
        self._study = 0
        self._open: dict[str, int] = {}
        self._broken = False

    def suggested(self, search: str, params: Mapping[str, Any], distributions: Mapping[str, BaseDistribution]) -> None:
        """Write down a new search with its parameters."""

        def append(storage: BaseStorage) -> None:
            trial = create_trial(
                state=TrialState.RUNNING,
                params=dict(params),
                distributions=dict(distributions),
                user_attrs={_SEARCH: search},
            )
            self._open[search] = storage.create_new_trial(self._study, trial)

        self._write(append)

    def reported(self, search: str, epochs: int, value: float) -> None:
        """Write down a value; nothing happens for a search that is not in the log, or ended there."""

        def append(storage: BaseStorage) -> None:
            if search in self._open:
                storage.set_trial_intermediate_value(self._open[search], epochs, value)

        self._write(append)

    def ended(self, search: str, value: float | None) -> None:
        """Write down that a search is finished, with its last value, or failed (None)."""

        def append(storage: BaseStorage) -> None:
            if search in self._open:
                state = TrialState.FAIL if value is None else TrialState.COMPLETE
                values = None if value is None else [value]
                storage.set_trial_state_values(self._open.pop(search), state, values)

        self._write(append)

    def _write(self, append: Callable[[BaseStorage], None]) -> None:
        if self._broken:
            return
        try:
            with quiet_optuna():
                # Opened at the first use: a searcher is pickled before.
                if self._storage is None:
                    self._storage = self._opened()
                append(self._storage)
        # Half a line that a crash left, a full disk, a lock that cannot be had: Optuna lets anything through.
        except Exception as error:
            logger.warning("%s is not written any further, only optuna-dashboard misses it: %r", self._file, error)
            self._broken = True

    def _opened(self) -> BaseStorage:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        storage = JournalStorage(JournalFileBackend(str(self._file)))
        if any(study.study_name == STUDY_NAME for study in storage.get_all_studies()):
            self._study = storage.get_study_id_from_name(STUDY_NAME)
        else:
            self._study = storage.create_new_study([self._direction], STUDY_NAME)
        trials = storage.get_all_trials(self._study, deepcopy=False, states=(TrialState.RUNNING,))
        self._open = {trial.user_attrs[_SEARCH]: trial._trial_id for trial in trials}
        return storage
