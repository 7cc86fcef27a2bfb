"""What is decided for a run on several instances, event by event; the time is counted."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from domain.stepped import WHOLE, Stepped, orders_of, working

from tasks.domain.coordination import (
    LOOK_SECONDS,
    LOOKS_AT_ONCE,
    MOST_LOSSES,
    OUTAGE_SECONDS,
    SERVER_SECONDS,
    STOP_SECONDS,
    Begin,
    Drop,
    Fail,
    ListWorkers,
    LookAt,
    Order,
    Show,
    StopEarly,
    Warn,
)
from tasks.domain.errors import ModelServerError, StorageError
from tasks.domain.run import RunStopped, ShardDone, ShardRef
from tasks.domain.sharing import Give, ShardLoad, TakeBack
from tasks.domain.stop import BY_HAND, Stop

# -- which worker is which instance, and how often it is asked


def test_worker__becomes_the_first_instance_that_is_missing() -> None:
    run = Stepped()
    run.lists("c", "a", "b")
    assert run.decide() == [Begin("a", 0), Begin("b", 1)]
    run.lists("b", "c")
    assert run.decide() == [Begin("c", 0)]
    assert run.decisions.instances == ["b", "c"]


def test_worker__that_is_busy_with_another_run_is_asked_again_later() -> None:
    run = Stepped()
    run.lists("a")
    run.decide()
    run.decisions.answered(Begin("a", 0), False, run.now)
    assert run.decide(LOOK_SECONDS / 2) == []
    assert run.decide(LOOK_SECONDS / 2) == [Begin("a", 0)]


def test_instance__is_looked_at_again_a_while_after_it_has_answered() -> None:
    run = Stepped()
    run.joins("a")
    assert run.decide() == [LookAt("a")]
    assert run.decide(60.0) == []  # the answer is still awaited
    run.reports("a", ready=False)
    assert run.decide(LOOK_SECONDS / 2) == []
    assert run.decisions._due_at == run.now + LOOK_SECONDS / 2
    assert run.decide(LOOK_SECONDS / 2) == [LookAt("a")]
    run.decisions.unanswered(LookAt("a"), TimeoutError(), run.now)
    assert run.decide(LOOK_SECONDS) == [LookAt("a")]


def test_instances__that_are_many_are_looked_at_less_often() -> None:
    run = Stepped(4 * LOOKS_AT_ONCE)
    names = [f"i{number:03d}" for number in range(4 * LOOKS_AT_ONCE)]
    run.joins(*names)
    assert len(run.decide()) == len(names)
    for name in names:
        run.reports(name, ready=False)
    assert run.decide(3 * LOOK_SECONDS) == []
    assert len(run.decide(LOOK_SECONDS)) == len(names)
    assert run.decisions._pause == 512 * 0.00025


def test_instance__that_has_ended_by_itself_is_begun_and_stopped_again() -> None:
    run = Stepped(1)
    run.joins("a")
    run.decisions.stop(BY_HAND)
    assert run.decide() == [StopEarly("a", BY_HAND)]
    run.decisions.answered(StopEarly("a", BY_HAND), None, run.now)
    assert run.decide() == [LookAt("a")]
    run.decisions.answered(LookAt("a"), None, run.now)
    assert run.decide(LOOK_SECONDS) == [Begin("a", 0)]
    run.decisions.answered(Begin("a", 0), True, run.now)
    assert run.decide() == [StopEarly("a", BY_HAND)]


# -- instances that are lost, given up or cut off


def test_instance__that_is_lost_has_its_task_dropped_and_its_shard_given_to_another() -> None:
    run = working()
    run.lists("b")
    assert run.decide() == [Drop(WHOLE.key), Warn("instance-0 lost: its process (a) is gone")]
    assert run.shown is not None and run.shown.sick == 1
    run.reports("a")  # an answer on its way
    assert orders_of(Give, run.decide()) == []
    run.decisions.interrupted(WHOLE.key, None, run.now)
    assert orders_of(Give, run.decide()) == [Give("b", WHOLE)]


def test_instance__that_was_never_ready_is_lost_without_a_word() -> None:
    run = Stepped()
    run.joins("a")
    run.lists()
    assert run.decide() == []


def test_answer__of_an_instance_that_was_lost_changes_nothing_in_the_shard_of_another() -> None:
    run = working()
    back = TakeBack("a", WHOLE.key, 0.5, 1)
    run.lists("b")
    run.decisions.interrupted(WHOLE.key, None, run.now)
    assert Give("b", WHOLE) in run.decide()
    run.decisions.answered(back, [WHOLE.from_(50)], run.now)
    run.decisions.ended(WHOLE.key, done(WHOLE))
    assert run.decide() == []
    assert run.shown is not None and run.shown.done == 100


def test_instance__that_is_given_up_is_named_once_with_its_reason_until_it_is_ready_again() -> None:
    run = working()
    for _ in range(2):
        run.reports("a", error="it died\nits log")
    assert run.decide() == [Warn("instance-0 given up: it died")]
    assert run.shown is not None and run.shown.sick == 1
    run.reports("a")
    run.decide()
    assert run.shown is not None and run.shown.sick == 0


def test_instance__whose_answer_is_an_unforeseen_error_is_given_up() -> None:
    run = Stepped(1)
    run.joins("a")
    run.decisions.unanswered(LookAt("a"), ValueError("no such secret"), run.now)
    error = run.fails()
    assert isinstance(error, ModelServerError) and str(error) == "no such secret"


def test_run__none_of_whose_instances_starts_fails_with_the_reason_of_the_first() -> None:
    run = Stepped()
    run.joins("a", "b")
    run.reports("b", error="it ended with status 3")
    assert run.fails() is None
    run.reports("a", error="it ended with status 4")
    orders = run.decide()
    assert orders[0] == Warn("instance-0 given up: it ended with status 4")
    assert isinstance(orders[1], Fail) and str(orders[1].error) == "it ended with status 3"


@pytest.mark.parametrize(
    ("away", "stop"),
    [
        ("", Stop(reason="no instance", cause="no instance is left: it died")),
        ("it is away", Stop(reason="outage", cause="it is away", resumable=True)),
    ],
)
def test_run__whose_last_instance_is_given_up_stops_early_and_accounts_for_its_items(away: str, stop: Stop) -> None:
    run = Stepped(1)
    run.joins("a")
    run.reports("a")
    assert Give("a", WHOLE) in run.decide()
    run.reports("a", error="it died", away=away)
    run.decisions.interrupted(WHOLE.key, ModelServerError("it died"), run.now)
    run.decide()
    assert orders_of(StopEarly, run.decide(LOOK_SECONDS)) == [StopEarly("a", stop)]
    run.decisions.answered(StopEarly("a", stop), None, run.now)
    run.reports("a", error="it died")
    assert orders_of(Give, run.decide()) == [Give("a", WHOLE)]


def test_run__waits_for_its_storage_while_no_instance_reaches_it_and_then_fails() -> None:
    run = working()
    run.reports("a", error="Download file failed.", cut_off=True)
    assert run.decide() == [Warn("instance-0 cut off: Download file failed.")]
    run.reports("b", error="it died")
    assert run.fails(OUTAGE_SECONDS) is None
    assert run.shown is not None and run.shown.sick == 2
    error = run.fails(0.1)
    assert isinstance(error, StorageError)
    assert str(error) == (
        "No instance has reached the storage for 5 minutes: /out, or the run's input. Resume the run when it answers."
    )


def test_run__one_of_whose_instances_reaches_the_storage_again_goes_on() -> None:
    run = working()
    for name in ("a", "b"):
        run.reports(name, error="Download file failed.", cut_off=True)
    run.decide(OUTAGE_SECONDS)
    run.reports("b")
    assert run.fails(OUTAGE_SECONDS) is None


# -- shards that are interrupted


def done(shard: ShardRef) -> ShardDone:
    return ShardDone(shard=shard, report="", successful=shard.items, failed=0, started_at=0, ended_at=0)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (None, f"The processes of {MOST_LOSSES + 1} instances died while they worked on shard 00000-0."),
        (ModelServerError("it died"), "it died"),
    ],
)
def test_shard__that_is_lost_with_one_instance_after_the_other_fails_the_run(
    error: Exception | None, message: str
) -> None:
    run = working()
    for _ in range(MOST_LOSSES):
        run.decisions.interrupted(WHOLE.key, error, run.now)
        run.reports("a")
        assert orders_of(Give, run.decide())
    run.decisions.interrupted(WHOLE.key, error, run.now)
    failure = run.fails()
    assert isinstance(failure, ModelServerError) and str(failure) == message


def test_shard__whose_task_prefect_could_not_run_is_given_again_after_a_while_and_not_for_ever() -> None:
    run, error = working(), RuntimeError("HTTP 500")
    for _ in range(MOST_LOSSES):
        run.decisions.interrupted(WHOLE.key, error, run.now)
        assert orders_of(Give, run.decide(SERVER_SECONDS - 1)) == []
        run.reports("a")
        run.reports("b")
        assert orders_of(Give, run.decide(1)) != []
    run.decisions.interrupted(WHOLE.key, error, run.now)
    assert run.fails() is error


def test_shard__whose_report_cannot_be_written_fails_the_run_at_once() -> None:
    run, error = working(), StorageError("Upload file failed.")
    run.decisions.interrupted(WHOLE.key, error, run.now)
    assert run.fails() is error


# -- stops


def test_error_threshold__stops_every_instance_before_anything_else_is_heard_from_it() -> None:
    run = Stepped(error_threshold=5)
    run.joins("a", "b")
    run.decide()
    run.reports("a")
    run.decide()
    run.reports("a", shards={WHOLE.key: ShardLoad(left=50, weight=50, done=50, failed=6)})
    stop = Stop(reason="threshold", cause="6 items had failed (error_threshold 5)")
    run.decide()
    run.reports("b", ready=False)
    assert run.decide() == [StopEarly("b", stop)]
    assert run.decide(LOOK_SECONDS) == [StopEarly("a", stop)]
    run.decisions.answered(StopEarly("b", stop), None, run.now)
    assert run.decide() == [LookAt("b")]
    # Its model server is not ready, but to account for items it needs none.
    run.lists("b")
    run.decisions.interrupted(WHOLE.key, None, run.now)
    run.reports("b", ready=False, stopped=stop)
    assert orders_of(Give, run.decide()) == [Give("b", WHOLE)]


def test_stop__of_one_instance_stops_all_and_one_by_hand_goes_before_it() -> None:
    run = working()
    stop = Stop(reason="deadline", cause="its deadline (1 minute) had passed")
    run.reports("b", stopped=stop)
    assert run.decide() == [StopEarly("b", stop)]
    run.decisions.answered(StopEarly("b", stop), None, run.now)
    run.decisions.stop(BY_HAND)
    assert run.decide(LOOK_SECONDS) == [StopEarly("a", BY_HAND), StopEarly("b", BY_HAND)]


def test_stop__before_any_worker_is_there_ends_the_run_after_a_short_wait() -> None:
    run = Stepped()
    run.decisions.stop(BY_HAND)
    assert run.fails() is None
    assert run.fails(STOP_SECONDS) is None
    assert isinstance(run.fails(0.1), RunStopped)


def test_stop__after_a_worker_was_there_waits_for_one_to_account_for_the_items() -> None:
    run = Stepped()
    run.joins("a")
    run.lists()
    run.decisions.stop(BY_HAND)
    run.decide()
    assert run.fails(10 * STOP_SECONDS) is None


def test_run__without_a_worker_fails_in_the_end_with_what_the_cluster_says() -> None:
    run = Stepped(timeout_minutes=3)
    run.lists(said="It ended with status 1.")
    assert run.fails(180) is None
    assert str(run.fails(0.1)) == (
        "No worker of the Dask cluster tls://cluster was there within 3 minutes. It ended with status 1."
    )


def test_run__whose_cluster_is_gone_fails() -> None:
    run, error = Stepped(), ModelServerError("The Dask scheduler does not answer any more.")
    run.decide()
    run.decisions.unanswered(ListWorkers(), error, run.now)
    assert run.fails() is error


# -- what is shown, and the loop


def test_run__shows_its_counts_its_sick_instances_and_its_outage() -> None:
    run = working()
    run.reports("a", shards={WHOLE.key: ShardLoad(left=0, weight=0, done=10, failed=1)}, outage="HTTP 503", sick=1)
    run.decide()
    assert run.shown == Show(10, 1, 1, "", 0.0, inferring=True)
    run.reports("b", outage="HTTP 503", outage_seconds=4.0, sick=1)
    run.decide()
    assert run.shown == Show(10, 1, 2, "HTTP 503", 0.0, inferring=True)
    run.decisions.stop(BY_HAND)
    run.decide()
    assert run.shown is not None and run.shown.outage == ""


class Written:
    """A fleet that lives through written events, one of which happens in each wait."""

    def __init__(self, run: Stepped, *events: Any) -> None:
        self.run = run
        self.events = list(events)
        self.did: list[Order] = []

    async def wait(self, pause: float, until: float) -> float:
        self.events.pop(0)()
        return self.run.now

    def do(self, order: Order) -> None:
        self.did.append(order)


def test_loop__carries_out_all_that_was_ordered_up_to_the_end() -> None:
    run = working()

    def end() -> None:
        run.reports("b", error="it died")
        run.decisions.ended(WHOLE.key, done(WHOLE))

    fleet = Written(run, end)
    assert asyncio.run(run.decisions.direct(fleet)) == [done(WHOLE)]
    assert fleet.did == [Warn("instance-1 given up: it died"), Show(100, 0, 1, "", 0.0, inferring=True)]


def test_loop__raises_the_error_of_the_run_after_the_warnings() -> None:
    run = Stepped(1)
    run.joins("a")
    fleet = Written(run, lambda: run.reports("a", error="it died"))
    with pytest.raises(ModelServerError, match="it died"):
        asyncio.run(run.decisions.direct(fleet))
    assert fleet.did == [Warn("instance-0 given up: it died")]
