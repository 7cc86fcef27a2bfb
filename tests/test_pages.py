"""Pages for readers: their links and the files they name exist, and make lists its targets."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("deployments", "flows", "infra", "tasks", "tests")
PAGES = sorted([*ROOT.glob("*.md"), *(path for folder in FOLDERS for path in (ROOT / folder).glob("**/*.md"))])
PAGE = pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))


def headings(page: Path) -> set[str]:
    """The anchors of a page's headings, as code hosts make them."""
    plain = (re.sub(r"[^\w\- ]", "", line.lower()) for line in re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE))
    return {text.replace(" ", "-") for text in plain}


def dead_links(page: Path) -> list[str]:
    """Links of a page that lead nowhere, or to another file than the one that they name."""
    dead = []
    for label, target in re.findall(r"\[([^\[\]]*)\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        path, _, anchor = target.partition("#")
        found = page.parent / path if path else page
        other = re.fullmatch(r"[\w./-]+\.(md|py|yaml)", label) and Path(label).name != found.name
        if target.startswith(("https:", "http:")):
            continue
        if not found.exists() or other or (anchor and anchor not in headings(found)):
            dead.append(f"[{label}]({target})")
    return dead


def dead_names(page: Path) -> list[str]:
    """Files of this project that a page names without a link and that do not exist."""
    named = re.findall(r"`((?:[\w-]+/)+[\w-]+\.(?:md|py|sh|yaml))`", page.read_text(encoding="utf-8"))
    return [name for name in named if not (ROOT / name).exists() and not (page.parent / name).exists()]


@PAGE
def test_page__leads_to_what_exists(page: Path) -> None:
    assert dead_links(page) == []
    assert dead_names(page) == []


def test_dead_link__is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    (tmp_path / "there.py").touch()
    page.write_text(
        "# A `title` of words\n[a](gone.md) [b](#a-title-of-words) [c](#none)\n"
        "[other.py](there.py) [there.py](there.py) `tasks/gone.py` `tasks/plan.py` `there.py` [d](https://example.org/gone)\n"
    )
    assert dead_links(page) == ["[a](gone.md)", "[c](#none)", "[other.py](there.py)"]
    assert dead_names(page) == ["tasks/gone.py"]


def test_make__lists_each_target_with_a_line_by_default() -> None:
    (targets,) = re.findall(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    said = subprocess.run(["make", "--no-print-directory"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    lines = [re.fullmatch(r"make ([a-z-]+) +(\S.*)", line) for line in said.splitlines()]
    assert [line and line[1] for line in lines] == targets.split()


NAMED = {target for page in PAGES for target in re.findall(r"`make ([a-z-]+)", page.read_text(encoding="utf-8"))}


@pytest.mark.parametrize("target", sorted(NAMED))
def test_make__has_each_target_that_a_page_names(target: str) -> None:
    done = subprocess.run(["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
