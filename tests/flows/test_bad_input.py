"""What users and the world get wrong: each item keeps its one line, the others go on, and the message says why."""

from __future__ import annotations

import ctypes
import json
import os
from pathlib import Path
from typing import Any

import pytest
from fakes.odd_s3_server import OddS3Server
from fakes.processes import die_with_parent

from deployments.one_run.validation import check_service
from tasks.domain.errors import SpecificationError
from tasks.domain.settings import read_settings
from tasks.domain.specification import require

pytestmark = pytest.mark.prefect


LIMIT = 12 << 20


TOO_LARGE = "The file has {size} bytes; it should be {rule} 12582912 bytes (12 MiB)."


def without_root_powers() -> None:
    """Root reads every file, unless the powers to pass over permissions are gone (for ``preexec_fn``)."""
    die_with_parent()
    for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
        ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP


# -- the specification and the package -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, "should be a model package folder with config.json or model/config.json; neither is there"),
        ("", "config.json: should be JSON in UTF-8"),
        ('{"model_type": "Image", ', "config.json: should be JSON in UTF-8"),
        ("[]", "config.json: should be a JSON object, not list"),
        ("{}", "config.json: model_type: is missing"),
        ('{"model_type": "Image", "apis": [{"request": {"data": 7}}]}', "config.json: apis[0].request.data = '7'"),
        ('{"model_type": "Image", "health": {"period_seconds": -1}}', "config.json: health.period_seconds = '-1'"),
        (
            '{"model_type": "PyTorch", "dependencies": [{"packages": [{"package_version": "1"}]}]}',
            "config.json: dependencies[0].packages[0].package_name: is missing",
        ),
    ],
)
def test_config__that_is_missing_or_malformed_is_refused_with_the_path_inside(
    package: Any, tmp_path: Path, write_files: Any, text: str | None, expected: str
) -> None:
    home = package()
    (home / "config.json").unlink()
    if text is not None:
        (home / "config.json").write_text(text)
    source = write_files(tmp_path / "in", {"1.jpg": "x"})
    with pytest.raises(SpecificationError) as refused:  # as a run refuses it: see the next test
        check_service({"model": str(home), "input_path": str(source), "output_path": str(tmp_path / "out")})
    assert expected in str(refused.value)
    assert not (tmp_path / "out").exists()


def test_config__that_is_malformed_fails_the_run_before_anything_is_written(
    run_service: Any, package: Any, tmp_path: Path, write_files: Any
) -> None:
    home = package()
    (home / "config.json").write_text("{}")
    ran = run_service(model=str(home), input_path=str(write_files(tmp_path / "in", {"1.jpg": "x"})))
    assert (ran.state, type(ran.error)) == ("Failed", SpecificationError)
    assert "config.json: model_type: is missing" in str(ran.error)
    assert not (tmp_path / "out").exists()


def test_specification__names_an_unknown_field() -> None:
    with pytest.raises(SpecificationError) as caught:
        require({"model": "m", "input_path": "in", "output_path": "out", "imput_path": "in", "instances": 0})
    assert "imput_path = 'in': is not a known field" in str(caught.value)
    assert "instances = '0'" in str(caught.value)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, "there is no file in this folder"),
        (
            {".hidden": "x", "_SUCCESS": "", "a.manifest": "", "b/.git/c": "x"},
            "(4 hidden files, names that begin with _ and manif",
        ),
    ],
)
def test_input__without_any_item_is_refused(
    run_service: Any, running: dict[str, str], tmp_path: Path, write_files: Any, files: dict[str, str], expected: str
) -> None:
    ran = run_service(input_path=str(write_files(tmp_path / "in", files)), **running)
    assert (ran.state, type(ran.error)) == ("Failed", SpecificationError)
    assert expected in str(ran.error)


def test_input_manifest__without_any_item_is_refused(run_service: Any, running: dict[str, str], tmp_path: Path) -> None:
    for number, text in enumerate(("", "\n\n \n")):
        (tmp_path / f"{number}.manifest").write_text(text)
        ran = run_service(input_path=str(tmp_path / f"{number}.manifest"), **running)
        assert (ran.state, type(ran.error)) == ("Failed", SpecificationError)
        assert "input_path" in str(ran.error)


def test_permissions__of_input_and_output_are_checked_before_anything_runs(
    thresher: Any, running: dict[str, str], tmp_path: Path, write_files: Any
) -> None:
    source, locked = write_files(tmp_path / "in", {"1.jpg": "x"}), write_files(tmp_path / "locked", {"1.jpg": "x"})
    spec = tmp_path / "spec.yaml"
    spec.write_text(json.dumps({**running, "input_path": str(source), "output_path": str(tmp_path / "locked-out")}))
    (tmp_path / "locked-out").mkdir(mode=0o500)
    locked.chmod(0)
    try:
        for more, expected in (
            (
                ["--set", f"input_path={locked}", "--set", "output_path=fresh"],
                "input_path = '{locked}': No permission.",
            ),
            ([], "output_path = '{out}': should be a folder that can be written to: No permission."),
            (["--set", "output_path=locked-out/new"], "It does not exist and cannot be created (no permission"),
        ):
            done = thresher("validate", spec, *more, preexec=without_root_powers)
            assert (done.returncode, done.stdout) == (2, "")
            assert expected.format(locked=locked, out=tmp_path / "locked-out") in done.stderr
            assert "(1 problem)" in done.stderr and "Traceback" not in done.stderr
    finally:
        locked.chmod(0o700)


# -- items ----------------------------------------------------------------------------------------------------------


def test_input_manifest__every_broken_line_has_its_own_failed_line(
    run_service: Any, running: dict[str, str], tmp_path: Path, write_files: Any
) -> None:
    write_files(tmp_path, {"in/good.jpg": "good", "in/a/same.jpg": "a", "in/b/same.jpg": "b", "in/folder/x": "x"})
    lines: list[tuple[bytes, list[tuple[str, str]]]] = [
        (b'\xef\xbb\xbf{"source": "good.jpg"}\r', [("good.jpg", "")]),
        (b"", []),
        (b'{"source": "good.jpg"', [('{"source": "good.jpg"', "Line 3 of the input manifest cannot be read: not")]),
        (b'{"source": "folder/"}', [("folder/", "Download file failed. It is a folder; a manifest names files.")]),
        (b'{"source": "folder"}', [("folder", "Download file failed. It is a folder, not a file.")]),
        (b'{"source": "ftp://host/1.jpg"}', [("ftp://host/1.jpg", "Download file failed. The scheme ftp:// is not")]),
        (b'{"target": "good.jpg"}', [('{"target": "good.jpg"}', "Line 7 of the input manifest cannot be read: it")]),
        (b"[1]", [("[1]", "Line 8 of the input manifest cannot be read: not a JSON object such as")]),
        (b'{"source": "good.jpg"}', [("good.jpg", "")]),
        (b'{ "source" : "a/same.jpg" , "more": {"deep": [1]}}  {" source ": "b/same.jpg"}',
         [("a/same.jpg", ""), ("b/same.jpg", "")]),
        (b'{"source": "missing.jpg"}', [("missing.jpg", "Download file failed. There is no such file.")]),
        (b'{"source": "caf\xe9.jpg"}', [('{"source": "caf\\xe9.jpg"}', "Line 12 of the input manifest cannot be")]),
        (b'{"source": "../in/folder/../good.jpg"}', [("../in/folder/../good.jpg", "")]),
        (b'{"source": "s3:///key"}', [("s3:///key", "Download file failed. The bucket is missing")]),
        (b'{"source": ""}', [('{"source": ""}', "Line 15 of the input manifest cannot be read")]),
        (b'{"source": "good.jpg"}', [("good.jpg", "")]),  # and no final line break
    ]  # fmt: skip
    (tmp_path / "in" / "in.manifest").write_bytes(b"\n".join(line for line, _ in lines))
    ran = run_service(input_path=str(tmp_path / "in" / "in.manifest"), **running)
    expected = [item for _, items in lines for item in items]
    assert ran.state == "Completed"
    assert [one["source"] for one in ran.lines] == [source for source, _ in expected]
    for line, (_, message) in zip(ran.lines, expected, strict=True):
        assert line.get("error_message", "").startswith(message)
        assert (line["result"] == "SUCCESSFUL") == (not message)
    locations = [one["inference-loc"] for one in ran.lines if "inference-loc" in one]
    assert len(set(locations)) == len(locations) == len(ran.files) == 6
    folder = f"{tmp_path}/out/infer-result-{ran.task_id}/"
    assert sorted(ran.files) == sorted(one.removeprefix(folder) for one in locations)


def test_output_manifest__goes_on_in_further_parts_above_100_000_lines(
    run_service: Any, running: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert read_settings().manifest_lines == 100_000
    monkeypatch.setenv("THRESHER_MANIFEST_LINES", "1000")
    (tmp_path / "one.jpg").write_text("x")
    lines = [f'{{"source": "ftp://host/{number}.jpg"}}\n' for number in range(1_000)]
    (tmp_path / "in.manifest").write_text("".join([*lines, '{"source": "one.jpg"}\n']))
    ran = run_service(input_path=str(tmp_path / "in.manifest"), **running)
    assert (ran.state, ran.result.items, ran.result.failed) == ("Completed", 1_001, 1_000)
    part = tmp_path / "out" / f"infer-result-{ran.task_id}_1.manifest"
    assert ran.result.manifests == (ran.result.manifest, str(part))
    assert [one["source"] for one in ran.lines] == [f"ftp://host/{number}.jpg" for number in range(1_000)]
    assert [json.loads(line)["source"] for line in part.read_text().splitlines()] == ["one.jpg"]
    assert ran.summary["top_causes"][0]["items"] == 1_000


NAMES = [
    "a b.jpg", "a%20b.jpg", "100%.jpg", "a#b.jpg", "a?b=c&d.jpg", "it's \"quoted\".jpg", "汉字.jpg", "😀.png", "tail ",
    "back\\slash.jpg", "line\nbreak.jpg", "..a/b..c/..jpg", "a+b.jpg", "n" * 251 + ".jpg", "汉" * 85, "x_result.txt",
]  # fmt: skip


def test_names__of_every_kind_are_kept_and_stay_inside(
    run_service: Any, running: dict[str, str], tmp_path: Path, write_files: Any
) -> None:
    names = [name for name in NAMES if not name.startswith("..")]
    source = write_files(tmp_path / "in", {name: f"item {number}" for number, name in enumerate(names)})
    ran = run_service(input_path=str(source), **running)
    assert ran.state == "Completed"
    assert [one["source"] for one in ran.lines] == [f"{source}/{name}" for name in sorted(names, key=str.encode)]
    assert [one["result"] for one in ran.lines] == ["SUCCESSFUL"] * len(names)
    files = set(ran.files)
    assert len(files) == len(names)
    short = {f"{name}_result.txt" for name in names if len(name.encode()) <= 244 and "\n" not in name}
    assert len(short) == len(names) - 3 and short < files
    assert all(Path(one["inference-loc"]).is_file() for one in ran.lines)
    assert ran.top == ["infer-result-{id}", "infer-result-{id}.manifest", "infer-result-{id}.summary.json"]


def test_names__with_parts_that_lead_upwards_stay_below_the_result_folder(
    run_service: Any, running: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = ["in/../../up.jpg", "in//empty.jpg", "in/./dot.jpg", "in/plain.jpg", "in/a/../plain.jpg"]
    with OddS3Server({"bucket": dict.fromkeys(keys, b"picture")}) as s3:
        for name, value in s3.environment().items():
            monkeypatch.setenv(name, value)
        ran = run_service(input_path="s3://bucket/in", **running)
    assert ran.state == "Completed"
    assert [one["source"] for one in ran.lines] == sorted(f"s3://bucket/{key}" for key in keys)
    assert [one["result"] for one in ran.lines] == ["SUCCESSFUL"] * 5
    assert len(ran.files) == 5
    assert sorted(os.listdir(tmp_path)) == ["out"]
    for one in ran.lines:
        assert Path(one["inference-loc"]).resolve().is_relative_to(tmp_path / "out" / f"infer-result-{ran.task_id}")


def test_sizes__of_images_stay_below_12_mib_and_of_others_do_not_exceed_it(
    run_service: Any, running: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a.jpg", "b.PNG", "c.bin"):
        for more in (-1, 0, 1):
            with (tmp_path / "in" / f"{more}{name}").open("wb") as file:
                file.truncate(LIMIT + more)
    ran = run_service(input_path=str(tmp_path / "in"), **running)
    assert ran.state == "Completed"
    image, other = "smaller than", "not larger than"
    assert ran.messages == {
        "-1a.jpg": "SUCCESSFUL", "-1b.PNG": "SUCCESSFUL", "-1c.bin": "SUCCESSFUL", "0c.bin": "SUCCESSFUL",
        "0a.jpg": TOO_LARGE.format(size=LIMIT, rule=image), "0b.PNG": TOO_LARGE.format(size=LIMIT, rule=image),
        "1a.jpg": TOO_LARGE.format(size=LIMIT + 1, rule=image), "1b.PNG": TOO_LARGE.format(size=LIMIT + 1, rule=image),
        "1c.bin": TOO_LARGE.format(size=LIMIT + 1, rule=other),
    }  # fmt: skip
    assert len(ran.lines) == 9 and len(ran.files) == 4


def test_sizes__of_csv_files_do_not_exceed_12_mib(
    run_service: Any, running: dict[str, str], tmp_path: Path, write_files: Any
) -> None:
    files = {f"{more}.csv": b"1," + b"x" * (LIMIT + more - 3) + b"\n" for more in (-1, 0, 1)}
    source = write_files(tmp_path / "in", files)
    ran = run_service(input_path=str(source), request_path="/echo", **running)
    assert ran.messages == {
        "-1.csv": "SUCCESSFUL", "0.csv": "SUCCESSFUL", "1.csv": TOO_LARGE.format(size=LIMIT + 1, rule="not larger than")
    }  # fmt: skip
    assert sorted(ran.files) == ["-1.csv_result.txt", "0.csv_result.txt"]
    assert json.loads(ran.files["0.csv_result.txt"])["text"] == "x" * (LIMIT - 3)


def echo(number: str, text: str) -> str:
    """The answer line of a row that the model at /echo gets."""
    return f'{{"n":{number},"text":{json.dumps(text, ensure_ascii=False)}}}\n'


def test_csv__every_kind_of_file_and_row_is_told_apart(
    run_service: Any, running: dict[str, str], tmp_path: Path, write_files: Any
) -> None:
    column = "line {line}, column {column}"
    few = f"{column.format(line=1, column=1)}, field text: the row has 1 columns only (columns are counted from 0)"
    word = f'{column.format(line=2, column=0)}, field n: "x" is not a number'
    cases: dict[str, tuple[str | bytes, str, str | None]] = {
        "bad-all.csv": ("x,a\n\ny,b\n", '2 of 2 rows failed, first: row 1: line 1, column 0, field n: "x" is', None),
        "bad-chinese.csv": ("1,a\n2,b汉\n",
                            "line 2, column 4: the Chinese character '汉'; a CSV file should have none, unless", None),
        "bad-empty.csv": ("", "The CSV file has no rows.", None),
        "bad-few.csv": ("1\n2,b\n", f"1 of 2 rows failed, first: row 1: {few}",
                        f'{{"error": "{few}"}}\n{echo("2", "b")}'),
        "bad-lines.csv": ("\n\n\r\n", "The CSV file has no rows.", None),
        "bad-latin.csv": (b"1,a\n2,caf\xe9\n",
                          "line 2, column 6: byte 0xE9 is not UTF-8; a CSV file should be UTF-8.", None),
        "bad-model.csv": ("1,FAIL:badjson\n2,FAIL:empty\n3,FAIL:404\n4,good\n",
                          "2 of 4 rows failed, first: row 2: The model's answer is empty; JSON was expected", "?"),
        "bad-nan.csv": ("NaN,a\n1e40,b\n", "1 of 2 rows failed, first: row 1: line 1, column 0, field n: ", "?"),
        "bad-open.csv": ('1,a\n2,"b\n', "line 2: broken CSV, a quoted cell is never closed.", None),
        "bad-word.csv": ("1,a\nx,b\n3,c", f"1 of 3 rows failed, first: row 2: {word}",
                         f'{echo("1", "a")}{{"error": {json.dumps(word)}}}\n{echo("3", "c")}'),
        "notes.txt": ("1,a\n",
                      "A .csv file was expected, because the model's request is JSON: one request a row.", None),
        "ok-blank.csv": ("\n1,a\n\n\n2,b\n", "", echo("1", "a") + echo("2", "b")),
        "ok-bom.csv": (b"\xef\xbb\xbf1,a\n", "", echo("1", "a")),
        "ok-crlf.csv": ("1,a\r\n2,b\r\n", "", echo("1", "a") + echo("2", "b")),
        "ok-more.csv": ("1,a,c,d\n", "", echo("1", "a")),
        "ok-no-end.csv": ("1,a\n2.50,é", "", echo("1", "a") + echo("2.50", "é")),
        "ok-quoted.csv": ('1,"a,b"\n2,"two\nlines"\n3,"say ""hi"""\n', "",
                          echo("1", "a,b") + echo("2", "two\nlines") + echo("3", 'say "hi"')),
    }  # fmt: skip
    source = write_files(tmp_path / "in", {name: text for name, (text, _, _) in cases.items()})
    ran = run_service(input_path=str(source), request_path="/echo", **running)
    assert ran.state == "Completed"
    assert [one["source"] for one in ran.lines] == [f"{source}/{name}" for name in sorted(cases)]
    files = ran.files
    for name, (_, message, result) in cases.items():
        said = ran.messages[name]
        assert said.startswith(message) if message else said == "SUCCESSFUL", name
        written = files.get(f"{name}_result.txt")
        assert (written is None) == (result is None), name
        if result and result != "?":
            assert written is not None and written.decode() == result, name
    answers = files["bad-model.csv_result.txt"].decode().splitlines()
    assert answers[0] == json.dumps('{"ok": tr')
    assert answers[1] == '{"error": "The model\'s answer is empty; JSON was expected"}'
    assert answers[2] == '{"error": "The model answered HTTP 404: {\\"error\\": \\"as asked\\"}"}'
    assert answers[3] == echo("4", "good").strip()
    assert ran.summary["items"] == {"planned": 17, "successful": 6, "failed": 11, "not_processed": 0}
