"""A contestant is measured with all that it starts, and may leave nothing behind."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from fakes.processes import alive, poll

HERE = Path(__file__).resolve().parent / "benchmarks"
MAIN = "import sys; import process_tree; process_tree.PATIENCE_SECONDS = 0.3; sys.exit(process_tree.main())"
ORPHAN = "import subprocess as s, sys; print(s.Popen([sys.executable, '-c', {!r}], start_new_session=True).pid)"
BUSY = "import time\nwhile time.process_time() < 0.5: pass"
IDLE = "import signal\nsignal.pause()"
LARGE = "import time\nheld = bytearray(b'x') * (200 << 20)\ntime.sleep(1)"


def run(log: Path, *command: str, patient: bool = True) -> subprocess.CompletedProcess[str]:
    program = [str(HERE / "process_tree.py")] if patient else ["-c", MAIN]
    return subprocess.run(
        [sys.executable, *program, str(log), *command], capture_output=True, text=True, check=False, cwd=HERE
    )


def test_process_tree__counts_the_cpu_of_an_orphan(tmp_path: Path) -> None:
    ended = run(tmp_path / "log", sys.executable, "-c", ORPHAN.format(BUSY))
    assert ended.returncode == 0
    assert json.loads(ended.stdout)["cpu_seconds"] >= 0.5


def test_process_tree__sees_the_memory_of_a_grandchild(tmp_path: Path) -> None:
    ended = run(tmp_path / "log", "sh", "-c", f'{sys.executable} -c "{LARGE}"; true')
    assert json.loads(ended.stdout)["peak_rss_mb"] >= 200


def test_process_tree__kills_what_a_command_leaves_and_fails(tmp_path: Path) -> None:
    ended = run(tmp_path / "log", sys.executable, "-c", ORPHAN.format(IDLE), patient=False)
    assert ended.returncode == 3
    assert "still there" in ended.stderr
    assert not ended.stdout
    orphan = int((tmp_path / "log").read_text())
    poll(lambda: not alive(orphan), "the orphan's end")


def test_process_tree__ends_with_the_code_of_the_command_and_shows_its_output(tmp_path: Path) -> None:
    ended = run(tmp_path / "log", "sh", "-c", "echo no such luck; exit 7")
    assert ended.returncode == 7
    assert "no such luck" in ended.stderr
    assert not ended.stdout
