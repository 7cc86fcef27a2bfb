"""``thresher models`` and the store: register from anywhere, list, show, delete, subscriptions."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from fakes.processes import die_with_parent
from fakes.s3_server import S3Server

from tasks.clients.packages.model_store import VERSION_FILE


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A package that only a pool of containers can run: registering it starts nothing."""
    home = tmp_path / "segment"
    home.mkdir()
    apis = [{"url": "/", "request": {"data": {"type": "object", "properties": {"images": {"type": "file"}}}}}]
    document = {"model_type": "Image", "swr_location": "registry.example.com/team/segment:1.0", "apis": apis}
    (home / "config.json").write_text(json.dumps(document))
    return home


def test_register__takes_a_package_from_object_storage_to_a_store_in_object_storage(
    command: Any, package: Any, tmp_path: Path
) -> None:
    home = package()
    with S3Server(tmp_path / "s3") as s3:
        env = {**s3.environment(), "THRESHER_MODEL_STORE": "s3://models/store", "THRESHER_CACHE": str(tmp_path / "c")}
        for path in home.iterdir():
            s3.put("packages", f"fakes/fake/{path.name}", path.read_bytes())
        done = command("models", "register", "s3://packages/fakes/fake", "--model-version", "1.2", env=env)
        assert (done.returncode, done.stdout) == (0, "fake 1.2 Normal\n"), done.stderr
        shown = json.loads(command("models", "show", "fake", "--json", env=env).stdout)
        assert (shown["state"], shown["folder"]) == ("Normal", "s3://models/store/my-models/fake/1.2")
        local = {**env, "THRESHER_MODEL_STORE": str(tmp_path / "store")}
        assert command("models", "register", home, "--name", "fake", env=local).returncode == 0
        here = json.loads(command("models", "show", "fake", "--json", env=local).stdout)
        assert shown["content"] == here["content"] and len(here["content"]) == 64

        done = command("models", "delete", "fake", "1.2", env=env)
        assert (done.returncode, done.stdout) == (0, "fake 1.2 deleted\n"), done.stderr
        assert command("models", "list", env=env).stdout == ""
        assert not [name for name in s3.keys("models") if "fake" in name]
        done = command("models", "register", "s3://packages/nothing", env=env)
        assert done.returncode == 2 and "there is nothing below this address" in done.stderr


def test_register__of_an_image_is_normal_by_its_config_json(command: Any, image: Path, tmp_path: Path) -> None:
    env = {"THRESHER_MODEL_STORE": str(tmp_path / "store")}
    done = command("models", "register", image, env=env)
    assert (done.returncode, done.stdout) == (0, "segment 0.0.1 Normal\n"), done.stderr
    (image / "config.json").write_text('{"model_type": "Image"}')
    done = command("models", "register", image, "--model-version", "0.0.2", env=env)
    assert (done.returncode, done.stdout) == (2, "") and "so nothing says how it is served" in done.stderr
    for bad in ("nowhere", "segment/config.json"):
        done = command("models", "register", bad, env=env)
        assert done.returncode == 2 and f"{bad}': " in done.stderr and "Traceback" not in done.stderr
    assert len(command("models", "list", env=env).stdout.splitlines()) == 1


def test_show_and_delete__of_versions(command: Any, image: Path, tmp_path: Path) -> None:
    env = {"THRESHER_MODEL_STORE": str(tmp_path / "store")}
    for version in ("1", "2", "10"):
        assert command("models", "register", image, "--model-version", version, env=env).returncode == 0
    shown = dict(line.split("\t") for line in command("models", "show", "segment", env=env).stdout.splitlines())
    assert (shown["version"], shown["source"], shown["state"], shown["files"]) == ("10", "my-models", "Normal", "1")
    assert "version\t2\n" in command("models", "show", "segment", "2", env=env).stdout
    done = command("models", "show", "segment", "3", env=env)
    assert done.returncode == 2 and "VERSION = '3': there is no such version; there are: 10, 2, 1" in done.stderr
    done = command("models", "delete", "nope", env=env)
    assert done.returncode == 2 and "NAME = 'nope': there is no such model; there are: segment" in done.stderr
    assert command("models", "delete", "segment", "10", env=env).stdout == "segment 10 deleted\n"
    assert json.loads(command("models", "show", "segment", "--json", env=env).stdout)["version"] == "2"
    done = command("models", "delete", "segment", env=env)
    assert done.stdout.splitlines() == ["segment 2 deleted", "segment 1 deleted"]
    assert command("models", "list", env=env).stdout == ""
    assert list((tmp_path / "store" / "my-models").iterdir()) == []


def test_subscribe__makes_the_models_of_another_store_usable_but_never_writes_there(
    command: Any, image: Path, package: Any, tmp_path: Path
) -> None:
    theirs = {"THRESHER_MODEL_STORE": str(tmp_path / "theirs")}
    ours = {"THRESHER_MODEL_STORE": str(tmp_path / "ours")}
    assert command("models", "register", package(), "--name", "fake", env=theirs).returncode == 0
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "theirs").rglob("*")}
    assert command("models", "register", image, env=ours).returncode == 0
    done = command("models", "subscribe", tmp_path / "theirs", env=ours)
    assert (done.returncode, done.stdout) == (0, "fake\t0.0.1\tNormal\n"), done.stderr
    listed = [line.split("\t")[:4] for line in command("models", "list", env=ours).stdout.splitlines()]
    assert listed == [["segment", "0.0.1", "Normal", "my-models"], ["fake", "0.0.1", "Normal", "my-subscriptions"]]

    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "1.jpg").write_bytes(b"picture")
    spec = tmp_path / "spec.yaml"
    spec.write_text("model: fake\nmodel_source: my-subscriptions\nrequest_path: /\ninput_path: in\noutput_path: out\n")
    done = command("validate", spec, "--json", env=ours)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["model"]["version"] == "0.0.1"
    done = command("models", "delete", "fake", env=ours)
    assert done.returncode == 2 and "is a subscription, which is only read" in done.stderr
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "theirs").rglob("*")} == before

    done = command("models", "subscribe", tmp_path / "theirs", "--remove", env=ours)
    assert done.returncode == 0 and "fake" not in command("models", "list", env=ours).stdout
    for address, said in (
        (tmp_path / "theirs", "there is no such subscription; there are: none"),
        (tmp_path / "nowhere", "should be a model store"), (tmp_path / "ours", "is your own model store"),
        ("ftp://x", "ftp"),
    ):  # fmt: skip
        more = ["--remove"] if said.startswith("there is") else []
        done = command("models", "subscribe", address, *more, env=ours)
        assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr


def test_register__of_a_version_that_another_process_registers_is_refused_until_that_is_killed(
    thresher: Any, command: Any, package: Any, image: Path, tmp_path: Path, poll: Any
) -> None:
    env = {"THRESHER_MODEL_STORE": str(tmp_path / "store")}
    arguments = ["models", "register", package("--health", "never"), "--name", "one"]
    process = subprocess.Popen(
        thresher.command(arguments), cwd=tmp_path, env=thresher.environment({**env, "TMPDIR": str(tmp_path)}),
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        preexec_fn=die_with_parent,
    )  # fmt: skip
    try:
        poll(lambda: [*(tmp_path / "store").rglob("run.sh")], "the copy in the store")
        for arguments in (["register", image, "--name", "one"], ["delete", "one", "0.0.1"]):
            done = command("models", *arguments, env=env)
            assert (done.returncode, done.stdout) == (2, "")
            assert "one 0.0.1 is being registered or deleted by another process at this moment" in done.stderr
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.communicate()
    (left,) = json.loads(command("models", "list", "--json", env=env).stdout)
    assert left["state"] == "Creating"
    done = command("models", "register", image, "--name", "one", env=env)
    assert (done.returncode, done.stdout) == (0, "one 0.0.1 Normal\n"), done.stderr
    assert {path.name for path in (tmp_path / "store/my-models/one/0.0.1").iterdir()} == {"config.json", VERSION_FILE}
