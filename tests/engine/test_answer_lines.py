"""The lines of one table, in whatever order they come in."""

from __future__ import annotations

import pytest

from tasks.engine.answer_lines import BLOCK, Answers


def test_answers__that_come_in_any_order_give_lines_in_row_order() -> None:
    answers = Answers()
    for number in (3, 1, 5, 2):
        answers.add(number, b"%d" % number)
    assert answers.rows == 4
    answers.fail_all([(7, "seven")])
    answers.fail_all([(4, "four")])
    answers.add(6, b"6")
    assert answers.result() == b'1\n2\n3\n{"error": "four"}\n5\n6\n{"error": "seven"}\n'
    assert (answers.rows, answers.failed, answers.first_failure()) == (7, 2, "row 4: four")


def test_answers__without_any_row_are_empty() -> None:
    answers = Answers()
    assert (answers.result(), answers.rows, answers.failed) == (b"", 0, 0)


@pytest.mark.parametrize("step", [1, 7, 99])
def test_answers__of_many_rows_are_each_there_once(step: int) -> None:
    answers = Answers()
    for number in range(100):
        answers.add(number * step % 100 + 1, b"%d" % (number * step % 100 + 1))
    assert answers.result().split() == [b"%d" % number for number in range(1, 101)]


def test_answers__of_millions_of_failures_take_little_memory() -> None:
    answers = Answers()
    count = 3 * BLOCK // 60
    for first in range(1, count, 1000):
        answers.fail_all(
            [(row, f'line {row}, column 0, field x: "a" is not a number') for row in range(first, first + 1000)]
        )
    answers.add_all([answers.rows + 1, answers.rows + 2], [b"one", b"two"])
    pieces = [*answers.pieces()]
    assert sum(map(len, pieces)) == answers.size == len(answers.result()) > 2 * BLOCK
    assert max(map(len, pieces)) < 2 * BLOCK
    held = sum(len(piece) for _, piece in answers._pieces)
    assert held < answers.size / 8
    *_, last, one, two = answers.result().splitlines()
    assert last.endswith(b'is not a number"}') and (one, two) == (b"one", b"two")


def test_answers__in_any_pieces_are_the_same() -> None:
    whole, parts = Answers(), Answers()
    for row in range(1, 101):
        whole.add(row, b"%d" % row)
    for first in (41, 1, 81, 21, 61):
        parts.add_all(range(first, first + 20), [b"%d" % row for row in range(first, first + 20)])
    assert (parts.result(), parts.rows, parts.waiting, parts.size) == (whole.result(), 100, 0, whole.size)
