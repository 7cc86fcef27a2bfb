from __future__ import annotations

import base64
import re
from typing import Any

import pytest

from tasks.domain.package import PackageConfig
from tasks.domain.pool import Flavor
from tasks.domain.run import Run, RunResult
from tasks.domain.service import BatchService
from tasks.domain.summary import summary_page


def page(output: str = "/out", first_lines: tuple[str, ...] = (), model: str = "/model", **result: Any) -> str:
    service = BatchService(name="nightly_digits", model=model, input_path="/in", output_path=output, instances=2)
    run = Run(
        task_id="an-id", service=service, serving="boot-file", package="/model", output=output, request_path="/",
        config=PackageConfig.model_validate({"model_type": "Image", "apis": [{"url": "/"}]}),
        flavor=Flavor(name="cpu-1", cpu=1, memory_gb=1),
    )  # fmt: skip
    names = run.names
    counts = {"items": 1234, "successful": 1200, "failed": 34} | result
    made = RunResult(
        task_id="an-id", name=service.name, manifest=f"{output}/{names.manifest(0)}", seconds={"plan": 0.25},
        manifests=(f"{output}/{names.manifest(0)}",), summary=f"{output}/{names.summary}", **counts,
    )  # fmt: skip
    return summary_page(run, made, first_lines)


def test_summary__says_what_came_of_the_run() -> None:
    text = page(first_lines=('{"source": "/in/a"}\n',))
    assert text.startswith("# nightly\\_digits: Completed\n")
    for row in ("| Items | 1,234 |", "| SUCCESSFUL | 1,200 |", "| FAILED | 34 |", "| Pool | public-cpu: 2 x cpu-1 |"):
        assert row in text
    assert "- [output manifest](file:///out/infer-result-an-id.manifest): `/out/infer-result-an-id.manifest`\n" in text
    assert "- [result files](file:///out/infer-result-an-id): `/out/infer-result-an-id`\n" in text
    assert '```\n{"source": "/in/a"}\n```' in text


@pytest.mark.parametrize(("good", "bad"), [(1200, 34), (0, 5), (5, 0), (0, 0)])
def test_summary__has_a_bar_as_long_as_the_share_of_successful_items(good: int, bad: int) -> None:
    found = re.search(r"!\[.*\]\(data:image/svg\+xml;base64,([^)]*)\)", page(successful=good, failed=bad))
    assert found
    widths = [float(one) for one in re.findall(r'rect width="([\d.]+)"', base64.b64decode(found[1]).decode())]
    assert widths == [640, pytest.approx(640 * good / (good + bad) if good + bad else 0, abs=0.1)]


@pytest.mark.parametrize(
    ("output", "line"),
    [
        ("s3://b/a b", "[result files](s3://b/a%20b/infer-result-an-id): `s3://b/a b/infer-result-an-id`"),
        ("/a_(1)_b", "[result files](file:///a_%281%29_b/infer-result-an-id): `/a_(1)_b/infer-result-an-id`"),
        ("/a`b", "[result files](file:///a%60b/infer-result-an-id): ``/a`b/infer-result-an-id``"),
    ],
)  # fmt: skip
def test_summary__names_places_that_can_be_followed_and_copied(output: str, line: str) -> None:
    assert line in page(output)


def test_summary__shows_text_as_it_is() -> None:
    text = page(
        top_causes=({"items": 34, "cause": "a | b_c_d <b>\n*no*"},), warnings=("see [this](x)",), failure="Too many."
    )
    assert text.startswith("# nightly\\_digits: Too many\n")
    assert "| 34 | a \\| b\\_c\\_d \\<b\\> \\*no\\* |" in text
    assert "- see \\[this\\](x)\n" in text


def test_summary__of_a_run_that_was_stopped_says_so() -> None:
    assert page(stopped=True).startswith("# nightly\\_digits: stopped before its end\n")
