"""Share links: fetched as they stand, never into the own network, and never shown with their signature."""

from __future__ import annotations

import asyncio
import gzip
import http.server
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from clients.support import run
from fakes.processes import DEADLINE_SECONDS, closed_port
from fakes.share_server import ShareServer

from tasks.clients.storage import share_links
from tasks.clients.storage.failures import ObjectError, TooLarge
from tasks.clients.storage.share_links import MAX_REDIRECTS, ShareLinks, is_public
from tasks.domain.retry import FINAL

Runner = Callable[[Any], Any]
HTTPS = "A share link should begin with https://"


@pytest.fixture
def share() -> Iterator[ShareServer]:
    with ShareServer({"1.jpg": b"the image", "汉字 1.jpg": b"chinese", "a%2Fb": b"percent"}) as server:
        yield server


def fetch(
    link: str, *allowed: str, max_bytes: int | None = None, timeout_seconds: float = DEADLINE_SECONDS, run: Runner = run
) -> bytes:
    async def work() -> bytes:
        links = ShareLinks(allowed, timeout_seconds)
        try:
            return await links.read(link, max_bytes)
        finally:
            await links.close()

    return run(work())


def refusal(link: str, *allowed: str, **options: Any) -> str:
    """Why a link cannot be fetched, after checking that it is fit for a manifest."""
    with pytest.raises(ObjectError) as raised:
        fetch(link, *allowed, **options)
    cause = raised.value.cause
    assert "\n" not in cause
    assert "?" not in cause
    assert "Signature" not in cause
    assert "SECRET" not in cause
    return cause


def port_of(share: ShareServer) -> int:
    return int(share.url.rpartition(":")[2])


@pytest.mark.parametrize("name", ["1.jpg", "汉字 1.jpg", "a%2Fb"])
def test_share_link__of_an_allowed_host_is_fetched(share: ShareServer, name: str) -> None:
    assert fetch(share.link(name), "127.0.0.1") == share.objects[name]


@pytest.mark.parametrize("allowed", ["127.0.0.1", "127.0.0.1:{port}"])
def test_allowed_host__is_a_host_or_a_host_and_port(share: ShareServer, allowed: str) -> None:
    assert fetch(share.link("1.jpg"), allowed.format(port=port_of(share))) == b"the image"


def test_allowed_host__of_another_port_is_not_allowed(share: ShareServer) -> None:
    assert "is not a public address" in refusal(share.link("1.jpg"), f"127.0.0.1:{port_of(share) + 1}")
    assert not share.requests


def test_allowed_host__by_name_in_any_case(share: ShareServer) -> None:
    link = share.link("1.jpg").replace("127.0.0.1", "LocalHost")
    assert fetch(link, "localhost") == fetch(link, "LOCALHOST") == b"the image"


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "127.0.0.2", "localhost", "LOCALHOST", "0.0.0.0", "0", "127.1", "2130706433",
        "0x7f000001", "0x7f.1", "0177.0.0.1", "017700000001", "127.0.0.1.", "127.000.000.001", "[::1]", "[::]",
        "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[0:0:0:0:0:ffff:127.0.0.1]", "[::127.0.0.1]", "[64:ff9b::127.0.0.1]",
        "[2002:7f00:1::]", "①27.0.0.1", "127。0。0。1", "user@127.0.0.1", "example.com@127.0.0.1",
        pytest.param("%31%32%37.0.0.1", marks=pytest.mark.slow), "example.com\\@127.0.0.1",
        "127.0.0.1\\@example.com", "127.0.0.1#@example.com",
    ],
)  # fmt: skip
def test_own_machine__is_not_connected_to_however_it_is_written(share: ShareServer, host: str) -> None:
    said = refusal(f"http://{host}:{port_of(share)}/object/1.jpg?Signature=SECRET")
    assert "not a public address" in said or "not a valid address" in said or HTTPS in said, said
    assert not share.requests


@pytest.mark.parametrize(
    "host",
    [
        "10.0.0.1", "172.16.0.1", "192.168.0.1", "169.254.169.254", "100.64.0.1", "[fe80::1]", "[fc00::1]", "[fec0::1]",
        "[::ffff:169.254.169.254]", "[::ffff:10.0.0.1]", "[64:ff9b::a9fe:a9fe]", "[64:ff9b:1::a9fe:a9fe]", "224.0.0.1",
        "255.255.255.255", "240.0.0.1", "2852039166", "0xa9fea9fe", "[fd00:ec2::254]", "[fe80::1%25lo]",
        "0251.0376.0251.0376",
    ],
)  # fmt: skip
def test_inner_network__is_not_connected_to(share: ShareServer, monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    connected = []
    connect = socket.socket.connect

    def recorded(one: socket.socket, address: Any) -> None:
        connected.append(address)
        connect(one, address)

    monkeypatch.setattr(socket.socket, "connect", recorded)
    assert fetch(share.link("1.jpg"), "127.0.0.1") == b"the image"
    assert connected == [("127.0.0.1", port_of(share))]  # this is how it connects
    connected.clear()
    said = refusal(f"https://{host}/latest/meta-data?Signature=SECRET")
    assert "not a public address" in said or "not a valid address" in said
    assert connected == []


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True), ("2606:4700:4700::1111", True), ("::ffff:8.8.8.8", True), ("127.0.0.1", False),
        ("::1", False), ("::", False), ("::8.8.8.8", False), ("fec0::1", False), ("2002:0808:0808::1", True),
        ("2002:7f00:0001::1", False), ("64:ff9b::8.8.8.8", True), ("64:ff9b::10.0.0.1", False), ("ff02::1", False),
        ("64:ff9b:1::8.8.8.8", False), ("198.18.0.1", False), ("192.0.2.1", False), ("0.0.0.0", False),
        ("fe80::1%lo", False), ("2001:db8::1", False), ("5f00::1", False), ("4000::1", False),
    ],
)  # fmt: skip
def test_is_public__knows_special_ranges(address: str, public: bool) -> None:
    assert is_public(address) is public


def test_name__that_leads_to_the_own_machine_is_not_connected_to(
    share: ShareServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name server is the only part that is replaced: there is none in a test that answers so."""
    real = socket.getaddrinfo

    def answers(host: object, *arguments: object, **options: object) -> object:
        return real("127.0.0.1" if host == "innocent.example" else host, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", answers)
    # uvloop has a resolver of its own, which cannot be replaced.
    link = f"https://innocent.example:{port_of(share)}/object/1.jpg?Signature=SECRET"
    said = refusal(link, run=asyncio.run)
    assert said.startswith("The host innocent.example is not a public address, or is not known; the administrator can")
    assert not share.requests
    link = share.link("1.jpg").replace("127.0.0.1", "innocent.example")
    assert fetch(link, "innocent.example", run=asyncio.run) == b"the image"


def test_redirect__within_what_is_allowed_is_followed(share: ShareServer) -> None:
    from urllib.parse import quote

    assert fetch(f"{share.url}/redirect?to={quote(share.link('1.jpg'), safe='')}", "127.0.0.1") == b"the image"
    assert fetch(f"{share.url}/redirect?to={quote('/big?size=3', safe='')}", "127.0.0.1") == b"xxx"


@pytest.mark.parametrize(
    "target", ["http://127.0.0.2:{port}/object/1.jpg", "http://[::1]:{port}/", "http://0x7f.2:{port}/"]
)
def test_redirect__to_an_inner_address_is_not_followed(share: ShareServer, target: str) -> None:
    said = refusal(f"{share.url}/redirect?to={target.format(port=port_of(share))}", "127.0.0.1")
    assert "not a public address" in said
    assert share.requests.total() == 1


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/x", "gopher://127.0.0.1/", "mailto:a@b"])
def test_redirect__to_something_else_is_not_followed(share: ShareServer, target: str) -> None:
    assert (
        refusal(f"{share.url}/redirect?to={target}", "127.0.0.1") == "A redirect leads to something else than http(s)."
    )


def test_redirect__in_a_circle_ends() -> None:
    with Circle() as server:
        said = refusal(f"{server.url}/?Signature=SECRET", "127.0.0.1")
        assert said == f"More than {MAX_REDIRECTS} redirects."
        assert server.requests == MAX_REDIRECTS + 1


def test_expired_link__says_until_when_it_was_valid(share: ShareServer) -> None:
    said = refusal(share.link("1.jpg", valid_seconds=-3600), "127.0.0.1")
    assert said.startswith(
        "HTTP 403 (AccessDenied): no permission, or the share link has expired (it was valid until 20"
    )
    assert said.endswith(" UTC).")
    assert share.requests.total() == 1  # asking again would not help


@pytest.mark.parametrize("path", ["/missing", "/object/nothing"])
def test_missing_object__is_told(share: ShareServer, path: str) -> None:
    link = share.link("nothing") if path == "/object/nothing" else f"{share.url}{path}?Signature=SECRET"
    assert refusal(link, "127.0.0.1") == "HTTP 404: there is no such object."
    assert share.requests.total() == 1


def test_faltering_host__is_asked_again(share: ShareServer) -> None:
    assert fetch(f"{share.url}/flaky?times=2", "127.0.0.1") == b"at last"
    assert share.requests["/flaky"] == 3


@pytest.mark.slow
def test_failing_host__is_given_up(share: ShareServer) -> None:
    assert refusal(f"{share.url}/flaky?times=99", "127.0.0.1") == "HTTP 503 (ServiceUnavailable)."
    assert share.requests["/flaky"] == 6


@pytest.mark.slow
def test_refused_connection__is_told() -> None:
    with closed_port() as port:
        assert refusal(f"http://127.0.0.1:{port}/?Signature=SECRET", "127.0.0.1").startswith(
            "No connection to the host ("
        )


def test_slow_host__is_given_up_after_two_tries(share: ShareServer) -> None:
    said = refusal(f"{share.url}/slow?seconds=30&Signature=SECRET", "127.0.0.1", timeout_seconds=0.3)
    assert said == "The host did not answer in time."
    assert share.requests["/slow"] == 2


def test_unknown_host__is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(share_links, "decide", lambda *_, **__: FINAL)  # once is enough here
    said = refusal("https://no-such-host.invalid/1.jpg?Signature=SECRET")
    assert said.startswith("The host no-such-host.invalid is not a public address, or is not known;")


def test_inner_name__gets_the_same_answer_as_one_that_there_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """The name server is the only part that is replaced: there is none in a test that knows an inner network."""
    monkeypatch.setattr(share_links, "decide", lambda *_, **__: FINAL)
    real = socket.getaddrinfo

    def answers(host: object, *arguments: object, **options: object) -> object:
        return real("10.1.2.3" if host == "one.inner" else host, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", answers)
    known, unknown = (refusal(f"https://{name}.inner/1.jpg", run=asyncio.run) for name in ("one", "two"))
    assert known.replace("one.inner", "two.inner") == unknown


@pytest.mark.parametrize("link", ["http://8.8.8.8/1.jpg", "HTTP://public.example/1.jpg?Signature=SECRET"])
def test_plain_http__is_for_allowed_hosts_only(link: str, monkeypatch: pytest.MonkeyPatch) -> None:
    connected = []
    monkeypatch.setattr(socket.socket, "connect", lambda _, address: connected.append(address))
    assert refusal(link).startswith(HTTPS)
    assert connected == []


def test_error_document__with_status_200_is_not_the_object() -> None:
    document = b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>InternalError</Code></Error>'
    with ShareServer({"1.jpg": document}) as share:
        assert "error document" in refusal(share.link("1.jpg"), "127.0.0.1")


@pytest.mark.parametrize("chunked", ["", "&chunked=1"])
def test_size_limit__holds_with_and_without_a_length(share: ShareServer, chunked: str) -> None:
    link = f"{share.url}/big?size=100000{chunked}"
    assert len(fetch(link, "127.0.0.1", max_bytes=100_000)) == 100_000
    with pytest.raises(TooLarge) as raised:
        fetch(link, "127.0.0.1", max_bytes=99_999)
    assert raised.value.size >= 100_000 if not chunked else raised.value.size > 99_999
    assert share.requests["/big"] == 2


@pytest.mark.slow
@pytest.mark.parametrize("chunked", ["", "&chunked=1"])
def test_body__that_breaks_off_is_no_success(share: ShareServer, chunked: str) -> None:
    assert refusal(f"{share.url}/big?size=100000&cut=1{chunked}", "127.0.0.1") == "The connection broke."
    assert share.requests["/big"] == 6


class Circle:
    """A server that always redirects to itself, or answers what it was told to; it keeps the raw targets."""

    def __init__(self, body: bytes | None = None, encoding: str = "") -> None:
        self.requests = 0
        self.targets: list[str] = []
        self.headers: list[dict[str, str]] = []
        owner = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

            def do_GET(self) -> None:
                owner.requests += 1
                owner.targets.append(self.path)
                owner.headers.append({name.lower(): value for name, value in self.headers.items()})
                self.send_response(302 if body is None else 200)
                self.send_header("Content-Length", str(len(body or b"")))
                if body is None:
                    self.send_header("Location", f"/next{owner.requests}?Signature=SECRET")
                if encoding:
                    self.send_header("Content-Encoding", encoding)
                self.send_header("Set-Cookie", "a=b")
                self.end_headers()
                self.wfile.write(body or b"")

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Circle:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.mark.parametrize(
    "target",
    [
        "/a?Signature=a%2Bb%3D&x=%2F", "/a%20b%2Fc?Signature=a+b/c==", "/a?b=%7E~%c3%A9", "/a//b/./c/../d?x=1",
        "/%E6%B1%89?k=%e6%b1%89", "/a?x=1;y=2,3&&z", "/a?q='\"()*!",
    ],
)  # fmt: skip
def test_link__is_sent_byte_for_byte(target: str) -> None:
    with Circle(b"here") as server:
        assert fetch(server.url + target, "127.0.0.1") == b"here"
        assert server.targets == [target]


@pytest.mark.parametrize(
    ("target", "sent"),
    [
        ("/my file.csv?Expires=1&Signature=a+b/c=", "/my%20file.csv?Expires=1&Signature=a+b/c="),
        ("/new\nline\t.csv", "/new%0Aline%09.csv"), ("/größe 汉.jpg", "/gr%C3%B6%C3%9Fe%20%E6%B1%89.jpg"),
        ("/a%20b c", "/a%20b%20c"), ("?q=a b", "/?q=a%20b"),
    ],
)  # fmt: skip
def test_link__that_no_request_line_can_hold_is_encoded_there_only(target: str, sent: str) -> None:
    with Circle(b"here") as server:
        assert fetch(server.url + target, "127.0.0.1") == b"here"
        assert server.targets == [sent]


def test_body__is_kept_as_it_is_stored() -> None:
    stored = gzip.compress(b"a compressed object is still that object")
    with Circle(stored, "gzip") as server:
        assert fetch(f"{server.url}/", "127.0.0.1") == stored
        assert server.headers[0]["accept-encoding"] == "identity"


def test_session__sends_no_cookie_back() -> None:
    with Circle(b"x") as server:

        async def work() -> None:
            links = ShareLinks(["127.0.0.1"], DEADLINE_SECONDS)
            await links.read(server.url, None)
            await links.read(server.url, None)
            await links.close()

        run(work())
        assert ["cookie" in headers for headers in server.headers] == [False, False]


@pytest.mark.slow
@pytest.mark.parametrize(
    "link", ["http://[::1", "http://a b/", "http://127.0.0.1:99999999/?x=SECRET", "http://\x7f/", "http:///a"]
)
def test_broken_link__is_told(link: str) -> None:
    said = refusal(link)
    assert "valid address" in said or "http(s)" in said or HTTPS in said
