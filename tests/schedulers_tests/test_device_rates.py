from __future__ import annotations

import math
from typing import Any

import pytest

from schedulers.device_rates import DeviceRates, Prices, accelerator_of
from schedulers.meter import Holding
from schedulers.search_record import SearchRecord
from schedulers.slower_device import full_on_device
from schedulers.sweep_state import SweepState
from tests.schedulers_tests.conftest import Sweep


class TestRates:
    def test_what_is_not_named_counts_one(self) -> None:
        rates = DeviceRates({"A100": 3.0, "T4": 0.25})
        assert [rates.of(device) for device in ("A100", "T4", "H100", "")] == [3.0, 0.25, 1.0, 1.0]
        assert rates.dearest == 3.0
        assert DeviceRates({"T4": 0.25}).dearest == DeviceRates().dearest == 1.0, "others may be there"

    @pytest.mark.parametrize("rate", [0, -1.0, math.inf, math.nan, "1", True, None])
    def test_a_rate_is_a_number_above_zero(self, rate: Any) -> None:
        with pytest.raises(ValueError, match=r"device_rates: T4 counts"):
            DeviceRates({"T4": rate})

    def test_types_must_be_known(self) -> None:
        DeviceRates({"T4": 0.5}).check_types({"T4", "A100"})
        with pytest.raises(ValueError, match=r"'A10O' is no accelerator type .* did you mean A100\?"):
            DeviceRates({"A10O": 0.5}).check_types({"T4", "A100"})
        with pytest.raises(ValueError, match="there are A100, T4"):
            DeviceRates({"GeForce": 0.5}).check_types({"T4", "A100"})

    def test_the_type_of_a_node_is_in_the_names_of_its_resources(self) -> None:
        assert accelerator_of({"CPU": 4.0, "accelerator_type:T4": 1.0, "node:10.0.0.1": 1.0}) == "T4"
        assert accelerator_of({"CPU": 4.0}) == ""


class TestPrices:
    def test_grants_are_sized_for_the_dearest_and_the_rest_lasts_by_the_mean(self) -> None:
        sweep = Sweep(budget=100.0)
        sweep.core.prices = Prices(dearest=2.0, mean=1.25)
        _, view = sweep.offer(slots=4)
        assert view.devices == 2.0
        assert view.wall_seconds_left == pytest.approx(100.0 / (4 * 1.25))

    def test_training_is_what_steps_cost_where_they_ran(self) -> None:
        sweep = Sweep()
        sweep.start()
        grant = sweep.search().grant
        assert grant is not None
        sweep.held["a"] = Holding("a", grant, 0.25, "train")
        sweep.core.tick(sweep.held)
        sweep.clock.advance(10.0)
        sweep.core.tick(sweep.held)
        sweep.core.report("a", {"value": 0.5, "training_iteration": 1, "time_this_iter_s": 8.0}, False, "T4")
        assert sweep.kinds() == {"setup": 0.5, "train": 2.0}
        assert (sweep.search().device, sweep.search().price) == ("T4", 0.25)


def planned(epochs: int, seconds: float, device: str, deadline_seconds: float = 1000.0, **more: Any) -> int | None:
    """The horizon of a search after so many epochs, on a sweep with full searches of 40 epochs of 1 device-second."""
    state = SweepState(epoch_device_seconds=1.0, full_horizon=40, plan_device="A100")
    known = {"horizon": 40, "epoch_seconds": [9.0, seconds], "device": device, **more}
    search = SearchRecord("a", 0, {}, epochs=epochs, **known)
    return full_on_device(search, state, price=0.5, deadline_seconds=deadline_seconds)


class TestHorizons:
    def test_what_is_ahead_is_divided_by_what_epochs_cost(self) -> None:
        # 4 seconds at half a device-second each: twice what an epoch costs where full searches were planned.
        assert planned(10, 4.0, "T4") == 10 + 15
        assert planned(39, 40.0, "T4", epoch_seconds=[40.0]) == 40, "one more epoch is always ahead"

    def test_what_its_own_epochs_cost_before_counts_where_it_is_known(self) -> None:
        assert planned(10, 4.0, "T4", epoch_device_seconds=2.0) == 40
        assert planned(10, 4.0, "T4", epoch_device_seconds=0.5) == 10 + 7

    def test_equal_or_cheaper_devices_change_nothing(self) -> None:
        assert planned(10, 2.0, "T4") == 40
        assert planned(10, 2.05, "T4") == 40, "what is noise in the time of an epoch"
        assert planned(10, 0.5, "T4") == 40, "a raised budget buys more searches, not longer ones"

    def test_a_search_that_comes_back_has_its_epochs_again(self) -> None:
        on_a_t4: dict[str, Any] = {"planned_on": "T4", "full": 25, "horizon": 25}
        assert planned(10, 2.0, "A100", **on_a_t4) == 10 + 30
        assert planned(10, 4.0, "T4", **on_a_t4) is None, "once for each device"
        dear = {**on_a_t4, "epoch_device_seconds": 1.0, "paid_elsewhere": 4.0}
        assert planned(12, 2.0, "A100", **dear) == 12 + 24, "what it paid elsewhere it does not get back"

    def test_a_visit_to_a_cheaper_device_costs_no_epochs(self) -> None:
        back: dict[str, Any] = {"planned_on": "T4", "full": 40, "paid_elsewhere": -2.5}
        assert planned(20, 2.0, "A100", **back) == 40

    def test_what_epochs_cost_on_a_third_device_is_compared_with_the_plan(self) -> None:
        moved: dict[str, Any] = {"planned_on": "T4", "full": 25, "horizon": 25, "paid_elsewhere": 1.0}
        assert planned(11, 2.0, "H100", **moved) == 40
        assert planned(11, 4.0, "H100", **moved) == 11 + 14

    def test_a_second_epoch_is_waited_for_as_the_first_may_be_slow(self) -> None:
        assert planned(10, 4.0, "T4", epoch_seconds=[4.0]) is None

    def test_nothing_is_planned_on_the_same_device_or_an_unknown_one(self) -> None:
        assert planned(10, 8.0, "A100") is None
        assert planned(10, 8.0, "") is None

    def test_horizons_that_are_planned_for_every_slice_are_left_alone(self) -> None:
        assert planned(10, 8.0, "T4", horizon=20) is None, "an endgame's"
        assert planned(45, 8.0, "T4", horizon=60) is None, "an equal share's"
        assert planned(40, 8.0, "T4") is None, "it is complete"

    def test_none_is_told_more_than_it_can_do_before_the_deadline(self) -> None:
        assert planned(10, 2.0, "T4", deadline_seconds=20.0) == 20

    def test_a_search_is_told_and_its_slice_ends_by_then(self) -> None:
        sweep = Sweep(budget=1000.0, horizon_told=True, slice_told=True, told_at_work=True, full_epochs=40)
        sweep.start("a", epochs=1, horizon=None)
        sweep.hold(1.0)
        sweep.core.report("a", {"value": 0.5, "training_iteration": 1, "time_this_iter_s": 1.0}, False, "A100")
        sweep.checkpoint()
        sweep.pause()
        assert (sweep.state.full_horizon, sweep.state.plan_device) == (40, "A100")
        sweep.start("a", epochs=30, horizon=40)
        for epochs in (2, 3):
            sweep.hold(4.0)
            told = {"value": 0.5, "training_iteration": epochs, "time_this_iter_s": 4.0}
            assert sweep.core.report("a", told, False, "T4") == "continue"
        search = sweep.search()
        # 37 epochs of a device-second are ahead, less 6 that the first two cost more here; now one costs 4.
        assert (search.horizon, search.full, search.target) == (3 + 7, 3 + 7, 3 + 7)
        assert search.epoch_seconds == [4.0, 4.0], "what was measured elsewhere is not mixed in"
        assert (search.epoch_device_seconds, search.paid_elsewhere) == (1.0, 6.0)
        replayed = SweepState.from_json(sweep.state.to_json())
        assert replayed.searches["a"] == search
        assert SweepState.replay(None, sweep.book.records) == sweep.state
