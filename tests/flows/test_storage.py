"""Runs whose input, output and package lie in buckets of a real S3 server, as s3:// and as obs://."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes.s3_server import S3Server
from prefect.blocks.system import Secret

from tasks.domain.errors import SpecificationError
from tasks.domain.run import RunFailed

pytestmark = pytest.mark.prefect

NAMES = ("1.jpg", "a b/汉字 #1?.jpg", "sub/1.jpg", "sub/deep/100%.jpg")


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with S3Server(tmp_path_factory.mktemp("s3") / "objects") as server:
        for name in NAMES:
            server.put("data", f"in/{name}", f"picture {name}".encode())
        server.put("data", "in/sub/bad.jpg", b"FAIL:404")
        server.put("data", "in/_SUCCESS", b"")
        yield server


@pytest.fixture
def output(s3: S3Server, request: pytest.FixtureRequest) -> str:
    """A folder of its own for each test, in a bucket that exists."""
    s3.make_bucket("results")
    return f"results/{request.node.name.replace('[', '-').rstrip(']')}"


def manifest_of(s3: S3Server, output: str, task_id: str) -> list[dict[str, str]]:
    """The output manifest's lines."""
    bucket, _, folder = output.partition("/")
    text = s3.get(bucket, f"{folder}/infer-result-{task_id}.manifest").decode()
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize("scheme", ["s3", "obs"])
def test_buckets__hold_input_and_output_under_the_scheme_that_was_given(
    run_service: Any, running: dict[str, str], s3: S3Server, output: str, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    for name, value in s3.environment("AWS" if scheme == "s3" else "OBS").items():
        monkeypatch.setenv(name, value)
    ran = run_service(input_path=f"{scheme}://data/in", output_path=f"{scheme}://{output}", **running)
    assert (ran.state, ran.result.successful, ran.result.failed) == ("Completed", 4, 1)
    folder = f"infer-result-{ran.task_id}"
    lines = manifest_of(s3, output, ran.task_id)
    assert [one["source"] for one in lines] == [
        f"{scheme}://data/in/{name}" for name in sorted([*NAMES, "sub/bad.jpg"])
    ]
    good = {name: f"{folder}/{name}_result.txt" for name in NAMES}
    for line in lines:
        name = line["source"].removeprefix(f"{scheme}://data/in/")
        assert line.get("inference-loc") == (f"{scheme}://{output}/{good[name]}" if name in good else None)
    prefix = output.partition("/")[2]
    # Everything is there, and nothing else: no scratch folder is left.
    assert s3.keys("results", f"{prefix}/") == sorted(
        f"{prefix}/{name}" for name in (*good.values(), f"{folder}.manifest", f"{folder}.summary.json")
    )
    assert json.loads(s3.get("results", f"{prefix}/{good['1.jpg']}"))["ok"] is True
    assert ran.result.manifest == f"{scheme}://{output}/{folder}.manifest"
    secret = s3.secret_key
    assert secret not in "\n".join(ran.logs) and secret not in json.dumps(ran.ask(f"/flow_runs/{ran.task_id}"))


def test_buckets__of_both_schemes_meet_in_one_manifest(
    run_service: Any,
    running: dict[str, str],
    s3: S3Server,
    output: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    for name, value in (s3.environment("AWS") | s3.environment("OBS")).items():
        monkeypatch.setenv(name, value)
    (tmp_path / "local.jpg").write_text("x")
    sources = [
        "obs://data/in/1.jpg", "s3://data/in/sub/1.jpg", "s3://data/in/missing.jpg", "s3://nobucket/1.jpg",
        "s3://data/in/sub/", "local.jpg", "s3://data/in/a b/汉字 #1?.jpg",
    ]  # fmt: skip
    s3.put("data", "lists/in.manifest", "".join(json.dumps({"source": one}) + "\n" for one in sources).encode())
    ran = run_service(input_path="obs://data/lists/in.manifest", output_path=f"s3://{output}", **running)
    assert ran.state == "Completed"
    lines = manifest_of(s3, output, ran.task_id)
    assert [one["source"] for one in lines] == sources
    said = [one.get("error_message", "") for one in lines]
    assert (said[0], said[1], said[6]) == ("", "", "")
    assert said[2].startswith("Download file failed. There is no such object (HTTP 404")
    assert said[3].startswith("Download file failed. There is no such bucket")
    assert said[4] == "Download file failed. It is a folder; a manifest names files."
    assert said[5] == "Download file failed. A local path may stand only in a manifest on a local disk."
    locations = [one["inference-loc"] for one in lines if "inference-loc" in one]
    assert len(set(locations)) == 3 and all(one.startswith(f"s3://{output}/infer-result-") for one in locations)


@pytest.mark.parametrize("scheme", ["s3", "obs"])
def test_keys__may_come_from_a_secret_block(
    run_service: Any, running: dict[str, str], s3: S3Server, output: str, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    value = {"endpoint_url": s3.endpoint, "access_key_id": s3.access_key, "secret_access_key": s3.secret_key}
    Secret(value=value).save(f"keys-{scheme}", overwrite=True)
    monkeypatch.setenv(f"THRESHER_{scheme.upper()}_CREDENTIALS_BLOCK", f"keys-{scheme}")
    ran = run_service(input_path=f"{scheme}://data/in", output_path=f"{scheme}://{output}", **running)
    assert (ran.state, len(manifest_of(s3, output, ran.task_id))) == ("Completed", 5)
    told = json.dumps([ran.logs, ran.tasks, ran.ask(f"/flow_runs/{ran.task_id}")])
    assert s3.secret_key not in told


@pytest.mark.parametrize("held", [None, "just a text"])
def test_keys__in_a_block_that_is_missing_or_wrong_are_named(
    run_service: Any, running: dict[str, str], monkeypatch: pytest.MonkeyPatch, held: str | None
) -> None:
    if held:
        Secret(value=held).save("keys-wrong", overwrite=True)
    monkeypatch.setenv("THRESHER_S3_CREDENTIALS_BLOCK", "keys-wrong" if held else "keys-nowhere")
    ran = run_service(input_path="s3://data/in", output_path="s3://results/x", **running)
    assert (ran.state, type(ran.error)) == ("Failed", SpecificationError)
    assert "THRESHER_S3_CREDENTIALS_BLOCK" in str(ran.error)


@pytest.mark.parametrize("wrong", ["secret", "key", "none"])
def test_keys__that_are_wrong_bring_one_clear_message_without_the_secret(
    run_service: Any, running: dict[str, str], s3: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, wrong: str
) -> None:
    environment = s3.environment()
    if wrong == "none":
        environment = {"AWS_ENDPOINT_URL": s3.endpoint}
        monkeypatch.setenv("HOME", str(tmp_path))  # no profile of whoever runs the tests
    else:
        name = "AWS_SECRET_ACCESS_KEY" if wrong == "secret" else "AWS_ACCESS_KEY_ID"
        environment[name] = "not-the-right-one-4711"
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    ran = run_service(input_path="s3://data/in", **running)
    assert (ran.state, type(ran.error)) == ("Failed", SpecificationError)
    assert "(1 problem)" in str(ran.error)
    assert "input_path = 's3://data/in': " in str(ran.error)
    assert ("There are no keys for this storage" if wrong == "none" else "No permission (HTTP 403") in str(ran.error)
    told = str(ran.error) + "\n".join(ran.logs)
    assert "4711" not in told and s3.secret_key not in told and "Traceback" not in told


def test_package__in_a_bucket_is_copied_and_served(
    run_service: Any, package: Any, s3: S3Server, output: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in s3.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("THRESHER_CACHE", str(tmp_path / "cache"))
    home = package()
    for name in ("config.json", "run.sh"):
        s3.put("models", f"fake/1/{name}", (home / name).read_bytes())
    s3.put("models", "fake/1/weights/w.bin", b"weights")
    ran = run_service(model="s3://models/fake/1", input_path="s3://data/in", output_path=f"s3://{output}")
    assert (ran.state, ran.result.successful, ran.result.failed) == ("Completed", 4, 1)
    assert [path.read_bytes() for path in (tmp_path / "cache" / "packages").glob("*/weights/w.bin")] == [b"weights"]


def test_storage__that_is_gone_in_the_middle_fails_items_and_then_the_run(
    run_service: Any, running: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The input is a manifest on the local disk, so that only its items need the storage.
    monkeypatch.setenv("THRESHER_STORAGE_RETRY_SECONDS", "2")
    with S3Server(tmp_path / "gone") as other:
        for name, value in other.environment().items():
            monkeypatch.setenv(name, value)
        other.put("data", "1.jpg", b"x")
    (tmp_path / "in.manifest").write_text('{"source": "s3://data/1.jpg"}\n')
    ran = run_service(input_path=str(tmp_path / "in.manifest"), **running)
    assert (ran.state, type(ran.error)) == ("Failed", RunFailed)
    said = f"Download file failed. The storage {other.endpoint} cannot be reached: connection refused."
    assert ran.messages == {"1.jpg": said}
