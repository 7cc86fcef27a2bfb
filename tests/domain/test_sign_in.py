"""Links that sign a browser in."""

from __future__ import annotations

from tasks.domain.sign_in import LINK_SECONDS, MAX_LINKS, Links


def test_link__works_once() -> None:
    links = Links(lambda: 1000.0)
    links.give("first")
    links.give("second")
    assert links.use("second") and links.use("first")
    assert not links.use("first") and not links.use("") and not links.use("guessed")


def test_link__is_too_old_after_its_time() -> None:
    now = [1000.0]
    links = Links(lambda: now[0])
    links.give("early")
    links.give("late")
    now[0] += LINK_SECONDS - 1
    assert links.use("early")
    now[0] += 1
    assert not links.use("late")


def test_links__are_bounded_and_the_oldest_go_first() -> None:
    links = Links(lambda: 1000.0)
    made = [str(number) for number in range(MAX_LINKS + 2)]
    for link in made:
        links.give(link)
    assert [links.use(link) for link in made] == [False] * 2 + [True] * MAX_LINKS
