"""Who may ask a Prefect server of ours for what."""

from __future__ import annotations

import pytest

from tasks.domain.api_access import Asked, Verdict, authorization, verdict

PASSWORD = "thresher:right"
HOST = ("host", "127.0.0.1:4200")
RIGHT = ("authorization", authorization(PASSWORD))
OWN = ("origin", "http://127.0.0.1:4200")
READ = "/api/block_documents/filter"


def of(*headers: tuple[str, str], method: str = "POST", path: str = READ, websocket: bool = False) -> Verdict:
    return verdict(Asked(method, path, headers, websocket), PASSWORD)


@pytest.mark.parametrize("host", ["127.0.0.1:4200", "localhost:4200", "LOCALHOST:4200", "[::1]:4200", "127.0.0.1"])
def test_host__of_this_machine_is_answered_whatever_its_port(host: str) -> None:
    assert of(("host", host), RIGHT) is Verdict.PASSWORD


@pytest.mark.parametrize(
    "host",
    ["evil.example:4200", "127.0.0.1.evil.example:4200", "evil.example@127.0.0.1", "127.0.0.1@evil.example", "",
     "127.0.0.1:x", "localhost.:4200", "0.0.0.0:4200", "127.1:4200", "192.168.0.2:4200", "127.0.0.1/x", "a,127.0.0.1",
     "127.0.0.1 evil.example", "[::1", "127.0.0.1?x", "127.0.0.1#x"],
)  # fmt: skip
@pytest.mark.parametrize("path", [READ, "/", "/api/health", "/sign-in"])
def test_host__of_another_name_is_refused_also_with_the_password(host: str, path: str) -> None:
    assert of(("host", host), RIGHT, path=path, method="GET") is Verdict.FOREIGN_HOST
    assert of(("host", host), RIGHT, path=path, websocket=True) is Verdict.FOREIGN_HOST


def test_host__that_is_missing_or_there_twice_is_refused() -> None:
    assert of(RIGHT) is Verdict.FOREIGN_HOST
    assert of(HOST, ("host", "evil.example"), RIGHT) is Verdict.FOREIGN_HOST


@pytest.mark.parametrize(
    "origin",
    ["https://evil.example", "null", "", "http://127.0.0.1:9999", "http://localhost:4200", "https://127.0.0.1:4200",
     "http://127.0.0.1", "http://127.0.0.1:4200.evil.example", "http://127.0.0.1:42000"],
)  # fmt: skip
@pytest.mark.parametrize("path", [READ, "/api/health", "/sign-in", "/ui-settings", "/api/events/out"])
def test_origin__other_than_the_address_asked_is_refused(origin: str, path: str) -> None:
    for method in ("GET", "POST", "OPTIONS"):
        assert of(HOST, RIGHT, ("origin", origin), path=path, method=method) is Verdict.FOREIGN_ORIGIN
    assert of(HOST, ("origin", origin), path=path, method="GET", websocket=True) is Verdict.FOREIGN_ORIGIN


def test_origin__of_the_page_itself_is_answered_with_the_password() -> None:
    assert of(HOST, OWN, RIGHT) is Verdict.PASSWORD
    assert of(HOST, OWN) is Verdict.NO_PASSWORD
    forwarded = (("host", "localhost:8080"), ("origin", "http://localhost:8080"))
    assert of(*forwarded, RIGHT) is Verdict.PASSWORD


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_page__of_another_origin_without_an_origin_header_may_only_link_to_the_user_interface(site: str) -> None:
    foreign = (HOST, ("sec-fetch-site", site))
    navigating = (*foreign, ("sec-fetch-mode", "navigate"))
    assert of(*foreign, RIGHT, method="GET") is Verdict.FOREIGN_ORIGIN
    assert of(*navigating, RIGHT, method="GET") is Verdict.FOREIGN_ORIGIN
    assert of(*foreign, path="/assets/index.js", method="GET") is Verdict.FOREIGN_ORIGIN
    assert of(*navigating, path="/deployments", method="GET") is Verdict.OPEN
    assert of(*navigating, path="/api/events/out", method="GET", websocket=True) is Verdict.FOREIGN_ORIGIN


@pytest.mark.parametrize(
    "path",
    [READ, "/api", "/api/", "/api/admin/settings", "/api/docs", "/api/openapi.json", "/api/variables/name/health",
     "/api/health/", "/docs", "/docs/oauth2-redirect", "/redoc", "/openapi.json", "/sign-in/links"],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "OPTIONS", "DELETE"])
def test_password__is_wanted_for_all_but_health_and_the_user_interfaces_files(path: str, method: str) -> None:
    assert of(HOST, path=path, method=method) is Verdict.NO_PASSWORD
    assert of(HOST, RIGHT, path=path, method=method) is Verdict.PASSWORD


@pytest.mark.parametrize(
    "given",
    ["", "Basic", "Basic x", "basic dGhyZXNoZXI6cmlnaHQ=", f"Bearer {PASSWORD}", authorization("thresher:x"), "é"],
)
def test_password__that_is_wrong_is_refused_also_where_none_is_needed(given: str) -> None:
    for path in (READ, "/api/deployments/filter"):
        assert of(HOST, ("authorization", given), path=path) is Verdict.NO_PASSWORD


@pytest.mark.parametrize("path", ["/api/health", "/api/ready", "/", "/deployments", "/assets/x.js", "/ui-settings"])
def test_health_and_files__are_open(path: str) -> None:
    assert of(HOST, path=path, method="GET") is Verdict.OPEN


def test_health__is_not_open_to_changes() -> None:
    assert of(HOST, path="/api/health", method="POST") is Verdict.NO_PASSWORD


def test_glance__is_of_programs_only_and_of_nothing_but_the_list_of_services() -> None:
    glance = "/api/deployments/filter"
    assert of(HOST, path=glance) is Verdict.GLANCE
    assert of(HOST, OWN, path=glance) is Verdict.NO_PASSWORD
    assert of(HOST, ("sec-fetch-site", "none"), path=glance) is Verdict.NO_PASSWORD
    for path in (READ, "/api/flow_runs/filter", "/api/deployments/", f"{glance}/", f"/{glance}"):
        assert of(HOST, path=path) in (Verdict.NO_PASSWORD, Verdict.OPEN)
    assert of(HOST, path=glance, method="GET") is Verdict.NO_PASSWORD
