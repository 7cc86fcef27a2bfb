"""Sharing out, with instances that are played: each begins items at its own rate, and few of them behave well."""

from __future__ import annotations

import random

import pytest
from domain.plays import ASK_SECONDS, NEVER, Play, Played
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.domain.run import ShardDone, ShardRef
from tasks.domain.sharing import Give, InstanceReport, ShardLoad, Sharing, TakeBack, run_loss, run_outage
from tasks.domain.stop import Stop

MIB = 1 << 20


@pytest.mark.parametrize("shards", [1, 3, 40])
def test_sharing__with_one_instance_four_times_slower_takes_little_more_than_the_ideal(shards: int) -> None:
    play = Play(
        [Played(item_seconds=0.02), Played(item_seconds=0.02), Played(item_seconds=0.02), Played(item_seconds=0.08)],
        4000,
        shards,
    )
    ideal = 4000 / (3 / 0.02 + 1 / 0.08)
    assert play.run() <= 1.15 * ideal


def test_sharing__of_one_shard_among_many_instances_keeps_all_busy() -> None:
    play = Play([Played(item_seconds=0.5) for _ in range(32)], 5000)
    assert play.run() <= 1.15 * 5000 * 0.5 / 32


def test_sharing__does_not_wait_for_an_instance_that_starts_late_or_never() -> None:
    late = Play([Played(item_seconds=0.05), Played(item_seconds=0.05, ready_at=60)], 4000)
    ideal = 60 + (4000 - 60 / 0.05) * 0.05 / 2
    assert late.run() <= 1.15 * ideal
    never = Play([Played(item_seconds=0.05), Played(item_seconds=0.05, ready_at=1e9)], 400)
    assert never.run() <= 1.15 * 400 * 0.05


def test_sharing__goes_on_when_an_instance_is_lost() -> None:
    play = Play([Played(item_seconds=0.05), Played(item_seconds=0.05), Played(item_seconds=0.05, lost_at=10)], 3000, 2)
    ideal = 10 + (3000 - 3 * 10 / 0.05) * 0.05 / 2
    assert play.run() <= 1.15 * ideal


def test_sharing__hands_over_seldom() -> None:
    play = Play([Played(item_seconds=0.02) for _ in range(4)], 20_000, 4)
    play.run()
    assert play.handed_over <= 40


def test_sharing__gives_shards_one_after_the_other_while_they_wait() -> None:
    play = Play([Played(item_seconds=0.01), Played(item_seconds=0.01)], 4000, 100)
    play.run()
    assert play.handed_over <= 110


# -- hostile plays


def test_sharing__of_fewer_items_than_instances_gives_each_item_once() -> None:
    for items in (1, 2, 5):
        play = Play([Played(item_seconds=10) for _ in range(128)], items)
        assert play.run() <= 10 * 2 + 5
        assert play.handed_over <= 2 * items


def test_sharing__of_as_many_items_as_instances_keeps_all_busy() -> None:
    play = Play([Played(item_seconds=20) for _ in range(128)], 130)
    assert play.run() <= 20 * 2 + 5
    assert play.handed_over <= 3 * 130


def test_sharing__goes_on_around_instances_that_stall_for_a_while() -> None:
    stalls = [(10.0, 40.0)]
    for silent in (False, True):
        play = Play([*[Played() for _ in range(7)], Played(stalls=stalls, silent=silent)], 8 * 1200)
        ideal = (8 * 1200 + 30 / 0.05) * 0.05 / 8
        assert play.run() <= 1.15 * ideal + (30 if silent else 0)


def test_sharing__of_bursts_hands_over_seldom() -> None:
    # Each works for a second, and nothing is heard to be done for four.
    stalls = [(5.0 * number + 1, 5.0 * number + 5) for number in range(200)]
    play = Play([Played(item_seconds=0.01, stalls=stalls) for _ in range(8)], 8 * 4000)
    assert play.run() <= 1.2 * 4000 * 0.01 * 5
    assert play.handed_over <= 100


def test_sharing__of_very_uneven_items_leaves_nobody_idle() -> None:
    sizes = [12 * MIB if number % 100 == 50 else 2_000 for number in range(4000)]
    instances = [Played(item_seconds=0.02, mib_seconds=0.5) for _ in range(8)]
    play = Play(instances, sizes, 4)
    ideal = sum(instances[0].seconds(item, 0) for item in play.items) / 8
    assert play.run() <= 1.15 * ideal + 6
    assert play.wasted_seconds <= 0.1 * 8 * ideal


def test_sharing__of_items_whose_size_says_nothing_of_their_work_leaves_nobody_idle_for_long() -> None:
    sizes = [12 * MIB if number % 100 == 50 else 0 for number in range(4000)]
    play = Play([Played(item_seconds=0.1) for _ in range(8)], sizes, 4)
    assert play.run() <= 1.3 * 4000 * 0.1 / 8


def test_sharing__follows_rates_that_change() -> None:
    slower, faster = [(20.0, 8.0)], [(0.0, 8.0), (20.0, 1.0)]
    instances = [*[Played(changes=slower) for _ in range(4)], *[Played(changes=faster) for _ in range(4)]]
    play = Play(instances, 8000)
    rate = 4 * 20 + 4 * 20 / 8
    assert play.run() <= 1.15 * 8000 / rate
    assert play.wasted_seconds <= 0.05 * 8 * 8000 / rate


def test_sharing__takes_from_an_instance_that_is_not_ready_any_more_all_that_it_has_not_begun() -> None:
    play = Play([Played(), Played(), Played(unready_at=10, gives_up_at=60)], 3000)
    ideal = 10 + (3000 - 30 / 0.05) * 0.05 / 2
    # Only what it had begun is left for when it is given up.
    assert play.run() <= max(1.15 * ideal, 65)


@pytest.mark.parametrize("answer_seconds", [0.5, 5.0, 29.0, 31.0])
def test_sharing__goes_on_with_answers_that_come_late_or_never(answer_seconds: float) -> None:
    instances = [Played(answer_seconds=[answer_seconds]), *[Played() for _ in range(7)]]
    play = Play(instances, 8 * 1000)
    assert play.run() <= 1.15 * 1000 * 0.05 + min(ASK_SECONDS, answer_seconds) * 1.1 + 5


def test_sharing__hands_over_as_often_as_instances_and_shards_ask_for() -> None:
    chance = random.Random(7)
    for count in (4, 32, 128):
        instances = [Played(item_seconds=0.05 * chance.choice([1, 1, 2, 4])) for _ in range(count)]
        play = Play(instances, count * 300)
        play.run()
        assert play.handed_over <= 8 * count
        assert play.asked <= 8 * count


moments = st.floats(0, 60)
answers = st.lists(st.sampled_from([0.0, 1.0, 20.0, 40.0]), min_size=1, max_size=3)
played = st.builds(
    Played,
    item_seconds=st.sampled_from([0.1, 0.5, 3.0]),
    mib_seconds=st.sampled_from([0.0, 1.0]),
    ready_at=st.sampled_from([0.0, 7.0, 40.0]),
    lost_at=st.one_of(st.just(NEVER), st.just(NEVER), moments),
    unready_at=st.one_of(st.just(NEVER), st.just(NEVER), moments),
    gives_up_at=st.just(100.0),
    stalls=st.lists(st.tuples(moments, st.floats(1, 50)).map(lambda at: (at[0], at[0] + at[1])), max_size=1),
    silent=st.booleans(),
    answer_seconds=answers,
)
sizes = st.builds(
    lambda count, seed, large: random.Random(seed).choices([0, 1000, 12 * MIB], [10, 10, large], k=count),
    st.integers(1, 400), st.integers(0, 99), st.sampled_from([0, 1, 20]),
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.lists(played, min_size=1, max_size=6), sizes, st.integers(1, 12), answers)
def test_sharing__loses_no_item_and_does_none_twice_whatever_the_instances_do(
    instances: list[Played], drawn: list[int], shards: int, answer_seconds: list[float]
) -> None:
    # One that is slow, but always there, ends it.
    play = Play([Played(item_seconds=1, answer_seconds=answer_seconds), *instances], drawn, min(shards, len(drawn)))
    play.run()
    assert play.handed_over <= 30 + 4 * len(drawn)


def test_sharing__an_instance_that_failed_a_shard_gets_none_before_it_has_reported_again() -> None:
    sharing = Sharing([ref(0, 100)])
    sharing.heard("a", InstanceReport(seconds=0, ready=True))
    assert sharing.moves() == [Give("a", ref(0, 100))]
    sharing.failed(ref(0, 100).key)
    assert sharing.moves() == []
    sharing.heard("a", InstanceReport(seconds=1, ready=True))
    assert sharing.moves() == [Give("a", ref(0, 100))]


# -- answers out of their order


def ref(first: int, end: int) -> ShardRef:
    return ShardRef(number=0, first_item=first, items=end - first, bytes=0)


def done(first: int, end: int) -> ShardDone:
    return ShardDone(shard=ref(first, end), report="", successful=end - first, failed=0, started_at=0, ended_at=0)


def asked(*, ready: bool = True) -> Sharing:
    """A shard of 100 items at "a", of which it was asked for a part, since "b" has nothing to do."""
    sharing = Sharing([ref(0, 100)])
    sharing.heard("a", InstanceReport(seconds=0, ready=True))
    assert sharing.moves() == [Give("a", ref(0, 100))]
    load = ShardLoad(left=90, weight=90, done=10, failed=0)
    sharing.heard("a", InstanceReport(seconds=1, ready=ready, shards={"00000-0": load}))
    sharing.heard("b", InstanceReport(seconds=1, ready=True))
    (back,) = sharing.moves()
    assert isinstance(back, TakeBack) and back.instance == "a"
    return sharing


def given_after(sharing: Sharing) -> list[tuple[int, int]]:
    """What "b", and whoever comes after, is given from now on."""
    found = []
    for number in range(10):
        sharing.heard(f"c{number}", InstanceReport(seconds=1, ready=True))
        found += [move.shard for move in sharing.moves() if isinstance(move, Give)]
    return sorted((shard.first_item, shard.end) for shard in found)


def test_answer__that_comes_after_the_end_of_its_shard_changes_nothing() -> None:
    sharing = asked()
    sharing.ended("00000-0", done(0, 50))
    sharing.handed_back("00000-0", [ref(50, 75), ref(75, 100)])
    assert given_after(sharing) == [(50, 100)]


def test_answer__that_was_not_heard_is_known_from_the_next_one() -> None:
    sharing = asked()
    sharing.handed_back("00000-0", [])  # in truth 60-99 were handed back
    sharing.handed_back("00000-0", [ref(30, 40), ref(40, 60)])
    assert given_after(sharing) == [(30, 40), (40, 60), (60, 100)]
    sharing.ended("00000-0", done(0, 30))
    assert not sharing.finished
    for first, end in ((30, 40), (40, 60), (60, 100)):
        sharing.ended(f"00000-{first}", done(first, end))
    assert sharing.finished
    assert sharing.counts == (100, 0)


def test_answer__that_was_not_heard_is_known_from_the_next_report() -> None:
    sharing = asked()
    load = ShardLoad(left=20, weight=20, done=10, failed=0, end=60)
    report = InstanceReport(seconds=2, ready=True, shards={"00000-0": load})
    sharing.heard("a", report)  # the answer may still come
    assert given_after(sharing) == []
    sharing.handed_back("00000-0", [])
    sharing.heard("a", report)
    assert given_after(sharing) == [(60, 100)]
    sharing.handed_back("00000-0", [ref(60, 80), ref(80, 100)])
    assert given_after(sharing) == []


def test_answer__that_is_heard_twice_counts_once() -> None:
    sharing = asked()
    for _ in range(2):
        sharing.handed_back("00000-0", [ref(60, 100)])
    assert given_after(sharing) == [(60, 100)]


def test_shard__that_an_instance_could_not_go_on_with_is_given_to_another() -> None:
    sharing = asked(ready=False)
    sharing.failed("00000-0")
    assert given_after(sharing) == [(0, 100)]


def test_shard__that_comes_from_a_lost_instance_is_counted_once() -> None:
    sharing = asked()
    load = ShardLoad(left=80, weight=80, done=20, failed=1)
    sharing.lost("a")
    sharing.failed("00000-0")
    sharing.heard("b", InstanceReport(seconds=2, ready=True))
    assert sharing.moves() == [Give("b", ref(0, 100))]
    sharing.heard("b", InstanceReport(seconds=3, ready=True, shards={"00000-0": load}))
    assert sharing.counts == (20, 1)
    # The lost one is back and still has it, further than the other: it is not its business any more.
    further = ShardLoad(left=10, weight=10, done=90, failed=5, end=50)
    sharing.heard("a", InstanceReport(seconds=3, ready=True, shards={"00000-0": further}))
    sharing.heard("c", InstanceReport(seconds=2, ready=True, shards={"00000-0": load}))
    assert sharing.counts == (20, 1)
    sharing.ended("00000-0", done(0, 100))
    assert (sharing.counts, sharing.finished) == ((100, 0), True)
    sharing.heard("c", InstanceReport(seconds=3, ready=True, shards={"00000-0": load}))  # seen before it ended
    assert sharing.counts == (100, 0)


def test_run__waits_for_its_model_servers_while_none_that_is_left_takes_requests() -> None:
    takes = InstanceReport(seconds=1, ready=True)
    out = [InstanceReport(seconds=1, ready=True, outage="HTTP 503", outage_seconds=seconds) for seconds in (9.0, 4.0)]
    lost = InstanceReport(seconds=1, ready=False, error="died")
    assert run_outage([*out, takes]) == run_outage([lost]) == run_outage([]) == ("", 0.0)
    assert run_outage([*out, lost]) == ("HTTP 503", 4.0)


def test_run__stops_for_its_outage_if_no_instance_has_died() -> None:
    away = {0: "x is away", 1: "y is away"}
    assert run_loss(away, away) == Stop(reason="outage", cause="x is away", resumable=True)
    died = run_loss({0: "x is away", 1: "died\nlog"}, {0: "x is away"})
    assert died == Stop(reason="no instance", cause="no instance is left: died", resumable=True)
    assert not run_loss({0: "died"}, {}).resumable
