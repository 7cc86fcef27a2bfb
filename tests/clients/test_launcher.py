"""One instance from its package to its end: run.sh, health, output, environment."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests
from clients.support import FAKE_MODEL_SERVER, alive, processes_with, run
from fakes.processes import DEADLINE_SECONDS, poll

from tasks.clients.instances.launcher import Server, prepare
from tasks.domain.config_file import parse_config
from tasks.domain.errors import ModelServerError
from tasks.domain.instance import Launch
from tasks.domain.package import PackageConfig
from tasks.domain.settings import Settings

WritePackage = Callable[..., tuple[Path, PackageConfig]]


@pytest.fixture
def package(tmp_path: Path) -> WritePackage:
    """Writes a package of type Image whose run.sh starts the fake model server with these options."""

    def write(*options: str, before: str = "", health: dict[str, object] | None = None) -> tuple[Path, PackageConfig]:
        folder = tmp_path / "package"
        folder.mkdir()
        config = {"model_type": "Image", "apis": [{"url": "/"}], "health": health or {}}
        (folder / "config.json").write_text(json.dumps(config))
        server = f"exec {sys.executable} {FAKE_MODEL_SERVER} {' '.join(options)}"
        (folder / "run.sh").write_text(f"{before}\n{server}\n")
        return folder, parse_config((folder / "config.json").read_bytes(), "config.json")

    return write


async def launch_of(folder: Path, config: PackageConfig, given: dict[str, str] | None = None) -> Launch:
    return await prepare("boot-file", config, folder, folder.name, given or {}, settings_of(folder))


def settings_of(folder: Path) -> Settings:
    """Settings with a cache beside a package."""
    return Settings(cache=folder.parent / "cache")


async def started(folder: Path, config: PackageConfig, given: dict[str, str] | None = None) -> Server:
    return await Server.start(await launch_of(folder, config, given), folder.parent / "log")


async def answer_of(method: str, url: str, body: object = None) -> Any:
    """A JSON answer, asked for without the product."""
    return await asyncio.to_thread(lambda: requests.request(method, url, json=body, timeout=DEADLINE_SECONDS).json())


async def answers(server: Server) -> None:
    """Wait until the server answers at all."""

    def answer() -> bool:
        try:
            return requests.get(server.url, timeout=DEADLINE_SECONDS).status_code > 0
        except requests.ConnectionError:
            return False

    await asyncio.to_thread(poll, answer)


def test_run_sh__is_started_in_its_folder_and_asked_on_its_port(tmp_path: Path, package: WritePackage) -> None:
    folder, config = package(before='pwd; echo "port $PORT"')

    async def work() -> None:
        server = await started(folder, config)
        try:
            await server.ready(config.health)
            assert (await answer_of("GET", f"{server.url}/stats"))["starts"] == 1
            said = (tmp_path / "log").read_text().splitlines()
            assert said[:2] == [str(folder), f"port {server.url.rpartition(':')[2]}"]
            assert server.url.startswith("http://127.0.0.1:")
        finally:
            await server.stop()
        assert not server.running

    run(work())
    assert processes_with(str(folder)) == []


def test_health__that_comes_late_is_waited_for(tmp_path: Path, package: WritePackage) -> None:
    # Far less than a period: it is asked more often at first.
    folder, config = package("--health-when", str(tmp_path / "loaded"), health={"period_seconds": 3600})

    async def work() -> None:
        server = await started(folder, config)
        try:
            waiting = asyncio.create_task(server.ready(config.health))
            while server.health_detail != "HTTP 503":
                await asyncio.sleep(0.01)
            assert not waiting.done()
            (tmp_path / "loaded").touch()
            await asyncio.wait_for(waiting, DEADLINE_SECONDS)
        finally:
            await server.stop()

    run(work())


def test_health__never_given_ends_in_an_error_with_the_last_lines(package: WritePackage) -> None:
    folder, config = package(
        "--health", "never", before="echo the model is loaded from https://host/key?Signature=abc",
        health={"period_seconds": 0.1, "failure_threshold": 9, "initial_delay_seconds": 0.1},
    )  # fmt: skip

    async def work() -> str:
        server = await started(folder, config)
        try:
            await answers(server)  # its time is not spent on its start
            with pytest.raises(ModelServerError) as raised:
                await server.ready(config.health)
            return str(raised.value)
        finally:
            await server.stop()

    said = run(work())
    assert "did not become healthy within 1 s" in said
    assert "GET /health: HTTP 503" in said
    assert "    the model is loaded from https://host/key?...\n" in said
    assert "Signature" not in said
    assert "    model server listens on" in said
    assert processes_with(str(folder)) == []


def test_health__without_a_threshold_of_the_packages_own_is_bounded_by_the_caller_only(package: WritePackage) -> None:
    folder, config = package("--health", "never", health={"period_seconds": 0.01})

    async def work() -> None:
        server = await started(folder, config)
        try:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(server.ready(config.health), 1.5)
            assert server.running
        finally:
            await server.stop()

    run(work())


def test_health__is_asked_at_the_address_of_the_package(package: WritePackage) -> None:
    folder, config = package(health={"url": "stats"})

    async def work() -> dict[str, int]:
        server = await started(folder, config)
        try:
            await server.ready(config.health)
            found: dict[str, int] = (await answer_of("GET", f"{server.url}/stats"))["requests"]
            return found
        finally:
            await server.stop()

    assert "/health" not in run(work())


def test_server__that_exits_at_start_says_what_it_printed_last(package: WritePackage) -> None:
    folder, config = package("--exit-at-start", "3", before="for i in $(seq 60); do echo line $i; done")

    async def work() -> str:
        server = await started(folder, config)
        with pytest.raises(ModelServerError) as raised:
            await server.ready(config.health)
        await server.stop()
        return str(raised.value)

    said = run(work())
    assert said.startswith("The model server ended with status 3. It printed last:\n")
    assert said.endswith("    model server: exits at start, as asked")
    assert "line 60" in said
    assert "line 10\n" not in said
    assert len(said.splitlines()) == 21


def test_server__that_ends_without_a_word_says_so(package: WritePackage) -> None:
    folder, config = package(before="exit 0")

    async def work() -> str:
        server = await started(folder, config)
        with pytest.raises(ModelServerError) as raised:
            await server.ready(config.health)
        await server.stop()
        return str(raised.value)

    assert run(work()) == "The model server ended with status 0. It printed nothing."


@pytest.mark.parametrize("kind", ["child", "setsid"])
def test_stop__leaves_nothing_of_what_the_server_started(tmp_path: Path, package: WritePackage, kind: str) -> None:
    folder, config = package("--spawn-child", kind)

    async def work() -> int:
        server = await started(folder, config)
        await server.ready(config.health)
        child = int((tmp_path / "log").read_text().partition("child ")[2].split()[0])
        assert alive(child)
        await server.stop()
        return child

    assert not alive(run(work()))


def test_environment__holds_what_any_program_needs_and_what_the_service_gives(
    package: WritePackage, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, config = package(before="env > env.txt")
    for name in ("AWS_SECRET_ACCESS_KEY", "OBS_ACCESS_KEY_ID", "PREFECT_API_URL", "THRESHER_CACHE", "MY_SHELL"):
        monkeypatch.setenv(name, "not for the model")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setenv("LC_ALL", "C.UTF-8")

    async def work() -> None:
        server = await started(folder, config, {"GIVEN": "a value with = and 'quotes'", "AWS_REGION": "eu"})
        await server.ready(config.health)
        await server.stop()

    run(work())
    lines = (line for line in (folder / "env.txt").read_text().splitlines() if "=" in line)
    found = dict(line.split("=", 1) for line in lines)
    assert "not for the model" not in found.values()
    assert found["GIVEN"] == "a value with = and 'quotes'"
    assert found["AWS_REGION"] == "eu"
    assert (found["CUDA_VISIBLE_DEVICES"], found["LC_ALL"]) == ("0", "C.UTF-8")
    assert found["PATH"] == os.environ["PATH"]
    own = {
        "DO_NOT_TRACK",
        "HF_HUB_DISABLE_TELEMETRY",
        "ORT_DISABLE_TELEMETRY",
        "PORT",
        "PWD",
        "OLDPWD",
        "SHLVL",
        "_",
        "PYTHONUNBUFFERED",
        "PYTHONDONTWRITEBYTECODE",
        "GIVEN",
        "SCRATCH_FOLDER",
        "AWS_REGION",
    }
    assert set(found) - own <= set(os.environ)
    assert not [name for name in found if name.startswith(("PREFECT_", "THRESHER_", "OBS_"))]


def test_environment__of_a_launch_is_never_printed(package: WritePackage) -> None:
    folder, config = package()
    assert "hidden" not in repr(run(launch_of(folder, config, {"TOKEN": "hidden"})))


def test_environment__given_wins_over_what_is_handed_on(package: WritePackage) -> None:
    folder, config = package()
    launch = run(launch_of(folder, config, {"PATH": "/mine", "PYTHONUNBUFFERED": ""}))
    assert (launch.environment["PATH"], launch.environment["PYTHONUNBUFFERED"]) == ("/mine", "")


def test_requirements__beside_run_sh_are_installed_and_on_the_path(package: WritePackage) -> None:
    from clients.test_environments import make_wheel

    folder, config = package(before="python -c 'import tinyz; print(\"tinyz\", tinyz.SAYS)'; echo $VIRTUAL_ENV")
    wheel = make_wheel(folder, "tinyz", "1.0")
    (folder / "requirements.txt").write_text(f"--no-index\n{wheel}\n")

    async def work() -> None:
        server = await started(folder, config)
        await server.ready(config.health)
        await server.stop()

    run(work())
    said = (folder.parent / "log").read_text().splitlines()
    assert said[0] == "tinyz 1.0"
    assert said[1].startswith(str(folder.parent / "cache" / "environments"))


@pytest.mark.slow
def test_built_in_server__runs_a_package_with_a_custom_service(tmp_path: Path) -> None:
    folder = tmp_path / "package"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "Custom", "apis": [{"url": "/"}]}))
    (folder / "customize_service.py").write_text(
        "from model_service.python_model_service import XgSklServingBaseService\n"
        "class Tiny(XgSklServingBaseService):\n"
        "    def _preprocess(self, data): return data\n"
        "    def _inference(self, data): return {'twice': data['n'] * 2, 'name': self.model_name}\n"
        "    def _postprocess(self, data): return data\n"
    )
    config = parse_config((folder / "config.json").read_bytes(), "config.json")

    async def work() -> object:
        launch = await prepare("built-in", config, folder, "twice", {}, settings_of(folder))
        server = await Server.start(launch, tmp_path / "log")
        try:
            await server.ready(config.health)
            return await answer_of("POST", server.url, {"n": 21})
        finally:
            await server.stop()

    assert run(work()) == {"twice": 42, "name": "twice"}


def test_server__is_gone_once_stopped(package: WritePackage) -> None:
    folder, config = package()

    async def work() -> None:
        server = await started(folder, config)
        await server.ready(config.health)
        warden = server._process.pid
        (model,) = map(int, Path(f"/proc/{warden}/task/{warden}/children").read_text().split())
        assert alive(warden) and alive(model)
        await server.stop()
        assert not server.running
        assert not alive(warden) and not alive(model)

    run(work())
    assert processes_with(str(folder)) == []
