"""``thresher models try``: one start, the request as a service would send it, the answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

CUSTOM = """
import os
from model_service.model_service import SingleNodeService


class Service(SingleNodeService):
    def __init__(self, model_name, model_path):
        super().__init__(model_name, model_path)
        print("loaded as", model_name, flush=True)
        open(os.path.join(os.environ["SCRATCH_FOLDER"], "x"), "w").close()

    def _inference(self, data):
        rows = data["data"]["req_data"]
        print("asked for", len(rows), flush=True)
        return [row["input_1"] / row["input_2"] for row in rows]

    def _postprocess(self, data):
        return [{"predictresult": one} for one in data]
"""


@pytest.fixture
def custom(tmp_path: Path, config: Any) -> Path:
    """A package for the built-in model server that divides two numbers."""
    home = tmp_path / "division"
    home.mkdir()
    document = config(model_type="Custom")
    document["apis"] = [{**next(api for api in document["apis"] if api["url"] == "/iris"), "url": "/"}]
    (home / "config.json").write_text(json.dumps(document))
    (home / "customize_service.py").write_text(CUSTOM)
    return home


def test_try__shows_the_request_of_a_row_and_the_answer(command: Any, custom: Path) -> None:
    done = command("models", "try", custom, "--row", " 3 ,2", "--row", "1,4", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [one["body"] for one in found["exchanges"]] == [
        '{"data":{"req_data":[{"input_1":3,"input_2":2}]}}', '{"data":{"req_data":[{"input_1":1,"input_2":4}]}}'
    ]  # fmt: skip
    assert [json.loads(one["answer"])[0]["predictresult"] for one in found["exchanges"]] == [1.5, 0.25]
    assert (found["serving"], found["succeeded"], found["output"]) == ("built-in", True, "")


def test_try__exits_1_with_the_last_output_if_the_answer_is_an_error(
    command: Any, custom: Path, session_folder: Path, processes_of: Any
) -> None:
    (custom / "rows.csv").write_text("1,0\n2,2\n")
    done = command("models", "try", custom, "--file", custom / "rows.csv")
    assert done.returncode == 1
    assert "POST /\nContent-Type: application/json\n\n" in done.stdout
    assert "answer    HTTP 500" in done.stdout and "ZeroDivisionError" in done.stdout
    assert "The model answered HTTP 500." in done.stderr and "asked for 1" in done.stderr
    assert not [one for one in processes_of(session_folder).values() if "serving/server.py" in one]
    assert list(session_folder.glob("thresher-*")) == []


def test_try__exits_1_with_the_last_output_if_the_package_does_not_start(
    command: Any, custom: Path, session_folder: Path
) -> None:
    (custom / "customize_service.py").write_text("raise RuntimeError('no weights')")
    done = command("models", "try", custom, "--row", "1,2")
    assert (done.returncode, done.stdout) == (1, "")
    assert "The model server ended with status 1." in done.stderr and "no weights" in done.stderr
    (custom / "customize_service.py").write_text("while True: pass")
    done = command("models", "try", custom, "--row", "1,2", "--timeout-minutes", "0.02")
    assert (done.returncode, done.stdout) == (1, "")
    assert "was not healthy within 1.2 s" in done.stderr
    assert list(session_folder.glob("thresher-*")) == []


def test_try__sends_a_file_to_a_package_in_the_store(command: Any, package: Any, tmp_path: Path) -> None:
    env = {"THRESHER_MODEL_STORE": str(tmp_path / "store")}
    assert command("models", "register", package(), "--name", "fake", env=env).returncode == 0
    (tmp_path / "1.jpg").write_bytes(b"\xff\xd8 picture")
    done = command("models", "try", "fake", "--file", "1.jpg", "--request-path", "/", "--json", env=env)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["version"], found["serving"]) == ("0.0.1", "boot-file")
    (sent,) = found["exchanges"]
    assert 'name="images"; filename="1.jpg"' in sent["body"] and "<10 bytes>" in sent["body"]
    assert (sent["item"], sent["status"]) == ("1.jpg", 200) and sent["answer"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            [],
            "--row: is needed, or --file with rows: the cells of a row, in CSV, are data.req_data[0].input_1 (number)",
        ),
        (["--row", "1"], "--row = '1': line 1"),
        (["--row", "a,2"], "--row = 'a,2': line 1"),
        (["--row", ""], "--row = ''"),
        (["--file", "nowhere.csv"], "--file = 'nowhere.csv': There is no such file."),
        (["--file", "names.csv"], "--file = 'names.csv': "),
        (["--row", "1,2", "--request-path", "/x"], "--request-path = '/x': the model answers at: /"),
        (["--row", "1,2", "--model-version", "1"], "PATH = '"),
    ],
)
def test_try__refuses_what_cannot_be_sent_before_anything_is_started(
    command: Any, custom: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    (tmp_path / "names.csv").write_text("length,width\n")
    (custom / "customize_service.py").write_text("raise SystemExit('it was started')")
    done = command("models", "try", "division", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr and "it was started" not in done.stderr and "Traceback" not in done.stderr


def test_try__of_a_file_model_says_so(command: Any, package: Any) -> None:
    home = package()
    done = command("models", "try", home, "--row", "1,2", "--request-path", "/")
    assert done.returncode == 2 and "--row = '1,2': the model's request is a file: --file PATH" in done.stderr
    (home / "config.json").write_text('{"model_type": ')
    done = command("models", "try", home, "--row", "1,2")
    assert done.returncode == 2 and "config.json: should be JSON in UTF-8" in done.stderr
    assert "specification" not in done.stderr
    done = command("models", "try", "http://127.0.0.1:1/", "--row", "1")
    assert done.returncode == 2 and "PATH = 'http://127.0.0.1:1/': should be a package" in done.stderr


def test_try__takes_a_bare_model(command: Any, tmp_path: Path) -> None:
    model = Path(__file__).parents[2] / "infra" / "models" / "iris" / "iris.onnx"
    tried = command("models", "try", str(model), "--row", "5.1,3.5,1.4,0.2", "--json")
    assert tried.returncode == 0, tried.stderr
    (exchange,) = json.loads(tried.stdout)["exchanges"]
    assert len(json.loads(exchange["answer"])["data"]["resp_data"]) == 1
    assert command("models", "check", str(model)).returncode == 0
