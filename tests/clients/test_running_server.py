"""Model servers that already run: whether they are there."""

from __future__ import annotations

from pathlib import Path

import pytest
from clients.support import run
from fakes.model_server import FakeModelServer
from fakes.processes import DEADLINE_SECONDS, closed_port, meanwhile, poll

from tasks.clients.instances.running_server import RunningServer, first_there, is_final
from tasks.clients.model_http.http_reply import NO_SUCH_HOST, NO_TLS
from tasks.domain.errors import ModelServerError, ServerAway
from tasks.domain.package import Health


def test_server__that_answers_is_there() -> None:
    with FakeModelServer() as model:
        for one in (
            RunningServer(model.url, Health()),
            RunningServer(f"{model.url}/", Health(url="/nothing-there")),  # 404: no health address, but it answers
            RunningServer(f"{model.url}/v1/x:predict", Health(), "/"),
        ):
            assert run(first_there([one], DEADLINE_SECONDS)) == [one]
        assert model.stats()["requests"]["/health"] == 3  # one was asked before


@pytest.mark.parametrize("period_seconds", [0.1, 3600])
def test_server__that_comes_late_is_asked_again_whatever_the_period(tmp_path: Path, period_seconds: float) -> None:
    loaded = tmp_path / "loaded"

    def load() -> None:
        poll(lambda: model.stats()["statuses"].get("503"), "a question before the model is loaded")
        loaded.touch()

    with FakeModelServer("--health-when", str(loaded), wait_healthy=False) as model, meanwhile(load):
        run(first_there([RunningServer(model.url, Health(period_seconds=period_seconds))], DEADLINE_SECONDS))


def test_server__that_is_not_there_is_named_without_the_secrets_of_its_address() -> None:
    with closed_port() as port:
        one = RunningServer(f"http://127.0.0.1:{port}/x?key=hunter22", Health(period_seconds=0.1), "/")
        with pytest.raises(
            ModelServerError, match=r"is not healthy \(GET /health: no connection \(Connection refused\)\)"
        ) as raised:
            run(first_there([one], 0.3))
    assert "hunter22" not in str(raised.value)


def test_server__that_has_another_answer_than_to_wait_is_not_waited_for() -> None:
    for address in ("http://no-such-host.invalid", "http://127.0.0.1:1"):
        said: list[str] = []
        unknown = "invalid" in address
        with pytest.raises(
            ModelServerError, match="no host has this name" if unknown else "Connection refused"
        ) as raised:
            run(first_there([RunningServer(address, Health())], 3600 if unknown else 0, said.append))
        assert (type(raised.value), len(said)) == ((ModelServerError, 0) if unknown else (ServerAway, 1))


@pytest.mark.parametrize(
    ("said", "final"),
    [
        ("HTTP 302 to /x, and redirects are not followed", True), ("HTTP 401", True), ("HTTP 410", True),
        (f"{NO_TLS} (certificate has expired)", True), (f"{NO_SUCH_HOST} (Name or service not known)", True),
        *((said, False) for said in ("HTTP 408", "HTTP 429", "HTTP 500", "HTTP 503", "no answer within 5 s")),
        ("no connection (Connection refused)", False), ("no connection (Temporary failure in name resolution)", False),
    ],
)  # fmt: skip
def test_health__is_asked_again_if_waiting_may_change_it(said: str, final: bool) -> None:
    assert is_final(said) is final


def test_server__that_wants_other_headers_is_asked_once() -> None:
    with FakeModelServer("--token", "right-token", wait_healthy=False) as model:
        allowed = RunningServer(model.url, Health(), headers={"Authorization": "Bearer right-token"})
        refused = RunningServer(model.url, Health(), headers={"Authorization": "Bearer wrong-token"})
        assert run(first_there([allowed], DEADLINE_SECONDS)) == [allowed]
        before = model.stats()["requests"]["/health"]
        for asking in (first_there([refused, allowed], DEADLINE_SECONDS), refused.there()):
            with pytest.raises(
                ModelServerError, match=r"^The model server http://\S+ answered HTTP 401 to GET /health"
            ):
                run(asking)
        assert model.stats()["requests"]["/health"] == before + 3
    assert "token" not in repr(allowed)


def test_servers__need_not_all_be_there() -> None:
    with FakeModelServer() as model, closed_port() as port:
        here, away = (RunningServer(url, Health(period_seconds=0.1)) for url in (model.url, f"http://127.0.0.1:{port}"))
        assert run(first_there([away, here], DEADLINE_SECONDS)) == [here]
