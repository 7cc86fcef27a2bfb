"""The last door of the command line: one line and an exit code for whatever goes wrong."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from fakes.processes import free_port

from deployments.terminal.door import guarded, take_verbose
from tasks.domain.errors import CallError, Problem, RunError, SpecificationError

COMMAND = str(Path(sys.executable).with_name("thresher"))


def raising(error: BaseException) -> Callable[[], int]:
    def work() -> int:
        raise error

    return work


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (SpecificationError([Problem("NAME", "x", "is unknown")]), 2, "NAME = 'x': is unknown"),
        (RunError("The run failed."), 1, "The run failed."),
        (KeyboardInterrupt(), 1, "Stopped before the end."),
        (KeyboardInterrupt("Stopped: go on with x."), 1, "Stopped: go on with x."),
        (MemoryError(), 2, "There is not enough memory: free some, or raise the limit (`ulimit -v`)."),
        (ZeroDivisionError("x"), 1, "An unexpected error (ZeroDivisionError): x. `--verbose` shows the trace."),
    ],
    ids=["specification", "run", "Ctrl-C", "Ctrl-C with words", "environment", "unexpected"],
)
def test_door__makes_one_line_and_an_exit_code_of_it(
    error: BaseException, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert guarded(raising(error), verbose=False) == code
    assert capsys.readouterr().err.splitlines() == [said]


def test_door__says_nothing_of_a_reader_that_has_gone(capsys: pytest.CaptureFixture[str]) -> None:
    assert guarded(raising(BrokenPipeError()), verbose=False) == 1
    assert capsys.readouterr().err == ""


def test_door__shows_the_trace_before_the_line_if_it_is_asked_to(capsys: pytest.CaptureFixture[str]) -> None:
    error = ZeroDivisionError("http://user:hunter3@host/")
    assert guarded(raising(error), verbose=True) == 1
    first, *_, last = capsys.readouterr().err.splitlines()
    assert first.startswith("Traceback") and last.startswith("An unexpected error (ZeroDivisionError)")
    assert "hunter3" not in last


def test_door__lets_pass_what_ends_a_process() -> None:
    with pytest.raises(SystemExit):
        guarded(raising(SystemExit(7)), verbose=False)


@pytest.mark.parametrize(
    ("given", "left", "verbose"),
    [
        (["list", "--verbose"], ["list"], True),
        (["run", "x", "--verbose"], ["run", "x", "--verbose"], True),
        (["validate", "--", "--verbose"], ["validate", "--", "--verbose"], False),
        (["list"], ["list"], False),
        ([], [], False),
    ],
)
def test_verbose__belongs_to_every_command(given: list[str], left: list[str], verbose: bool) -> None:
    assert take_verbose(given) is verbose
    assert given == left


def called(tmp_path: Path, script: str, **environment: str) -> tuple[int, list[str], str]:
    """Exit code, lines on standard error, and standard output of a shell's line; ``$T`` is the command."""
    home = {"HOME": str(tmp_path), "PREFECT_HOME": str(tmp_path / "prefect"), "T": COMMAND}
    done = subprocess.run(
        ["sh", "-c", script], cwd=tmp_path, env={**os.environ, **home, **environment}, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    return done.returncode, done.stderr.splitlines(), done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "environment", "said"),
    [
        ("$T list", {"PREFECT_API_URL": "http://[::1/api"}, "PREFECT_API_URL = 'http://[::1/api': should be the API"),
        ("$T list", {"PREFECT_API_REQUEST_TIMEOUT": "x"}, "PREFECT_API_REQUEST_TIMEOUT = 'x': should be a valid"),
        ("$T list", {"PREFECT_CLIENT_CUSTOM_HEADERS": "x"}, "PREFECT_CLIENT_CUSTOM_HEADERS = 'x': cannot be read"),
        ("$T list", {"SSL_CERT_FILE": "/missing.pem"}, "SSL_CERT_FILE = '/missing.pem': should be a file of"),
        ("$T list", {"PREFECT_LOGGING_LEVEL": "nope"}, "PREFECT_LOGGING_LEVEL = 'nope': should be one of"),
        ("$T list", {"PREFECT_LOGGING_INTERNAL_LEVEL": "x"}, "PREFECT_LOGGING_INTERNAL_LEVEL = 'x': should be one of"),
        ("echo '[[' > prefect.toml; $T list", {}, "prefect.toml: should be TOML"),
        ("echo PREFECT_API_URL=h:1 > .env; $T list", {}, "PREFECT_API_URL of .env = 'h:1': should be the API"),
        ("$T models list", {"THRESHER_S3_CREDENTIALS_BLOCK": "b", "PREFECT_API_URL": "http://127.0.0.1:9/api"},
         "THRESHER_S3_CREDENTIALS_BLOCK = 'b': the block cannot be read. The Prefect server http://127.0.0.1:9/api"),
        ("mkdir m; $T models register m", {"THRESHER_CACHE": "/dev/null/x"}, "THRESHER_CACHE = '/dev/null/x': should"),
        ("$T up", {"THRESHER_STACK": "/dev/null/x"}, "THRESHER_STACK = '/dev/null/x': should be a folder"),
        ("ulimit -n 20; echo 'name: x' > s; $T run s", {}, "This process may open 20 files only"),
        ("$T models list", {"THRESHER_CACHE": "~no-such-user/x"}, "THRESHER_CACHE = '~no-such-user/x': begins with"),
        ("mkdir g; cd g; rmdir ../g; $T models register x", {}, "The working folder cannot be used any more"),
        ("mkfifo p; sleep 0 > p & $T validate p", {}, "SPEC = 'p': should hold fields"),
        ("$T validate /dev/zero", {}, "SPEC = '/dev/zero': should be a YAML file: it has more than"),
        ("printf '[1]: x\\n' > s; $T validate s", {}, "SPEC = 's': should be a YAML file: while constructing"),
        ("$T --help > /dev/full", {}, "No space is left on the device"),
    ],
    ids=["address", "setting", "JSON", "certificates", "level", "internal level", "TOML", "dotenv", "block", "cache",
         "stack", "files", "home", "folder", "pipe", "device", "key", "full"],
)  # fmt: skip
def test_command__names_what_is_wrong_with_its_environment_in_one_line(
    tmp_path: Path, script: str, environment: dict[str, str], said: str
) -> None:
    code, lines, _ = called(tmp_path, script, **environment)
    assert (code, len(lines)) == (2, 1), lines
    assert lines[0].startswith(said)


@pytest.mark.slow
def test_command__with_closed_streams_ends_with_its_own_code(tmp_path: Path) -> None:
    assert called(tmp_path, "$T validate missing.yaml >&- 2>&- <&-; echo $?")[2] == "2\n"
    assert called(tmp_path, "$T validate missing.yaml 2> /dev/full; echo $?")[2] == "2\n"


@pytest.mark.slow
def test_command__writes_texts_as_utf_8_whatever_the_locale_says(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text("name: \xfc\n")
    code, lines, _ = called(tmp_path, "$T validate s.yaml", PYTHONIOENCODING="ascii")
    assert code == 2 and any("name = '\xfc'" in line for line in lines), lines


@pytest.mark.slow
def test_command__whose_server_is_not_there_says_so_in_one_line(tmp_path: Path) -> None:
    code, lines, _ = called(tmp_path, "$T list", PREFECT_API_URL=f"http://127.0.0.1:{free_port()}/api")
    assert (code, len(lines)) == (1, 1) and "cannot be reached" in lines[0], lines


def answering_once(server: socket.socket, answer: bytes) -> None:
    """Give an answer to whatever is asked, until the socket is closed; none closes the connection."""
    with suppress(OSError):
        while True:
            connection, _ = server.accept()
            with connection, suppress(OSError):
                connection.recv(65_536)
                connection.sendall(answer)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", "(HTTP 502 Bad Gateway)"),
        (b"", "(the connection was closed without an answer)"),
    ],
    ids=["gateway", "dropped"],
)
def test_command__whose_server_gives_no_version_says_what_came_instead(
    tmp_path: Path, answer: bytes, said: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=answering_once, args=(server, answer), daemon=True).start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/api"
        code, lines, _ = called(tmp_path, "$T list", PREFECT_API_URL=url)
        server.shutdown(socket.SHUT_RDWR)
    assert (code, len(lines)) == (1, 1), lines
    assert lines[0].startswith(f"The Prefect server {url} cannot be reached {said}.")


@pytest.mark.slow
def test_command__whose_storage_panics_says_one_thing(tmp_path: Path) -> None:
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "credentials").write_text("[default]\naws_access_key_id = a\x01b\naws_secret_access_key = x\n")
    script = "unset AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY; $T validate s.yaml"
    (tmp_path / "s.yaml").write_text("model: s3://b/m\ninput_path: s3://b/in\noutput_path: out\n")
    code, lines, _ = called(tmp_path, script)
    assert code == 2 and not any("panicked" in line or "RUST_BACKTRACE" in line for line in lines), lines
    assert any("The storage's library has failed" in line for line in lines), lines


@pytest.mark.slow
def test_command__that_is_interrupted_while_it_is_imported_says_nothing(tmp_path: Path) -> None:
    script = "import os, signal, sys\nfrom deployments import entry\n"
    script += "class Finder:\n def find_spec(self, name, *_):\n  if name == 'cyclopts': os.kill(os.getpid(), 2)\n"
    script += (
        "signal.signal(signal.SIGINT, signal.default_int_handler)\nsys.meta_path.insert(0, Finder())\nentry.main()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


@pytest.mark.parametrize("port", [0, -1, 99_999])
def test_up__is_refused_on_a_port_that_is_none(port: int) -> None:
    from deployments.local_stack.stack import run_stack

    with pytest.raises(CallError, match=f"--port = '{port}': should be 1 to 65535"):
        run_stack(port)
