"""The Prefect user interface as the console: what a user does with mouse and keyboard, in a real browser."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fakes import processes
from fakes.local_stack import LocalStack
from playwright.sync_api import Locator, Page, expect

pytestmark = [pytest.mark.slow, pytest.mark.prefect, pytest.mark.xdist_group("browser")]

DIGITS = Path(__file__).parents[2] / "infra" / "models" / "digits"
NAME = "digits-by-form"
RUN_SECONDS = 180.0
FORM = re.compile(r"/api/deployments/[0-9a-f-]{36}(/create_flow_run)?$")


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
    def ended(count: int) -> dict[str, Any]:
        def found() -> list[dict[str, Any]]:
            runs = asked("show", NAME, "--runs") or []
            over = [one for one in runs if one["status"] in ("Completed", "Failed", "Stopped")]
            return over if len(over) == count else []

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
    first = ended(1)
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
    second = ended(2)
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
