"""The Prefect user interface as the console, in a real browser: what a user does with mouse and keyboard; signing in,
and what a page of another origin in that browser gets.
"""

from __future__ import annotations

import http.server
import json
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes import processes
from fakes.local_stack import LocalStack
from playwright.sync_api import Browser, Locator, Page, expect

pytestmark = [pytest.mark.slow, pytest.mark.prefect, pytest.mark.xdist_group("browser")]

DIGITS = Path(__file__).parents[2] / "infra" / "models" / "digits"
NAME = "digits-by-form"
RUN_SECONDS = 180.0
FORM = re.compile(r"/api/deployments/[0-9a-f-]{36}(/create_flow_run)?$")
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
def asked(up: LocalStack, thresher: Callable[..., Any]) -> Callable[..., Any]:
    """What a command answers with --json; it finds the stack as a user's does. None if there is no such service."""

    def ask(*arguments: str) -> Any:
        ran = thresher(*arguments, "--json", env=up.environment)
        assert ran.returncode == 0 or "there is no such service" in ran.stderr, ran.stderr
        return json.loads(ran.stdout) if ran.returncode == 0 else None

    return ask


def field(page: Page, label: str) -> Locator:
    """The box of a field of a form, by its label."""
    return page.locator(".p-label", has=page.get_by_text(label, exact=True)).last.locator("textarea, input").first


def send(page: Page, button: str) -> None:
    """Send a form: the page of the deployment comes then.

    A server on SQLite may answer 503 while it writes something else; the page says so, and the user clicks again.
    """

    def clicked() -> bool:
        with page.expect_response(lambda one: one.request.method in ("POST", "PATCH") and FORM.search(one.url)) as sent:
            page.get_by_role("button", name=button).click()
        assert sent.value.ok or sent.value.status == 503, sent.value.text()
        return sent.value.ok

    processes.poll(clicked, f"{button} to be heard")
    page.wait_for_url(re.compile(r"/deployments/deployment/[0-9a-f-]+(\?.*)?$"))


def tab(page: Page, name: str) -> None:
    """Turn to a part of the page."""
    page.get_by_text(name, exact=True).first.click()


def test_console__a_service_from_the_form_to_its_second_run(
    page: Page, asked: Callable[..., Any], picture: Callable[[Page, str], None], tmp_path: Path
):
    def ended(count: int, folder: Path) -> dict[str, Any]:
        """The last run, once it has written its manifest, which is looked for in no time, and is over."""

        def found() -> list[dict[str, Any]]:
            runs = asked("show", NAME, "--runs") or []
            over = [one for one in runs if one["status"] in ("Completed", "Failed", "Stopped")]
            return over if len(over) == count else []

        processes.poll(lambda: list(folder.glob("*.manifest")), f"the manifest of run {count}", RUN_SECONDS)
        run: dict[str, Any] = processes.poll(found, f"run {count} to end", RUN_SECONDS)[0]
        return run

    # the deploy page: found from the list of deployments, filled in, sent
    page.goto("/deployments")
    page.get_by_role("link", name="deploy-service", exact=True).click()
    page.get_by_role("button", name="Run", exact=True).click()
    page.get_by_text("Custom run").click()
    expect(page.get_by_text("Input path", exact=True)).to_be_visible()
    output = tmp_path / "out"
    for label, value in {
        "Name (Optional)": NAME,
        "Description (Optional)": "Handwritten digits",
        "Model": str(DIGITS),
        "Input path": str(DIGITS / "data"),
        "Output path": str(output),
    }.items():
        field(page, label).fill(value)
    picture(page, "form")
    send(page, "Submit")

    # the service is there and completes
    first = ended(1, output)
    assert [first[name] for name in ("status", "items", "done", "failed")] == ["Completed", 300, 300, 0]
    (service,) = asked("list")

    # its run: state, graph, log with what the model server prints
    page.goto(first["page"])
    expect(page.get_by_text("Completed", exact=True).first).to_be_visible()
    expect(page.locator("canvas").first).to_be_visible()
    expect(page.get_by_text("planned items=300", exact=False).first).to_be_visible()
    picture(page, "run")
    tab(page, "Task Runs")
    for task in ("validate", "plan", "infer-0", "publish"):
        expect(page.get_by_text(task, exact=True).first).to_be_visible()

    # its summary, with a link to the results
    tab(page, "Artifacts")
    page.locator("a[href^='/artifacts/artifact/']", has_text=f"{NAME}-summary").first.click()
    link = page.locator(f"a[href='file://{first['manifest']}']")
    expect(link.first).to_be_visible()
    expect(page.get_by_text("300", exact=False).first).to_be_visible()
    assert len(Path(first["manifest"]).read_text().splitlines()) == 300
    picture(page, "summary")

    # its description
    page.goto(f"{service['page']}/edit")
    described = page.get_by_placeholder("Add a description")
    expect(described).to_have_value("Handwritten digits")
    described.fill("Digits, every night")
    send(page, "Save")
    assert asked("show", NAME)["description"] == "Digits, every night"

    # once more, with a changed parameter
    page.get_by_role("button", name="Run", exact=True).click()
    page.get_by_text("Custom run").click()
    expect(field(page, "Output path")).to_have_value(str(output))
    field(page, "Output path").fill(str(tmp_path / "again"))
    field(page, "Instances (Optional)").fill("2")
    send(page, "Submit")
    second = ended(2, tmp_path / "again")
    assert [second[name] for name in ("status", "items", "failed")] == ["Completed", 300, 0]
    assert Path(second["manifest"]).is_relative_to(tmp_path / "again") and second["id"] != first["id"]


def test_console__what_is_wrong_in_the_form_is_said_in_the_run(page: Page, tmp_path: Path):
    page.goto("/deployments")
    page.get_by_role("link", name="deploy-service", exact=True).click()
    page.get_by_role("button", name="Run", exact=True).click()
    page.get_by_text("Custom run").click()
    name = "wrong-by-form"
    wrong = {"Model": str(DIGITS), "Input path": str(tmp_path / "none"), "Output path": "here"}
    for label, value in {"Run Name": name, "Name (Optional)": name, **wrong}.items():
        field(page, label).fill(value)
    send(page, "Submit")
    page.get_by_role("link", name=name, exact=True).first.click()
    expect(page.get_by_text("Failed", exact=True).first).to_be_visible(timeout=RUN_SECONDS * 1000)
    expect(page.get_by_text("output_path", exact=False).first).to_be_visible()
    assert page.get_by_text("Traceback", exact=False).count() == 0


# -- signing in -----------------------------------------------------------------------------------------------------


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
