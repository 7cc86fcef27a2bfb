"""Signing in to the console in a real browser, and what a page of another origin in that browser gets."""

from __future__ import annotations

import http.server
import json
import re
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fakes.local_stack import LocalStack
from playwright.sync_api import Browser, Page, expect

pytestmark = [pytest.mark.slow, pytest.mark.prefect, pytest.mark.xdist_group("browser")]

EVIL_HOST = "evil.example"
ATTACK = """async ([ui, password]) => {
  const asked = async (path, options) => {
    try {
      const answer = await fetch(ui + path, options);
      return answer.type === 'opaque' ? 'opaque' : `${answer.status} ${(await answer.text()).slice(0, 40)}`;
    } catch (error) { return 'refused'; }
  };
  const json = {'content-type': 'application/json'}, auth = {...json, authorization: 'Basic ' + btoa(password)};
  const post = (headers, more) => ({method: 'POST', body: '{"include_secrets": true}', headers, ...more});
  const socket = path => new Promise(done => {
    const one = new WebSocket(ui.replace('http', 'ws') + path, ['prefect']);
    one.onopen = () => one.send(JSON.stringify({type: 'auth', token: password}));
    one.onmessage = message => done(message.data);
    one.onclose = () => done('refused');
  });
  return {
    health: await asked('/api/health'),
    list: await asked('/api/deployments/filter', post(json)),
    secrets: await asked('/api/block_documents/filter', post(auth)),
    simple: await asked('/api/block_documents/filter', post({'content-type': 'text/plain'})),
    settings: await asked('/ui-settings'),
    events: await socket('/api/events/out'),
    logs: await socket('/api/logs/out'),
  };
}"""


@pytest.fixture
def elsewhere() -> Iterator[str]:
    """Address of a page of another origin: another port of this machine."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<!doctype html><title>evil</title>")

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def rebound(start_browser: Callable[..., Any]) -> Iterator[Browser]:
    """A browser that has been given 127.0.0.1 as the address of another name."""
    with start_browser(f"--host-resolver-rules=MAP {EVIL_HOST} 127.0.0.1") as one:
        yield one


@pytest.fixture
def stranger(browser: Browser, up: LocalStack) -> Iterator[Page]:
    """A page of a browser that has not signed in."""
    opened = browser.new_page(base_url=up.ui)
    yield opened
    opened.close()


def test_link__signs_in_and_the_password_stays_with_the_browser(stranger: Page, up: LocalStack) -> None:
    stranger.goto("/deployments")
    expect(stranger).to_have_url(re.compile("/login"))
    stranger.goto(up.sign_in)
    expect(stranger).to_have_url(re.compile("/dashboard|/runs"))
    stranger.goto("/deployments")
    expect(stranger.get_by_role("link", name="deploy-service", exact=True)).to_be_visible()
    stranger.goto(up.sign_in)  # once more: used, but this browser is signed in
    expect(stranger).to_have_url(re.compile("/dashboard|/runs"))
    stranger.evaluate("localStorage.clear()")
    stranger.goto("about:blank")
    stranger.goto(up.sign_in)
    expect(stranger.get_by_text("This link was used before")).to_be_visible()


def test_password__signs_in_on_prefects_own_page_and_under_the_name_localhost(stranger: Page, up: LocalStack) -> None:
    stranger.goto(f"http://localhost:{up.port}/deployments")
    stranger.locator("input").first.fill(":".join(up.password))
    stranger.keyboard.press("Enter")
    expect(stranger.get_by_role("link", name="deploy-service", exact=True)).to_be_visible()


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
def test_page_of_another_origin__reads_nothing_not_even_with_the_password(
    stranger: Page, up: LocalStack, elsewhere: str, name: str
) -> None:
    stranger.goto(elsewhere.replace("127.0.0.1", name))
    found = stranger.evaluate(ATTACK, [up.ui, ":".join(up.password)])
    assert set(found.values()) == {"refused"}, json.dumps(found)
    stranger.set_content(f"<iframe src='{up.ui}/deployments'></iframe>")
    expect(stranger.frame_locator("iframe").get_by_text("deploy-service")).to_have_count(0)


def test_name_bound_to_this_machine__reads_nothing(rebound: Browser, up: LocalStack) -> None:
    """DNS rebinding: the page's own origin is the server, under a foreign name."""
    page = rebound.new_page()
    answer = page.goto(f"http://{EVIL_HOST}:{up.port}/")
    assert answer is not None and answer.status == 421
    found = page.evaluate(ATTACK, [f"http://{EVIL_HOST}:{up.port}", ":".join(up.password)])
    assert {one[:3] for one in found.values()} <= {"421", "ref"}, json.dumps(found)
