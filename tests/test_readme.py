"""Every command and every piece of Python in README runs as it stands there, in a copy of the project."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from fakes import processes

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
LEFT_OUT = (".git", ".venv", "demo-output", "__pycache__", ".pytest_cache", ".mypy_cache", ".ruff_cache", ".hypothesis")

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("readme")]


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)


COMMANDS = [line for block in blocks("sh") for line in block.splitlines() if line.strip()]


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project in another folder, with the same environment."""
    target = tmp_path_factory.mktemp("readme") / "thresher"
    shutil.copytree(ROOT, target, ignore=shutil.ignore_patterns(*LEFT_OUT))
    (target / ".venv").symlink_to(ROOT / ".venv")
    return target


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory, environments_cache: Path) -> dict[str, str]:
    home = tmp_path_factory.mktemp("home")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("THRESHER_", "PREFECT_"))}
    return kept | {
        "PREFECT_HOME": str(home / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "THRESHER_MODEL_STORE": str(home / "models"),
        "THRESHER_STACK": str(home / "stack"),
        "THRESHER_CACHE": str(environments_cache),
        "TMPDIR": str(tmp_path_factory.mktemp("readme-tmp")),
        "PORT": str(processes.free_port()),  # another stack may run here
    }


def test_readme__has_commands_and_python() -> None:
    assert len(COMMANDS) >= 15 and COMMANDS.count("make up") == 1
    assert len(blocks("python")) == 2


@contextmanager
def stack(copy: Path, environment: Mapping[str, str], log: Path) -> Iterator[None]:
    """`make up` until the block ends, as in a terminal: Ctrl-C is for make and for what it has started."""

    def before() -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        processes.die_with_parent()

    with log.open("wb") as output:
        up = subprocess.Popen(
            ["bash", "-c", "make up"], cwd=copy, env=environment, stdout=output, stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=before,
        )  # fmt: skip
    try:
        processes.wait_until(lambda: f"http://127.0.0.1:{environment['PORT']}\n" in log.read_text(), up, log, 240)
        yield
    finally:
        os.killpg(up.pid, signal.SIGINT)
        up.wait(90)
    assert "Stopped: no process is left." in log.read_text()


def run(command: str, copy: Path, environment: Mapping[str, str]) -> str:
    done = subprocess.run(
        ["bash", "-c", command], cwd=copy, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout + done.stderr


@pytest.mark.timeout(900)
@pytest.mark.prefect
def test_readme__commands_run_in_the_order_in_which_they_stand(
    copy: Path, environment: dict[str, str], tmp_path: Path, processes_of: Callable[[Path], Mapping[int, str]]
) -> None:
    start = COMMANDS.index("make up")
    for command in COMMANDS[:start]:
        assert run(command, copy, environment).strip(), command
    with stack(copy, environment, tmp_path / "up.log"):
        for command in COMMANDS[start + 1 :]:
            assert run(command, copy, environment).strip(), command
    folder = Path(environment["TMPDIR"])
    processes.poll(lambda: not processes_of(folder), lambda: processes_of(folder))
    left = sorted(path.name for path in folder.iterdir())
    assert left in ([], ["runner_storage"])  # the empty folders of Prefect's workers


def test_readme__python_runs(copy: Path, environment: dict[str, str]) -> None:
    python = ROOT / ".venv/bin/python"
    for program in blocks("python"):
        done = subprocess.run(
            [python, "-c", program], cwd=copy, env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr[-4000:]
        if "result.manifest" in program:
            manifest, successful, failed = done.stdout.strip().splitlines()[-1].split()
            assert (copy / manifest).exists()
            assert (successful, failed) == ("1", "0")


@pytest.mark.parametrize("target", sorted(set(re.findall(r"`make ([a-z-]+)`", README))))
def test_readme__make_target_exists(target: str) -> None:
    done = subprocess.run(["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


FOLDERS = ("deployments", "flows", "infra", "tasks", "tests")
PAGES = sorted(path for folder in FOLDERS for path in (ROOT / folder).glob("**/README.md"))


@pytest.mark.parametrize("page", ["README.md", *(str(path.relative_to(ROOT)) for path in PAGES)])
def test_readme__links_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert ((ROOT / page).parent / target).exists(), f"{page}: {target}"


def test_readme__first_screen_goes_from_specification_to_manifest_in_under_60_lines() -> None:
    first = "\n".join(README.splitlines()[:60])
    places = [first.find(part) for part in ("input_path:", "thresher run", '"result":"SUCCESSFUL"')]
    assert -1 not in places
    assert places == sorted(places)


@pytest.mark.parametrize("model", ["iris", "digits"])
def test_example__training_makes_the_same_model_again(model: str, copy: Path, environment: dict[str, str]) -> None:
    shipped = (ROOT / "infra/models" / model / f"{model}.onnx").read_bytes()
    folder = copy / "infra/models" / model
    done = subprocess.run(
        [str(ROOT / ".venv/bin/uv"), "run", "train.py"],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    assert (folder / f"{model}.onnx").read_bytes() == shipped
