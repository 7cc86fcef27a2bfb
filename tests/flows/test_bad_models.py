"""Models, outputs and share links that fail: only the items that they concern, or the run with its reason."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fakes.processes import closed_port, meanwhile
from fakes.share_server import ShareServer

from tasks.domain.errors import StorageError
from tasks.domain.run import RunFailed

pytestmark = pytest.mark.prefect


LIMIT = 12 << 20


# -- storage and model that fail while the run lasts ------------------------------------------------------------------


def test_output__that_disappears_in_the_middle_fails_the_run_and_says_so(
    run_service: Any, running: dict[str, str], tmp_path: Path, write_files: Any, poll: Callable[..., Any]
) -> None:
    gate = tmp_path / "gate"
    source = write_files(tmp_path / "in", {"1.jpg": "quick", "2.jpg": f"slow FAIL:until:{gate}"})
    out = tmp_path / "out"

    def take_away() -> None:
        try:
            poll(lambda: list(out.glob("infer-result-*/1.jpg_result.txt")), "the first result")
            out.rename(tmp_path / "elsewhere")
        finally:
            gate.touch()

    with meanwhile(take_away):
        ran = run_service(input_path=str(source), **running)
    assert (ran.state, type(ran.error)) == ("Failed", StorageError)
    assert str(out) in str(ran.error)
    assert not out.exists()
    assert not [line for line in ran.logs if "Traceback" in line]


def test_model__that_answers_badly_fails_only_the_items_it_answers_badly(
    run_service: Any, running: dict[str, str], tmp_path: Path, write_files: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THRESHER_REQUEST_TIMEOUT_SECONDS", "4")
    said = {
        "20mb.jpg": ("FAIL:20mb", "SUCCESSFUL"),
        "404.jpg": ("FAIL:404", 'The model answered HTTP 404: {"error": "as asked"}'),
        "429.jpg": ("FAIL:429:1:1", "SUCCESSFUL"),
        "500.jpg": ("FAIL:500", 'The model answered HTTP 500 (tried 6 times): {"error": "as asked"}'),
        "503.jpg": ("FAIL:503:2", "SUCCESSFUL"),
        "badjson.jpg": ("FAIL:badjson", "SUCCESSFUL"),  # a file's answer is kept byte for byte
        "close.jpg": (
            "FAIL:close",
            "The model did not answer: the connection was closed without an answer (tried 6 times).",
        ),
        "empty.jpg": ("FAIL:empty", "SUCCESSFUL"),
        "hang.jpg": ("FAIL:hang", "The model did not answer: no answer within 4 s (tried 2 times)."),
        "late.jpg": ("FAIL:slow:1", "SUCCESSFUL"),
        "ok.jpg": ("good", "SUCCESSFUL"),
        "once.jpg": ("FAIL:close:1", "SUCCESSFUL"),
        "slow.jpg": ("FAIL:slow:60", "The model did not answer: no answer within 4 s (tried 2 times)."),
    }
    source = write_files(tmp_path / "in", {name: marker for name, (marker, _) in said.items()})
    ran = run_service(input_path=str(source), **running)
    assert ran.state == "Completed"
    assert [one["source"].rpartition("/")[2] for one in ran.lines] == sorted(said)
    # On a busy machine, where only hung requests were under way for a while, a try more was not theirs to answer for.
    said_now = {name: re.sub(r"\(tried [78] times\)", "(tried 6 times)", one) for name, one in ran.messages.items()}
    said_now = {name: re.sub(r"\(tried 3 times\)", "(tried 2 times)", one) for name, one in said_now.items()}
    assert said_now == {name: message for name, (_, message) in said.items()}
    assert sorted(ran.files) == [f"{name}_result.txt" for name, (_, end) in sorted(said.items()) if end == "SUCCESSFUL"]
    assert len(ran.files["20mb.jpg_result.txt"]) == 20 << 20
    assert (ran.files["badjson.jpg_result.txt"], ran.files["empty.jpg_result.txt"]) == (b'{"ok": tr', b"")


def test_model__that_dies_on_an_item_fails_that_item_only(
    run_service: Any, package: Any, tmp_path: Path, write_files: Any
) -> None:
    names = {f"{number:02d}.jpg": f"good {number}" for number in range(30)}
    source = write_files(tmp_path / "in", {**names, "07.jpg": "FAIL:die", "11.jpg": "FAIL:die:1"})
    home = package("--state", str(tmp_path / "state.json"))
    ran = run_service(model=str(home), input_path=str(source))
    assert ran.state == "Completed"
    assert [one["source"].rpartition("/")[2] for one in ran.lines] == sorted(names)
    failed = {name: message for name, message in ran.messages.items() if message != "SUCCESSFUL"}
    assert failed == {"07.jpg": "model server died 3 times on this item"}
    assert len(ran.files) == 29
    assert ran.summary["model_server_deaths"] >= 3
    seen = json.loads((tmp_path / "state.json").read_text())
    assert seen["starts"] == ran.summary["model_server_deaths"] + 1


@pytest.mark.parametrize(
    ("options", "failure_threshold", "expected"),
    [
        (["--health", "never"], 3, "The model server did not become healthy within 0.6 s"),
        (
            ["--exit-at-start", "3"],
            10_000,  # it ends long before
            "The model server ended with status 3. It printed last:\n    model server: exits at",
        ),
    ],
)
def test_model__that_never_becomes_healthy_fails_the_run_with_what_it_printed(
    run_service: Any, package: Any, tmp_path: Path, write_files: Any, options: list[str], failure_threshold: int,
    expected: str,
) -> None:  # fmt: skip
    health = {"period_seconds": 0.2, "failure_threshold": failure_threshold, "initial_delay_seconds": 0}
    source = write_files(tmp_path / "in", {"1.jpg": "x"})
    ran = run_service(model=str(package(*options, health=health)), input_path=str(source))
    assert (ran.state, type(ran.error)) == ("Failed", RunFailed)
    assert expected in str(ran.error)
    assert ran.top[-2:] == ["infer-result-{id}.manifest", "infer-result-{id}.summary.json"]
    assert list(ran.messages) == ["1.jpg"] and ran.messages["1.jpg"].startswith(f"Not processed: {expected[:40]}")
    if "It printed nothing." not in str(ran.error):  # 0.6 s may be too short for that
        printed = Path(ran.output, f"infer-result-{ran.task_id}.logs", "instance-0.log").read_text()
        assert next(line for line in ran.logs if line.startswith("instance-0: ")).partition(": ")[2] in printed
    assert not [line for line in ran.logs if "Traceback" in line]


def test_share_links__that_cannot_be_fetched_fail_with_their_cause(
    run_service: Any, running: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        closed_port() as closed,
        closed_port() as private,
        ShareServer({"汉 1.jpg": b"image", "big": b"x" * 100}) as share,
    ):
        host = share.url.removeprefix("http://")
        monkeypatch.setenv("THRESHER_SHARE_LINK_HOSTS", f"{host},127.0.0.1:{closed}")
        expired = share.link("汉 1.jpg", valid_seconds=-100)
        cases = [
            (share.link("汉 1.jpg"), ""),
            (
                expired,
                "Download file failed. HTTP 403 (AccessDenied): no permission, or the share link has expired (it was "
                "valid until",
            ),
            (f"{share.url}/missing", "Download file failed. HTTP 404: there is no such object."),
            (f"http://127.0.0.1:{closed}/1.jpg", "Download file failed. No connection to the host"),
            (f"{share.url}/redirect?to=http://10.0.0.1/1.jpg", "Download file failed. "),
            (f"{share.url}/redirect?to=http://127.0.0.1:{private}/1.jpg", "Download file failed. "),
            (f"{share.url}/redirect?to=http://169.254.169.254/latest", "Download file failed. "),
            (f"{share.url}/redirect?to={share.url}/flaky%3Ftimes=1", ""),
            ("http://127.0.0.1:1/1.jpg", "Download file failed. "),
            (f"{share.url}/big?size={LIMIT + 1}", "The file has 12582913 bytes; it should be not larger than"),
            (f"{share.url}/big?size={LIMIT + 1}&chunked=1", "The file has "),
            (f"{share.url}/big?size=1000&cut=1", "Download file failed. The connection broke."),
        ]
        manifest = tmp_path / "links.manifest"
        manifest.write_text("".join(json.dumps({"source": link}) + "\n" for link, _ in cases))
        ran = run_service(input_path=str(manifest), **running)
    assert ran.state == "Completed"
    assert [one["source"] for one in ran.lines] == [link for link, _ in cases]
    for line, (_, message) in zip(ran.lines, cases, strict=True):
        assert line.get("error_message", "").startswith(message)
        assert (line["result"] == "SUCCESSFUL") == (not message)
    for number in (4, 5, 6, 8):
        assert "is not a public address" in ran.lines[number]["error_message"]
    assert sorted(ran.files) == ["redirect~7_result.txt", "汉 1.jpg_result.txt"]
    signature = expired.partition("Signature=")[2]
    assert signature not in "\n".join(ran.logs) + json.dumps(ran.summary)


def test_model__that_fails_every_item_leaves_a_failed_run_with_its_manifest(
    run_service: Any, running: dict[str, str], tmp_path: Path, write_files: Any
) -> None:
    source = write_files(tmp_path / "in", {"1.csv": "x,1\n", "2.txt": "1,1"})
    ran = run_service(input_path=str(source), request_path="/iris", **running)
    assert (ran.state, type(ran.error)) == ("Failed", RunFailed)
    assert len(ran.lines) == 2 and ran.files == {}
