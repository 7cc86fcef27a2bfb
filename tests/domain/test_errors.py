"""The tree of errors."""

from __future__ import annotations

import importlib
import pickle
import pkgutil
import re
from collections.abc import Iterator

import pytest

import tasks.domain
from tasks.domain import errors
from tasks.domain.errors import Problem, SpecificationError, ThresherError
from tasks.domain.run import RunFailed, RunResult

for _module in pkgutil.iter_modules(tasks.domain.__path__):
    importlib.import_module(f"tasks.domain.{_module.name}")

RESULT = RunResult(
    task_id="t", name="n", manifest="/out/x.manifest", manifests=("/out/x.manifest",), summary="/out/x.summary.json",
    items=2, successful=0, failed=2, seconds={"infer": 1.5}, failure="No item succeeded.",
)  # fmt: skip


def all_errors() -> Iterator[type[ThresherError]]:
    waiting = [ThresherError]
    while waiting:
        found = waiting.pop(0)
        if found.__module__.startswith("tasks.domain"):
            yield found
        waiting += found.__subclasses__()


def example(kind: type[ThresherError]) -> ThresherError:
    if issubclass(kind, SpecificationError):
        return kind([Problem("instances", 0, "should be 1"), Problem("model", None, "is missing")])
    if kind is RunFailed:
        return RunFailed(RESULT)
    return kind("what went wrong")


@pytest.mark.parametrize("kind", [*all_errors()], ids=lambda kind: kind.__name__)
def test_error__survives_pickling_as_prefect_and_dask_do_it(kind: type[ThresherError]) -> None:
    error = example(kind)
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        back = pickle.loads(pickle.dumps(error, protocol))
        assert type(back) is kind
        assert str(back) == str(error)
        assert vars(back) == vars(error)
        assert str(pickle.loads(pickle.dumps(back))) == str(error)


def test_error__the_tree_in_the_docstring_is_the_tree_of_classes() -> None:
    drawn: dict[str, str] = {}
    above: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"    ([│├└─ ]*)(\w+)(?:  |$)", line)
        if match is None:
            continue
        depth, name = len(match[1]), match[2]
        above = [(deep, kind) for deep, kind in above if deep < depth]
        drawn[name] = above[-1][1] if above else "Exception"
        above.append((depth, name))
    assert drawn == {kind.__name__: (kind.__base__ or object).__name__ for kind in all_errors()}


@pytest.mark.parametrize("kind", [*all_errors()], ids=lambda kind: kind.__name__)
def test_error__says_in_its_docstring_what_it_is(kind: type[ThresherError]) -> None:
    assert (kind.__doc__ or "").strip().endswith(".")


def test_error__messages_are_for_the_user() -> None:
    assert str(errors.DownloadError("No such file.")) == "Download file failed. No such file."
    assert str(errors.UploadError("Disk full.")) == "Upload of the result file failed. Disk full."
    assert str(RunFailed(RESULT)) == "No item succeeded. Output manifest: /out/x.manifest"


def test_run_result__is_itself_unless_the_run_is_failed() -> None:
    good = RESULT.model_copy(update={"failure": ""})
    assert good.checked() is good
    with pytest.raises(RunFailed) as caught:
        RESULT.checked()
    assert caught.value.result == RESULT


@pytest.mark.parametrize(
    ("problem", "text"),
    [
        (Problem("instances", 0, "should be 1"), "instances = '0': should be 1"),
        (Problem("model", None, "is missing"), "model: is missing"),
        (Problem("name", "x" * 500, "is long"), f"name = '{'x' * 120}...': is long"),
        (Problem("input_path", "https://u:p@h/x?Signature=s", "no"), "input_path = 'https://h/x?...': no"),
        (Problem("name", "a\nb", "no"), "name = 'a\\nb': no"),
    ],
)
def test_problem__names_the_field_the_value_and_what_is_right(problem: Problem, text: str) -> None:
    assert str(problem) == text


def test_specification_error__lists_every_problem() -> None:
    error = SpecificationError([Problem("a", 1, "x"), Problem("b", None, "y")])
    assert str(error) == "The specification is refused (2 problems):\n  - a = '1': x\n  - b: y"
    assert str(SpecificationError([Problem("a", 1, "x")])).startswith("The specification is refused (1 problem):")


@pytest.mark.parametrize(
    ("problems", "text"),
    [
        ([Problem("NAME", "x", "there is no such service")], "NAME = 'x': there is no such service"),
        ([Problem("--resume", "7", "is no run")], "--resume = '7': is no run"),
        ([Problem("PREFECT_HOME", None, "x"), Problem("", None, "y.")], "PREFECT_HOME: x\ny."),
        (
            [Problem("NAME", "x", "y"), Problem("model", None, "z")],
            "The specification is refused (2 problems):\n  - NAME = 'x': y\n  - model: z",
        ),
    ],
    ids=["argument", "option", "environment", "with a field"],
)
def test_error__of_the_call_does_not_speak_of_a_specification(problems: list[Problem], text: str) -> None:
    assert str(SpecificationError(problems)) == text
