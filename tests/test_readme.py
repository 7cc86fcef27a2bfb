"""Every command and every piece of Python in README, and in the page of commands, runs in a copy of the project."""

from __future__ import annotations

import os
import re
import shlex
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
TEXT = README + (ROOT / "deployments" / "README.md").read_text(encoding="utf-8")
"""In this order a newcomer runs what stands there."""
LEFT_OUT = (".git", ".venv", "demo-output", ".pytest_cache", ".mypy_cache", ".ruff_cache", ".hypothesis")

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("readme")]


def commands(language: str, block: str) -> list[str]:
    """The shell commands that a block stands for."""
    if language == "python":
        return [f".venv/bin/python -c {shlex.quote(block)}"]
    return [line for line in block.splitlines() if line.strip()]


BLOCKS = re.findall(r"^```(sh|python)\n(.*?)^```", TEXT, flags=re.DOTALL | re.MULTILINE)
COMMANDS = [command for language, block in BLOCKS for command in commands(language, block)]


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
    assert sum(".venv/bin/python -c" in command for command in COMMANDS) == 2


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


def shows_results_accuracies_and_where_to_go_on(text: str, folder: Path) -> None:
    """What a newcomer sees of `make demo`: both example packages on their data."""
    right = {name: float(share) for name, share in re.findall(r"^  (\w+) +\d+ of \d+ right: ([\d.]+)$", text, re.M)}
    assert set(right) == {"iris", "digits"}
    assert min(right.values()) > 0.95
    assert "1 of 1 items SUCCESSFUL, 0 FAILED" in text
    (manifest,) = re.findall(r"^The first lines of the output manifest (demo-output/digits/\S+)$", text, re.M)
    for line in (folder / manifest).read_text().splitlines()[:3]:
        assert line in text
    assert re.search(r"^    +digit-\d+\.png_result\.txt$", text, re.M)  # the tree
    assert re.search(r"^ +\.\.\. \d+ more$", text, re.M)
    assert '"predicted_label"' in text  # the first result file
    assert "Where to go on" in text and "infra/models/README.md" in text
    assert "Traceback" not in text


@pytest.mark.timeout(900)
@pytest.mark.prefect
def test_readme__commands_run_in_the_order_in_which_they_stand(
    copy: Path, environment: dict[str, str], tmp_path: Path, processes_of: Callable[[Path], Mapping[int, str]]
) -> None:
    start = COMMANDS.index("make up")
    said = {command: run(command, copy, environment) for command in COMMANDS[:start]}
    with stack(copy, environment, tmp_path / "up.log"):
        said |= {command: run(command, copy, environment) for command in COMMANDS[start + 1 :]}
    assert not [command for command, text in said.items() if not text.strip()]
    shows_results_accuracies_and_where_to_go_on(said["make demo"], copy)
    of_a_run, of_a_service = [text.splitlines() for command, text in said.items() if "import thresher" in command]
    manifest, *counts = of_a_run[0].split()
    assert (copy / manifest).exists() and counts == ["1", "0"]
    assert len(of_a_run) == 2 and of_a_run[1].startswith(f"{copy}/infra/models/iris/data/iris.csv b'")
    assert of_a_service == ["Completed []"]
    pools = said[".venv/bin/thresher pools list"]
    assert all(path.stem in pools for path in (ROOT / "infra" / "pools").glob("*.yaml"))
    folder = Path(environment["TMPDIR"])
    processes.poll(lambda: not processes_of(folder), lambda: processes_of(folder))
    left = sorted(path.name for path in folder.iterdir())
    assert left in ([], ["runner_storage"])  # the empty folders of Prefect's workers


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
