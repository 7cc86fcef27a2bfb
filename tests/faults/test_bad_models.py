"""Model servers that hang, leak memory, are overloaded, or die of one item: only the items at fault fail."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from faults.corpus import Corpus
from faults.scenario import FlowRun, Scenario, assert_nothing_lost

pytestmark = [pytest.mark.slow, pytest.mark.prefect]

Begin = Callable[..., FlowRun]


def test_model__that_is_overloaded_for_a_while_and_never_answers_some_items_costs_those_only(
    scenario: Scenario, begin: Begin
) -> None:
    hang = ("FAIL:hang", r"The model did not answer: .*\(tried 2 times\)\.")
    scenario.environment["THRESHER_REQUEST_TIMEOUT_SECONDS"] = "4"
    overloaded = dict.fromkeys((3, 4, 5, 6, 300, 301, 302, 518), "FAIL:429:1:2")
    scenario.prepare(Corpus(overloaded, dict.fromkeys((10, 150, 519), hang)))
    summary = assert_nothing_lost(begin(scenario).wait())
    assert summary["retries"] >= 16 + 3
    assert summary["model_server_deaths"] == 0


def test_model__that_leaks_memory_is_ended_at_its_limit_and_started_again(
    scenario: Scenario, begin: Begin, tmp_path: Path
) -> None:
    pools = tmp_path / "pools"
    pools.mkdir()
    (pools / "small.yaml").write_text("name: small\nflavors:\n  - {name: tiny, cpu: 1, memory_gb: 0.25}\n")
    scenario.environment["THRESHER_POOLS"] = str(pools)
    scenario.prepare(Corpus(dict.fromkeys(range(100, 500, 50), "FAIL:leak:60")), resource_pool="small")
    summary = assert_nothing_lost(begin(scenario).wait())
    assert summary["model_server_deaths"] >= 1


def test_model__that_dies_of_two_items_loses_these_alone(scenario: Scenario, begin: Begin) -> None:
    deadly = ("FAIL:die", "model server died 3 times on this item")
    scenario.prepare(Corpus(failing={120: deadly, 400: deadly}))
    summary = assert_nothing_lost(begin(scenario).wait())
    assert 3 <= summary["model_server_deaths"] <= 6
