"""A plan that is there already, and a run that has published, on every kind of storage."""

from __future__ import annotations

import json

import pytest
from clients.places import Place
from engine.runs import make_run, output_of

from tasks.clients.storage.storage import Storage
from tasks.clients.tables import read_plan
from tasks.domain.errors import SpecificationError, StorageError
from tasks.domain.run import PLAN_NAME, Plan, Run, RunResult
from tasks.domain.seal import seal
from tasks.domain.settings import Settings
from tasks.engine.planning import make_plan
from tasks.engine.stored_plan import sealed_part, sealed_plan


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
    assert first.items == 2 and b'"fingerprint":{"' in place.get(f"out/{run.names.scratch}/{PLAN_NAME}")


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


DAMAGES = {
    "empty": lambda data: b"",
    "cut": lambda data: data[: len(data) // 2],
    "one byte": lambda data: data[:40] + bytes([data[40] ^ 1]) + data[41:],
    "foreign": lambda data: seal(unseal_any(data), "another run"),
    "of another version": lambda data: seal(b'{"items": "many"}', ""),
    "sealed nonsense": lambda data: b"no table",
}


def unseal_any(data: bytes) -> bytes:
    return data.rpartition(b"\nTHRESHER-1 ")[0]


@pytest.mark.parametrize("damage", DAMAGES)
def test_plan__that_is_damaged_is_made_again_unless_something_was_done_by_it(
    place: Place, run: Run, damage: str
) -> None:
    first = plan(place, run)
    name = f"out/{run.names.scratch}/{PLAN_NAME}"
    whole = place.get(name)
    place.put(name, DAMAGES[damage](whole))
    again = plan(place, run)
    assert again.shards == first.shards and place.get(name) != DAMAGES[damage](whole)
    place.put(f"out/{run.names.scratch}/shards/00000/part-0-aa-1.parquet", b"")
    place.put(name, DAMAGES[damage](whole))
    with pytest.raises(StorageError, match=r"plan\.json is no plan \(it .*\): remove .* to begin again") as told:
        plan(place, run)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("damage", DAMAGES)
def test_part_of_a_plan__that_is_damaged_is_made_again_from_the_input(place: Place, run: Run, damage: str) -> None:
    first = plan(place, run)
    name = f"out/{run.names.scratch}/{first.shards[0].plan_name}"
    whole = place.get(name)
    place.put(name, DAMAGES[damage](whole))
    assert plan(place, run) == first
    assert place.get(name) == whole


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"address": "/etc/passwd", "source": "/etc/passwd"}, "does not fit the run's input"),
        ({"source": "s3://bucket/other.jpg"}, "does not fit the run's input"),
        ({"result_name": "../../other_result.txt"}, "outside of its folder"),
        ({"result_name": "/etc/other"}, "outside of its folder"),
        ({"result_name": "other_result.txt"}, "does not fit the run's input"),
    ],
)
def test_plan__that_others_have_changed_is_not_used(place: Place, run: Run, change: dict[str, str], told: str) -> None:
    made = plan(place, run)
    forge(place, run, made, change)
    with pytest.raises(StorageError, match=told):
        plan(place, run)


def test_plan__of_a_folder_that_others_have_changed_is_not_used(place: Place, run: Run) -> None:
    folder = run.service.model_copy(update={"input_path": str(place.root.child("in"))})
    run = run.model_copy(update={"service": folder})
    place.put("in/a.bin", b"1")
    made = plan(place, run)
    assert plan(place, run) == made
    outside = str(place.root.child("package/run.sh"))
    forge(place, run, made, {"address": outside, "source": outside})
    with pytest.raises(StorageError, match=r"run\.sh', which is not in .*in: it was changed after"):
        plan(place, run)


@pytest.mark.parametrize("change", ["no digests", "published"])
def test_plan__that_would_skip_what_is_checked_is_not_used(place: Place, run: Run, change: str) -> None:
    made = plan(place, run)
    scratch = f"out/{run.names.scratch}"
    (shard,) = made.shards
    forged = made.model_copy(update={"shards": (shard.model_copy(update={"digest": ""}),)})
    if change == "published":
        manifest = str(run.output_address.child(run.names.manifest(0)))
        result = RunResult(
            task_id=run.task_id, name="tested", manifest=manifest, manifests=(manifest,), summary="", items=2,
            successful=2, failed=0, seconds={},
        )  # fmt: skip
        forged = made.model_copy(update={"published": result})
    place.put(f"{scratch}/{PLAN_NAME}", sealed_plan(run, forged))
    again = plan(place, run)
    assert again == made.model_copy(update={"seconds": again.seconds})
    place.put(f"{scratch}/{PLAN_NAME}", sealed_plan(run, forged))
    place.put(f"{scratch}/{shard.folder}/report-0-ab.parquet", b"something was done by it")
    with pytest.raises(StorageError, match=r"plan\.json is no plan \(it is not as a plan is written\)"):
        plan(place, run)


def forge(place: Place, run: Run, made: Plan, change: dict[str, str]) -> None:
    """Write a plan with other items and whole seals, as people can who may write into the output folder."""
    (shard,) = made.shards
    scratch = f"out/{run.names.scratch}"
    items = read_plan(place.get(f"{scratch}/{shard.plan_name}"), owner=shard.owner(run.task_id))
    items[0] = items[0]._replace(**change)
    ref, data = sealed_part(run, shard, items)
    place.put(f"{scratch}/{shard.plan_name}", data)
    place.put(f"{scratch}/{PLAN_NAME}", sealed_plan(run, made.model_copy(update={"shards": (ref,)})))


def test_plan__of_a_run_that_has_published_is_its_result(place: Place, run: Run) -> None:
    plan(place, run)
    manifest = str(run.output_address.child(run.names.manifest(0)))
    summary = {
        "name": "tested", "seconds": {"plan": 1.5},
        "items": {"planned": 5, "successful": 3, "failed": 2, "not_processed": 1},
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
        "failed": 2, "not_processed": 1, "warnings": ("w",), "top_causes": ({"items": 2, "cause": "x"},),
        "summary": str(run.output_address.child(run.names.summary)), "resumable": False,
    }  # fmt: skip
    # The scratch folder is of no use any more; nothing else is touched.
    assert sorted(name for name in place.names() if name.startswith(("out/", ".infer", "infer"))) == sorted(
        [f"out/{run.names.manifest(0)}", f"out/{run.names.summary}"]
    )
