"""A plan that is there already, and a run that has published, on every kind of storage."""

from __future__ import annotations

import json

import pytest
from clients.places import Place
from engine.runs import make_run, output_of

from tasks.clients.storage import Storage
from tasks.domain.errors import SpecificationError, StorageError
from tasks.domain.run import PLAN_NAME, Plan, Run
from tasks.engine.planning import make_plan
from tasks.settings import Settings


@pytest.fixture
def run(place: Place) -> Run:
    """A run over a manifest with a package, both on the storage that it writes to."""
    place.put("in/some.manifest", b'{"source": "s3://bucket/1.jpg"}\n{"source": "s3://bucket/2.jpg"}\n')
    place.put("package/run.sh", b"exec serve\n")
    place.put("package/weights/1.bin", b"weights")
    root = place.root
    made = make_run(str(root.child("package")), str(root.child("out")), package=str(root.child("package")))
    source = {"input_path": str(root.child("in/some.manifest"))}
    return made.model_copy(update={"service": made.service.model_copy(update=source)})


def plan(place: Place, run: Run) -> Plan:
    async def work(storage: Storage) -> Plan:
        return await make_plan(run, Settings(), storage, output_of(run, storage))

    return place.do(work)


def test_plan__is_kept_while_nothing_has_changed(place: Place, run: Run) -> None:
    first = plan(place, run)
    place.put("package/server.log", b"what a model server has written into its package")
    faster = run.service.model_copy(update={"instances": 8, "environment": {"A": "1"}, "rows_per_request": 10})
    assert plan(place, run.model_copy(update={"service": faster})) == first
    assert first.items == 2 and json.loads(place.get(f"out/{run.names.scratch}/{PLAN_NAME}"))["fingerprint"]


@pytest.mark.parametrize(
    ("file", "data", "field"),
    [
        ("in/some.manifest", b'{"source": "s3://bucket/1.jpg"}\n', "input manifest"),
        ("package/run.sh", b"exec other\n", "package code"),
        ("package/weights/1.bin", b"others!!", "package files"),
        ("package/weights/2.bin", b"", "package files"),
    ],
)
def test_plan__is_not_kept_and_stays_when_a_file_has_changed(
    place: Place, run: Run, file: str, data: bytes, field: str
) -> None:
    first = plan(place, run)
    before = {name: place.get(name) for name in place.names()}
    place.put(file, data)
    with pytest.raises(SpecificationError) as refused:
        plan(place, run)
    assert [one.field for one in refused.value.problems] == [f"run {run.task_id}", field]
    assert {name: place.get(name) for name in place.names()} == {**before, file: data}
    if file in before:
        place.put(file, before[file])
        assert plan(place, run) == first


def test_plan__that_nobody_could_have_written_is_told(place: Place, run: Run) -> None:
    plan(place, run)
    place.put(f"out/{run.names.scratch}/{PLAN_NAME}", b'{"items": "many"}')
    with pytest.raises(StorageError, match=r"plan\.json is no plan"):
        plan(place, run)


def test_plan__of_a_run_that_has_published_is_its_result(place: Place, run: Run) -> None:
    plan(place, run)
    manifest = str(run.output_address.child(run.names.manifest(0)))
    summary = {
        "name": "tested", "items": {"planned": 5, "successful": 3, "failed": 2}, "seconds": {"plan": 1.5},
        "top_causes": [{"items": 2, "cause": "x"}], "manifests": [manifest], "warnings": ["w"], "failure": "f",
        "stopped": True,
    }  # fmt: skip
    place.put(f"out/{run.names.manifest(0)}", b"the manifest")
    with pytest.raises(StorageError, match=r"has published .*summary\.json cannot be read: "):
        plan(place, run)
    place.put(f"out/{run.names.summary}", b"{}")
    with pytest.raises(StorageError, match="it is not what Thresher has written"):
        plan(place, run)
    place.put(f"out/{run.names.summary}", json.dumps(summary).encode())
    made = plan(place, run)
    assert made.shards == () and made.published is not None
    found = made.published.model_dump()
    assert found == {
        **{name: summary[name] for name in ("name", "seconds", "failure", "stopped")},
        "task_id": run.task_id, "manifest": manifest, "manifests": (manifest,), "items": 5, "successful": 3,
        "failed": 2, "summary": str(run.output_address.child(run.names.summary)), "warnings": ("w",),
        "top_causes": ({"items": 2, "cause": "x"},),
    }  # fmt: skip
    # The scratch folder is of no use any more; nothing else is touched.
    assert sorted(name for name in place.names() if name.startswith(("out/", ".infer", "infer"))) == sorted(
        [f"out/{run.names.manifest(0)}", f"out/{run.names.summary}"]
    )
