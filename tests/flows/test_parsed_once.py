"""The specification, the model's config.json and the mapping are read once a run, not once a shard or an item."""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tasks.domain import header, service
from tasks.domain.service import BatchService
from tasks.engine import checking


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often a specification (with headers), a config.json and a mapping rule were read in this process."""
    found: Counter[str] = Counter()

    def counted(subject: str, read: Callable[..., Any]) -> Callable[..., Any]:
        def reading(*arguments: Any, **named: Any) -> Any:
            found[subject] += 1
            return read(*arguments, **named)

        return reading

    monkeypatch.setattr(service, "header_texts", counted("specification", service.header_texts))
    monkeypatch.setattr(checking, "parse_config", counted("config.json", checking.parse_config))
    monkeypatch.setattr(header, "Mapping", counted("mapping", header.Mapping))
    return found


@pytest.mark.prefect
def test_run__reads_what_it_is_given_once_for_all_its_shards(
    run_service: Any,
    running: dict[str, str],
    tmp_path: Path,
    write_files: Any,
    parsed: Counter[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("THRESHER_SHARD_ITEMS", "2")
    tables = write_files(tmp_path / "in", {f"{number}.csv": "1,2\n3,4\n" for number in range(8)})
    ran = run_service(input_path=str(tables), request_path="/iris", headers={"X-Team": "red"}, **running)
    assert ran.state == "Completed", ran.error
    assert (ran.summary["shards"], ran.summary["rows"]["successful"]) == (4, 16)
    # The mapping is also checked before the run begins.
    assert parsed == {"specification": 1, "config.json": 1, "mapping": 2}


def test_specification__is_not_read_again_when_it_is_passed_to_another_process(parsed: Counter[str]) -> None:
    given = BatchService(model="http://h", input_path="/in", output_path="/out", headers={"X-Team": "red"})
    assert pickle.loads(pickle.dumps(given)) == given
    assert BatchService.model_validate(given) is given
    assert parsed == {"specification": 1}
