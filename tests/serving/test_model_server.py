"""Requests to a running model server with tiny packages."""

from __future__ import annotations

import http.client
import io
import socket
from typing import Any

import pytest

# The fixtures of conftest.py; their types are written out here because tests are no package.
StartServer = Any
WritePackage = Any

ECHO = """
from model_service.pytorch_model_service import PTServingBaseService
class Echo(PTServingBaseService):
    def _preprocess(self, data):
        return {"got": data, "type": type(data).__name__}
    def _inference(self, data):
        return data
"""
FILES = """
import io
from model_service.pytorch_model_service import PTServingBaseService
class Files(PTServingBaseService):
    def _inference(self, data):
        return {
            key: value if isinstance(value, str)
            else {name: [type(file) is io.BytesIO, len(file.read())] for name, file in value.items()}
            for key, value in data.items()
        }
"""
ANSWERS = """
import datetime, sys
from model_service.model_service import SingleNodeService
class Array:
    def __init__(self, *values): self.values = list(values)
    def tolist(self): return self.values
class Answers(SingleNodeService):
    def _inference(self, data):
        return eval(data["answer"])
"""


@pytest.fixture
def answers(write_package: WritePackage, start_server: StartServer) -> Any:
    """A server that answers with the value of the Python expression it is sent."""
    server = start_server(write_package(ANSWERS)).ready()
    return lambda expression: server.post({"answer": expression})


@pytest.mark.parametrize("content_type", ["application/json", "applicaton/json; charset=utf-8", "multipart/form-data"])
def test_server__hands_json_to_the_model_whatever_it_is_called(
    write_package: WritePackage, start_server: StartServer, content_type: str
) -> None:
    server = start_server(write_package(ECHO)).ready()
    assert server.post({"text": "图"}, content_type).json() == {"got": {"text": "图"}, "type": "dict"}
    assert server.post([1, 2], content_type).json() == {"got": [1, 2], "type": "list"}


def test_server__hands_multipart_files_over_under_their_names(
    write_package: WritePackage, start_server: StartServer
) -> None:
    server = start_server(write_package(FILES)).ready()
    names = ["图片.jpg", "🐈‍⬛.png", 'say "cheese".jpg', "line\r\nbreak.jpg", "a;b\\.jpg"]
    body = io.BytesIO()
    for number, name in enumerate(names):
        escaped = name.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")
        body.write(f'--b\r\nContent-Disposition: form-data; name="images"; filename="{escaped}"\r\n'.encode())
        body.write(b"Content-Type: application/octet-stream\r\n\r\n" + b"\x00" * number + b"\r\n")
    body.write(b'--b\r\nContent-Disposition: form-data; name="top"\r\n\r\n5\r\n--b--\r\n')
    answer = server.post(body.getvalue(), "multipart/form-data; boundary=b")
    assert answer.json() == {"images": {name: [True, number] for number, name in enumerate(names)}, "top": "5"}


def test_server__takes_a_body_of_20_mb(write_package: WritePackage, start_server: StartServer) -> None:
    server = start_server(write_package(FILES)).ready()
    content = bytes(20_000_000)
    body = b'--b\r\nContent-Disposition: form-data; name="a"; filename="x"\r\n\r\n' + content + b"\r\n--b--\r\n"
    assert server.post(body, "multipart/form-data; boundary=b").json() == {"a": {"x": [True, len(content)]}}


def test_server__sends_an_answer_of_20_mb(answers: Any) -> None:
    assert answers("['x' * 99] * 200_000").json() == ["x" * 99] * 200_000
    assert answers("'x' * 20_000_000").body == b"x" * 20_000_000


def test_server__answers_in_the_form_that_postprocess_chose(answers: Any) -> None:
    text = answers("'Köln'")
    assert (text.headers["content-type"], text.body.decode()) == ("text/plain; charset=utf-8", "Köln")
    raw = answers("b'\\x89PNG'")
    assert (raw.headers["content-type"], raw.body) == ("application/octet-stream", b"\x89PNG")
    plain = answers("{'a': Array(1, Array(2.5)), 'b': {2, 1}, 'c': b'cat', 'd': datetime.date(2024, 5, 6)}")
    assert plain.json() == {"a": [1, [2.5]], "b": [1, 2], "c": "cat", "d": "2024-05-06"}
    assert answers("None").json() is None


@pytest.mark.parametrize(
    ("expression", "status", "error"),
    [
        ("1 / 0", 500, "ZeroDivisionError: division by zero"),
        ("data['nope']", 400, "KeyError: 'nope'"),
        ("sys.exit(3)", 500, "SystemExit: 3"),
        ("(_ for _ in ()).throw(ValueError())", 500, "ValueError"),
        ("object()", 400, "TypeError: answer: object cannot be sent as JSON; convert it in _postprocess"),
    ],
)
def test_server__lives_on_after_an_exception_of_the_model(
    write_package: WritePackage, start_server: StartServer, expression: str, status: int, error: str
) -> None:
    server = start_server(write_package(ANSWERS)).ready()
    answer = server.post({"answer": expression})
    assert (answer.status, answer.json()) == (status, {"error": error})
    assert "Traceback" in server.output()
    assert error.partition(":")[0] in server.output()
    assert server.post({"answer": "1 + 1"}).json() == 2


def test_server__logs_the_traceback_of_the_models_code_without_its_own(
    write_package: WritePackage, start_server: StartServer
) -> None:
    server = start_server(write_package(ANSWERS)).ready()
    server.post({"answer": "1 / 0"})
    trace = server.output().partition("Traceback")[2]
    assert trace.splitlines()[1].endswith('customize_service.py", line 9, in _inference')
    assert "builtin_server" not in trace


def test_server__refuses_malformed_bodies(write_package: WritePackage, start_server: StartServer) -> None:
    server = start_server(write_package(ECHO)).ready()
    for body, content_type in [
        (b"{", "application/json"),
        (b"", "application/json"),
        (b"--b\r\nnonsense", "multipart/form-data; boundary=b"),
        (b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n', "multipart/form-data; boundary=b"),
        (b"no json either", "multipart/form-data"),
    ]:
        answer = server.post(body, content_type)
        assert answer.status == 400, body
        assert answer.json()["error"]


def test_server__does_not_answer_web_pages_nor_foreign_names(
    write_package: WritePackage, start_server: StartServer
) -> None:
    server = start_server(write_package(ECHO)).ready()

    def status(method: str = "POST", **headers: str) -> int:
        # What a page may send to anywhere without being asked for leave: a form's content type.
        answer = server.request(method, "/" if method == "POST" else "/health", b"{}", "text/plain", **headers)
        return answer.status if answer.status == 403 else 200

    for origin in ("https://evil.example", "null", f"http://127.0.0.1:{server.port}"):
        assert status(Origin=origin) == status("GET", Origin=origin) == 403
    for host in (
        "evil.example",
        f"evil.example:{server.port}",
        "127.0.0.1.evil.example",
        "127.0.0.1:x",
        ":80",
        "192.0.2.1",
    ):
        assert status(Host=host) == status("GET", Host=host) == 403, host
    for host in (f"127.0.0.1:{server.port}", f"localhost:{server.port}", "LOCALHOST", "[::1]:8080", ""):
        assert status(Host=host) == 200, host


def test_server__names_the_paths_there_are_when_asked_for_another(
    write_package: WritePackage, start_server: StartServer
) -> None:
    config = {"apis": [{"url": "/detect", "method": "post"}, {"url": "/info", "method": "get"}]}
    server = start_server(write_package(ECHO, config)).ready()
    answer = server.post({}, path="/nope")
    assert answer.status == 404
    assert answer.json()["error"] == (
        "there is no '/nope' here; there are: POST /detect, GET /info, GET /health, HEAD /health"
    )
    assert server.post({}, path="/").status == 404
    assert server.post({}, path="/detect").status == 200


def test_server__answers_only_the_declared_method(write_package: WritePackage, start_server: StartServer) -> None:
    config = {"apis": [{"url": "/detect"}, {"url": "/info", "method": "GET"}], "health": {"url": "/alive"}}
    server = start_server(write_package(ECHO, config)).ready("/alive")
    wrong = server.request("GET", "/detect")
    assert (wrong.status, wrong.headers["allow"]) == (405, "POST")
    assert server.request("PUT", "/info").status == 405
    assert server.request("POST", "/alive").status == 405
    assert server.request("GET", "/info?city=K%C3%B6ln", content_type="").json()["got"] == {"city": "Köln"}
    assert server.request("HEAD", "/alive").status == 200


def test_server__keeps_its_connections_open(write_package: WritePackage, start_server: StartServer) -> None:
    server = start_server(write_package(ECHO)).ready()
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.connect()
    used = connection.sock
    # Refused requests too: the body of a request to a wrong path must not be taken for the next request.
    for path, body in [("/", b"{}"), ("/nope", b"x" * 1_000_000), ("/", b"{"), ("/", b"[1]")]:
        connection.request("POST", path, body)
        connection.getresponse().read()
        assert connection.sock is used
    connection.close()


def test_server__listens_on_the_local_address_only(write_package: WritePackage, start_server: StartServer) -> None:
    server = start_server(write_package(ECHO)).ready()
    with socket.socket() as other, pytest.raises(ConnectionRefusedError):
        other.connect(("127.0.0.2", server.port))
