"""A local stack and a browser for it: Debian's Chromium, driven by Playwright."""

from __future__ import annotations

import base64
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from fakes.local_stack import LocalStack, local_stack
from playwright.sync_api import Browser, Page, expect, sync_playwright

LOOK_SECONDS = 60.0
"""How long the page may take to show something: far more than it does."""
LEFT_GRAPH = re.compile(r"Cannot read properties of null \(reading '(position|scale|pivot|skew|\w+Transform)'\)")
"""What Prefect's graph says when its page was left while it was drawn: its objects have lost their transforms."""


def chromium() -> str:
    """Path of the browser; the test fails, saying what is missing, if there is none."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name):
            return found
    pytest.fail("Chromium is not installed; `sh tests/system-packages.sh` (or `make system-packages`) installs it")


@pytest.fixture(scope="module")
def up(
    tmp_path_factory: pytest.TempPathFactory, environments_cache: Path, _nothing_left_behind: None
) -> Iterator[LocalStack]:
    """`thresher up`, as a new user starts it."""
    own = {"THRESHER_CACHE": str(environments_cache), "AWS_EC2_METADATA_DISABLED": "true"}
    others = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "THRESHER_"))}
    with local_stack(tmp_path_factory.mktemp("up"), others | own) as stack:
        yield stack


@pytest.fixture(scope="module")
def start_browser() -> Iterator[Callable[..., AbstractContextManager[Browser]]]:
    """Starts a browser without a window, with more options if they are given."""
    # Chromium refuses to run as root inside its sandbox; what it opens here is the test's own server only.
    always = ["--no-sandbox"] if os.geteuid() == 0 else []
    expect.set_options(timeout=LOOK_SECONDS * 1000)
    with sync_playwright() as playwright:

        @contextmanager
        def start(*options: str) -> Iterator[Browser]:
            opened = playwright.chromium.launch(executable_path=chromium(), args=[*always, *options])
            yield opened
            opened.close()

        yield start


@pytest.fixture(scope="module")
def browser(start_browser: Callable[..., AbstractContextManager[Browser]]) -> Iterator[Browser]:
    """A browser."""
    with start_browser() as opened:
        yield opened


@pytest.fixture
def page(browser: Browser, up: LocalStack) -> Iterator[Page]:
    """A page of the stack's user interface, signed in, which must report no error of its own.

    But for one of Prefect's graph, which still draws when its page has been left (on a busy machine).
    """
    opened = browser.new_page(base_url=up.ui, viewport={"width": 1280, "height": 1150})
    signed_in = base64.b64encode(":".join(up.password).encode()).decode()
    opened.add_init_script(f"localStorage.setItem('prefect-password', '{signed_in}')")
    opened.set_default_timeout(LOOK_SECONDS * 1000)
    errors: list[str] = []
    opened.on("pageerror", lambda error: errors.append(str(error)))
    yield opened
    opened.close()
    assert [error for error in errors if not LEFT_GRAPH.fullmatch(error)] == []


@pytest.fixture
def picture() -> Callable[[Page, str], None]:
    """Keeps a picture of the page in the folder that SCREENSHOTS names, if it is set: README's are such."""

    def keep(page: Page, name: str) -> None:
        if folder := os.environ.get("SCREENSHOTS"):
            page.keyboard.press("Escape")
            page.mouse.move(0, 0)
            page.evaluate("document.activeElement?.blur()")
            page.evaluate("document.querySelectorAll('*').forEach(element => element.scrollTop = 0)")
            expect(page.locator(".fade-enter-active, .fade-leave-active")).to_have_count(0)
            page.screenshot(path=Path(folder) / f"{name}.png", animations="disabled")

    return keep
