"""The examples of infra/models/servers: model servers that others wrote, each started as its package says."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fakes.openai_server import OpenAIServer

from tasks.domain.config_file import parse_config
from tasks.domain.file_request import file_request

SERVERS = Path(__file__).parents[2] / "infra" / "models" / "servers"
KEY = "sk-for-the-test"
pytestmark = pytest.mark.prefect


@pytest.mark.soak
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "path", "item", "content", "answer"),
    [
        ("fastapi", "/brightness", "a.png", b"\xff\xff\x00", b'{"file":"a.png","bright":true}'),
        ("fastapi", "/size", "a.png", b"\x00\xff\x00", b'{"bytes":3}'),
        ("litserve", None, "a.png", b"\x00\xff", b'{"size":2}'),
        ("bentoml", None, "a.csv", b"tea,3\n", b'{"product":"tea","price":7.5,"currency":"EUR"}\n'),
        ("mlserver", None, "a.csv", b"1,2,3.5\n", b"6.5"),
        ("mlflow", None, "a.csv", b"2,3\n0.5,4\n", b'{"predictions":[6.0]}\n{"predictions":[2.0]}\n'),
    ],
)
def test_server__answers_as_its_page_says(
    name: str, path: str | None, item: str, content: bytes, answer: bytes, run_service: Any, tmp_path: Path
) -> None:
    package = tmp_path / "package"
    shutil.copytree(SERVERS / name, package)
    before = sorted(package.rglob("*"))
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / item).write_bytes(content)
    ran = run_service(model=str(package), input_path=str(tmp_path / "in"), request_path=path)
    assert ran.state == "Completed", (ran.error, ran.messages)
    (given,) = ran.files.values()
    assert given == answer or (name == "mlserver" and json.loads(given)["outputs"][0]["data"] == [6.5])
    assert sorted(package.rglob("*")) == before, "it writes to its scratch folder only"


@pytest.mark.parametrize(
    ("name", "path", "body"),
    [
        ("fastapi", "/brightness", None),
        ("fastapi", "/size", b"\x00\xff"),
        ("torchserve", None, b"\x00\xff"),
        ("litserve", None, b'{"image":"AP8=","task":"size"}'),
    ],
)
def test_example__says_how_its_file_is_sent(name: str, path: str | None, body: bytes | None) -> None:
    running = not (SERVERS / name / "run.sh").exists()
    config = parse_config((SERVERS / name / "config.json").read_bytes(), "config.json", running=running)
    assert config.passed_over == ()
    request = file_request(config.api(path), "running" if running else "boot-file")
    assert request is not None
    made = request.body("a.png", b"\x00\xff")
    if body is not None:
        assert made.data == body
    else:
        assert made.content_type.startswith("multipart/form-data")
        assert b'name="threshold"\r\n' in made.data and b"\r\n0.5\r\n" in made.data


@pytest.fixture
def openai_at() -> Any:
    """The fields of a service for an endpoint like OpenAI's."""

    def fields(server: OpenAIServer) -> dict[str, Any]:
        return {
            "model": server.url,
            "model_config": str(SERVERS / "openai" / "config.json"),
            "headers": {"Authorization": f"Bearer {KEY}"},
        }

    return fields


def test_endpoint__like_openais_gets_each_row_as_a_message(run_service: Any, openai_at: Any, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "words.csv").write_text('hello there\n"a, ""b"""\n')
    with OpenAIServer(KEY) as server:
        ran = run_service(**openai_at(server), input_path=str(tmp_path / "in"))
    assert ran.state == "Completed", (ran.error, ran.messages)
    answers = [json.loads(line) for line in ran.files["words.csv_result.txt"].splitlines()]
    assert [one["choices"][0]["message"]["content"] for one in answers] == ["HELLO THERE", 'A, "B"']
    first = {"role": "system", "content": "Answer with one word."}
    sent = next(one for one in server.asked if one["messages"][1]["content"] == "hello there")
    user = {"role": "user", "content": "hello there"}
    assert sent == {"model": "tiny", "temperature": 0, "stream": False, "messages": [first, user]}


def test_endpoint__that_refuses_the_key_ends_the_run(run_service: Any, openai_at: Any, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "words.csv").write_text("hello\n")
    with OpenAIServer("another") as server:
        ran = run_service(**openai_at(server), input_path=str(tmp_path / "in"))
    assert ran.state == "Failed"
    assert "HTTP 401" in str(ran.error)
    assert KEY not in str(ran.error) + json.dumps(ran.summary)


@pytest.mark.soak
@pytest.mark.slow
def test_double__of_openais_api_is_one_that_its_own_client_accepts(tmp_path: Path) -> None:
    uv = [sys.executable, "-m", "uv"]
    home = tmp_path / "environment"
    subprocess.run([*uv, "venv", "--quiet", "--no-project", "--python", sys.executable, home], check=True)
    subprocess.run(
        [*uv, "pip", "install", "--quiet", "--python", home / "bin" / "python", "openai==3.57.0"], check=True
    )
    code = (
        "import sys, openai\n"
        "client = openai.OpenAI(base_url=sys.argv[1] + '/v1', api_key=sys.argv[2], max_retries=0)\n"
        "print([one.id for one in client.models.list()])\n"
        "say = [{'role': 'user', 'content': 'hello'}]\n"
        "made = client.chat.completions.create(model='tiny', messages=say, temperature=0)\n"
        "print(made.choices[0].message.content, made.choices[0].finish_reason, made.usage.total_tokens)\n"
        "try:\n    client.chat.completions.create(model='large', messages=say)\n"
        "except openai.NotFoundError as error:\n    print(error.code)\n"
    )
    with OpenAIServer(KEY) as server:
        ran = subprocess.run(
            [home / "bin" / "python", "-c", code, server.url, KEY], capture_output=True, text=True, check=False
        )
    assert (ran.stdout.splitlines(), ran.stderr) == (["['tiny']", "HELLO stop 2", "model_not_found"], "")
