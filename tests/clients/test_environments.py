"""Isolated environments: made once, kept by content, never half-made."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from clients.support import ROOT, processes_with, run, wait_for

from tasks.clients.packages.environments import SERVING, environment, key_of, notes_of
from tasks.clients.packages.installing import Rules
from tasks.clients.packages.pythons import interpreter_for
from tasks.domain.errors import ModelServerError
from tasks.domain.runtime import parse_runtime


def make_wheel(folder: Path, name: str, version: str, says: str = "") -> Path:
    """A wheel with one module that has a ``SAYS``."""
    path = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}.py", f"SAYS = {says or version!r}\n")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", f"{name}.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
    return path


def make_sdist(folder: Path, name: str, setup: str) -> Path:
    """A source package whose build runs ``setup``; it needs no build tool (an own backend in the tree)."""
    import io
    import tarfile

    files = {
        "pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n',
        "backend.py": setup,
        "PKG-INFO": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
    }
    path = folder / f"{name}-1.0.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for file, text in files.items():
            entry = tarfile.TarInfo(f"{name}-1.0/{file}")
            entry.size = len(text.encode())
            archive.addfile(entry, io.BytesIO(text.encode()))
    return path


@pytest.fixture
def counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """uv behind a script that notes every call in the returned file."""
    import uv

    calls = tmp_path / "calls"
    script = tmp_path / "uv-counted"
    script.write_text(f'#!/bin/sh\necho "$1 $2" >> {calls}\nexec {uv.find_uv_bin()} "$@"\n')
    script.chmod(0o755)
    monkeypatch.setattr(uv, "find_uv_bin", lambda: str(script))
    return calls


def said_in(made: Path, module: str) -> str:
    command = [made / "bin" / "python", "-c", f"import {module}; print({module}.SAYS)"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def left_in(cache: Path) -> list[str]:
    """What is in the cache, lock files aside."""
    return sorted(path.name for path in (cache / "environments").iterdir() if path.suffix != ".lock")


def test_environment__is_made_once_and_used_again(tmp_path: Path, counted: Path) -> None:
    steps = [[str(make_wheel(tmp_path, "tinya", "1.0"))]]
    made = run(environment(steps, tmp_path, tmp_path / "cache"))
    assert said_in(made, "tinya") == "1.0"
    assert len(counted.read_text().splitlines()) == 2  # venv, pip install
    assert run(environment(steps, tmp_path, tmp_path / "cache")) == made
    assert len(counted.read_text().splitlines()) == 2
    assert left_in(tmp_path / "cache") == [made.name]


def test_environment__is_isolated_from_the_python_that_makes_it(tmp_path: Path) -> None:
    made = run(environment([], tmp_path, tmp_path / "cache"))
    command = [made / "bin" / "python", "-c", "import prefect"]
    assert b"No module named 'prefect'" in subprocess.run(command, capture_output=True).stderr


def test_environment__installs_the_steps_in_order(tmp_path: Path) -> None:
    old, new = (["--no-index", str(make_wheel(tmp_path, "tinyb", version))] for version in ("1.0", "2.0.0"))
    assert said_in(run(environment([old, new], tmp_path, tmp_path / "cache")), "tinyb") == "2.0.0"
    assert said_in(run(environment([new, old], tmp_path, tmp_path / "cache")), "tinyb") == "1.0"


def test_environment__reads_requirements_below_the_packages_folder(tmp_path: Path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    make_wheel(package, "tinyc", "1.0")
    (package / "requirements.txt").write_text("./tinyc-1.0-py3-none-any.whl\n")
    made = run(environment([["--no-index", "-r", "requirements.txt"]], package, tmp_path / "cache"))
    assert said_in(made, "tinyc") == "1.0"


def test_environment__of_changed_content_is_another_one(tmp_path: Path) -> None:
    requirements = tmp_path / "requirements.txt"
    for version in ("1.0", "2.0"):
        requirements.write_text(str(make_wheel(tmp_path, "tinyd", version)))
        made = run(environment([["--no-index", "-r", "requirements.txt"]], tmp_path, tmp_path / "cache"))
        assert said_in(made, "tinyd") == version
    wheel = [["--no-index", "tinyd-1.0-py3-none-any.whl"]]
    first = run(environment(wheel, tmp_path, tmp_path / "cache"))
    make_wheel(tmp_path, "tinyd", "1.0", says="changed")
    second = run(environment(wheel, tmp_path, tmp_path / "cache"))
    assert (said_in(first, "tinyd"), said_in(second, "tinyd")) == ("1.0", "changed")


def test_key_of__counts_files_that_a_requirements_file_names(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("-r more.txt\n./tinye-1.0-py3-none-any.whl  # a wheel\n")
    (tmp_path / "more.txt").write_text("six\n")
    make_wheel(tmp_path, "tinye", "1.0")
    steps = [["-r", "requirements.txt"]]
    keys = {key_of(steps, tmp_path)}
    make_wheel(tmp_path, "tinye", "1.0", says="changed")
    keys.add(key_of(steps, tmp_path))
    (tmp_path / "more.txt").write_text("idna\n")
    keys.add(key_of(steps, tmp_path))
    assert len(keys) == 3


def test_key_of__tells_steps_from_arguments(tmp_path: Path) -> None:
    keys = {key_of(steps, tmp_path) for steps in ([["a", "b"]], [["a"], ["b"]], [["ab"]], [["b"], ["a"]], [["b", "a"]])}
    assert len(keys) == 5


def test_environment__that_cannot_be_made_says_what_uv_said_and_leaves_nothing(tmp_path: Path, counted: Path) -> None:
    steps = [
        ["--no-index", str(make_wheel(tmp_path, "tinyf", "1.0"))],
        ["--no-index", "no-such-package-of-thresher==1.2"],
    ]
    with pytest.raises(ModelServerError) as raised:
        run(environment(steps, tmp_path, tmp_path / "cache"))
    assert "no-such-package-of-thresher" in str(raised.value)
    assert "uv pip install" in str(raised.value)
    assert left_in(tmp_path / "cache") == []
    with pytest.raises(ModelServerError):  # nothing is taken for made the second time
        run(environment(steps, tmp_path, tmp_path / "cache"))
    assert len(counted.read_text().splitlines()) == 6


def test_environment__fails_clearly_when_uv_itself_cannot_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("uv.find_uv_bin", lambda: "/no/such/uv")
    with pytest.raises(ModelServerError, match=r"cannot run /no/such/uv.*\(uv venv --quiet ended with 127\)"):
        run(environment([], tmp_path, tmp_path / "cache"))
    assert left_in(tmp_path / "cache") == []


MAKER = """
import asyncio, sys, uv
from pathlib import Path
from tasks.clients.packages.environments import environment

uv.find_uv_bin = lambda: sys.argv[1]
print(asyncio.run(environment([["--no-index", sys.argv[2]]], Path("."), Path(sys.argv[3]))))
"""


@pytest.mark.slow
def test_environment__is_made_once_by_two_processes_at_once(tmp_path: Path, counted: Path) -> None:
    wheel = make_wheel(tmp_path, "tinyg", "1.0")
    command = [sys.executable, "-c", MAKER, str(tmp_path / "uv-counted"), str(wheel), str(tmp_path / "cache")]
    makers = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
        for _ in range(3)
    ]
    made = {maker.communicate(timeout=180)[0].strip() for maker in makers}
    assert [maker.returncode for maker in makers] == [0, 0, 0]
    assert len(made) == 1
    assert len(counted.read_text().splitlines()) == 2


def test_environment__is_made_once_by_two_tasks_at_once(tmp_path: Path, counted: Path) -> None:
    steps = [["--no-index", str(make_wheel(tmp_path, "tinyh", "1.0"))]]

    async def work() -> list[Path]:
        return await asyncio.gather(*(environment(steps, tmp_path, tmp_path / "cache") for _ in range(3)))

    assert len(set(run(work()))) == 1
    assert len(counted.read_text().splitlines()) == 2


SLOW_BACKEND = """
import os, time
def get_requires_for_build_wheel(config_settings=None):
    open({started!r}, "w").write(str(os.getpid()))
    time.sleep(600)
"""


def test_environment__cancelled_leaves_nothing_and_no_process(tmp_path: Path) -> None:
    started = tmp_path / "started"
    sdist = make_sdist(tmp_path, "tinyi", SLOW_BACKEND.format(started=str(started)))

    async def work() -> None:
        making = asyncio.create_task(environment([["--no-index", str(sdist)]], tmp_path, tmp_path / "cache"))
        while not started.exists():
            assert not making.done(), making
            await asyncio.sleep(0.02)
        making.cancel()
        with pytest.raises(asyncio.CancelledError):
            await making

    run(work())
    assert left_in(tmp_path / "cache") == []
    assert processes_with(str(tmp_path / "cache")) == []


@pytest.mark.slow
def test_environment__of_a_killed_process_is_made_anew(tmp_path: Path) -> None:
    import uv

    started = tmp_path / "started"
    sdist = make_sdist(tmp_path, "tinyj", SLOW_BACKEND.format(started=str(started)))
    command = [sys.executable, "-c", MAKER, uv.find_uv_bin(), str(sdist), str(tmp_path / "cache")]
    with subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL) as maker:
        wait_for(started.exists)
        maker.send_signal(signal.SIGKILL)
    wait_for(lambda: not processes_with(str(tmp_path / "cache")))
    half = [name for name in left_in(tmp_path / "cache") if not name.endswith(".log")]
    assert len(half) == 1
    started.unlink()

    async def again() -> None:
        # The half-made one is not taken for made: uv is at work again.
        making = asyncio.create_task(environment([["--no-index", str(sdist)]], tmp_path, tmp_path / "cache"))
        while not started.exists():
            assert not making.done(), making
            await asyncio.sleep(0.02)
        making.cancel()
        with pytest.raises(asyncio.CancelledError):
            await making

    run(again())


SPYING_BACKEND = """
import json, os
def get_requires_for_build_wheel(config_settings=None):
    open({seen!r}, "w").write(json.dumps(dict(os.environ)))
    raise SystemExit(1)
"""


def test_environment__keeps_keys_of_storages_from_packages_that_are_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = tmp_path / "seen"
    sdist = make_sdist(tmp_path, "tinyk", SPYING_BACKEND.format(seen=str(seen)))
    for name in ("AWS_SECRET_ACCESS_KEY", "OBS_SECRET_ACCESS_KEY", "PREFECT_API_KEY", "THRESHER_OBS_CREDENTIALS_BLOCK"):
        monkeypatch.setenv(name, "the-secret-value")
    with pytest.raises(ModelServerError):
        run(environment([["--no-index", str(sdist)]], tmp_path, tmp_path / "cache"))
    assert "the-secret-value" not in seen.read_text()
    assert "PATH" in seen.read_text()


def test_environment__builds_nothing_while_an_index_has_a_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = tmp_path / "seen"
    sdist = make_sdist(tmp_path, "tinyk", SPYING_BACKEND.format(seen=str(seen)))
    monkeypatch.setenv("UV_INDEX_URL", "https://user:the-secret-value@127.0.0.1:9/simple")
    with pytest.raises(ModelServerError, match="not built from source while UV_INDEX_URL holds a password") as refused:
        run(environment([["--no-index", str(sdist)]], tmp_path, tmp_path / "cache"))
    assert not seen.exists() and "the-secret-value" not in str(refused.value)


def test_environment__that_was_changed_is_made_again_unless_another_run_uses_it(tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path, "tinyl", "1.0")
    steps = [["--no-index", str(wheel)]]
    made = run(environment(steps, tmp_path, tmp_path / "cache"))
    (module,) = made.rglob("tinyl.py")
    assert module.stat().st_nlink == 1  # what a model writes into is not uv's own cache
    module.write_text("SAYS = 'evil'")
    code = "import fcntl, sys; file = open(sys.argv[1]); fcntl.flock(file, fcntl.LOCK_SH); print(flush=True); input()"
    lock = made.with_name(f"{made.name}.used.lock")
    other = subprocess.Popen([sys.executable, "-c", code, lock], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert other.stdout is not None and other.stdout.readline()
        with pytest.raises(ModelServerError, match="was changed after it was made, and another run uses it"):
            run(environment(steps, tmp_path, tmp_path / "cache"))
    finally:
        other.communicate(b"\n")
    assert run(environment(steps, tmp_path, tmp_path / "cache")) == made
    assert said_in(made, "tinyl") == "1.0"


@pytest.mark.slow
def test_environment__installs_a_real_package(tmp_path: Path) -> None:
    made = run(environment([["idna>=3"]], tmp_path, tmp_path / "cache"))
    command = [made / "bin" / "python", "-c", "import idna; print(idna.encode('ü'))"]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip() == "b'xn--tda'"


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels, the only place that packages come from."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    monkeypatch.setenv("UV_FIND_LINKS", str(folder))
    monkeypatch.setenv("UV_NO_INDEX", "1")
    return folder


def test_pins__that_contradict_are_installed_one_after_the_other(tmp_path: Path, index: Path) -> None:
    for version in ("1.0", "2.0.0"):
        make_wheel(index, "thrtinym", version)
    make_wheel(index, "tinyn", "1.0")
    steps = [["thrtinym==1.0", "tinyn", "thrtinym==2.0.0"]]
    made = run(environment(steps, tmp_path, tmp_path / "cache"))
    assert (said_in(made, "thrtinym"), said_in(made, "tinyn"), notes_of(made)) == ("2.0.0", "1.0", [])


def test_pin__that_cannot_be_had_is_refused_in_one_line(tmp_path: Path, index: Path) -> None:
    make_wheel(index, "thrtinyo", "1.0")
    make_wheel(index, "thrtinyp", "1.5")
    steps = [["thrtinyo==1.0", "thrtinyp==1.2"]]
    with pytest.raises(ModelServerError) as raised:
        run(environment(steps, tmp_path, tmp_path / "cache", rules=Rules(runtime="python3.11")))
    text = str(raised.value)
    assert text.startswith("The model package's dependency thrtinyp==1.2 cannot be installed on Python 3.11 (runtime ")
    assert "thrtinyp==1.2" in text.partition(": ")[2] and "\n" not in text
    assert left_in(tmp_path / "cache") == []


@pytest.mark.parametrize(
    ("there", "asked", "taken"),
    [
        (("1.0", "1.5", "2.0"), "thrtinyq==1.2", "1.5"),
        (("1.0", "1.1"), "thrtinyq==1.2", "1.1"),
        (("3.0",), "thrtinyq<=2.0", "3.0"),
    ],
)
def test_pin__that_cannot_be_had_is_loosened_to_the_nearest_version(
    tmp_path: Path, index: Path, there: tuple[str, ...], asked: str, taken: str
) -> None:
    for version in there:
        make_wheel(index, "thrtinyq", version)
    made = run(environment([[asked]], tmp_path, tmp_path / "cache", rules=Rules(loosen=True)))
    assert said_in(made, "thrtinyq") == taken
    (note,) = notes_of(made)
    assert note.startswith(f"{asked} cannot be installed on Python 3.11: thrtinyq=={taken} was taken (")
    strict = environment([[asked]], tmp_path, tmp_path / "cache")
    with pytest.raises(ModelServerError, match="cannot be installed"):  # not the loosened one
        run(strict)


def test_offline__uses_what_is_made_and_says_what_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv"))  # an empty one
    with pytest.raises(ModelServerError, match=r"dependency idna>=3 cannot be installed on Python 3\.11: .*"):
        run(environment([["idna>=3"]], tmp_path, tmp_path / "cache", rules=Rules(offline=True)))
    steps = [["--no-index", str(make_wheel(tmp_path, "tinyr", "1.0"))]]
    made = run(environment(steps, tmp_path, tmp_path / "cache"))
    assert run(environment(steps, tmp_path, tmp_path / "cache", rules=Rules(offline=True))) == made


@pytest.mark.slow
@pytest.mark.parametrize("version", ["3.6", "3.7", "3.13"])
def test_environment__is_made_with_old_and_new_pythons(tmp_path: Path, version: str) -> None:
    runtime = parse_runtime(f"python{version}")
    try:
        interpreter, _ = run(interpreter_for(runtime, (), loosen=False))
    except ModelServerError:
        pytest.skip(f"this machine has no Python {version}")
    wheel = make_wheel(tmp_path, "tinys", "1.0")
    steps = [["-r", str(SERVING / "requirements.txt")], [str(wheel), "six==1.16.0", "idna", "six==1.17.0"]]
    made = run(environment(steps, tmp_path, tmp_path / "cache", interpreter))
    code = "import sys, six, tinys; print('%d.%d' % sys.version_info[:2], six.__version__, tinys.SAYS)"
    said = subprocess.run([made / "bin" / "python", "-c", code], check=True, capture_output=True, text=True).stdout
    assert said.split() == [version, "1.17.0", "1.0"]
