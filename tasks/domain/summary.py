"""A run's summary as a Markdown page, with an inline chart that needs no server."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from urllib.parse import quote

from tasks.domain.paths import redact
from tasks.domain.plain_text import code_span, markdown, plain_line
from tasks.domain.run import Run, RunResult

LINES_SHOWN = 5
"""Lines of the output manifest that the page shows."""
LINE_SHOWN = 2_000
WARNINGS_SHOWN = 50
_WIDTH, _HEIGHT = 640, 18
_SAFE = "/:~!$&',;=@+%"
_GOOD, _BAD = "#2e9e5b", "#d64545"


def summary_page(run: Run, result: RunResult, first_lines: Sequence[str] = ()) -> str:
    """The page of a published run; ``first_lines`` are those of its output manifest."""
    kind = markdown(str(run.config.model_type))
    rows = [
        ("Items", f"{result.items:,}"),
        ("SUCCESSFUL", f"{result.successful:,}"),
        ("FAILED", f"{result.failed:,}"),
        *([("Not processed", f"{result.not_processed:,}, counted as FAILED")] if result.not_processed else []),
        (
            "Model",
            f"{code_span(redact(run.service.model))} {markdown(run.model_version or '')} ({kind})",
        ),
        ("Pool", f"{markdown(run.service.resource_pool)}: {run.instances} x {markdown(run.flavor.name)}"),
        ("Seconds", ", ".join(f"{phase} {seconds:.1f}" for phase, seconds in result.seconds.items())),
    ]
    if run.service.failed_of is not None:
        how = "merged" if run.service.merge else "these items only"
        rows.append(("FAILED items of", f"{code_span(redact(run.service.failed_of))} ({how})"))
    chart = _chart(result.successful, result.failed)
    lines = [f"# {markdown(run.service.name)}: {markdown(_outcome(result))}", "", chart, ""]
    lines += ["| | |", "| --- | --- |", *(f"| {name} | {_cell(value)} |" for name, value in rows)]
    lines += ["", "## Results", ""]
    lines += [_place(name, address) for name, address in _places(run, result)]
    if first_lines:
        fence = "`" * max(3, 1 + max(len(run) for run in re.findall("`*", "".join(first_lines))))
        lines += [
            "",
            "The first lines of the output manifest:",
            "",
            fence,
            *(plain_line(one.rstrip())[:LINE_SHOWN] for one in first_lines),
            fence,
        ]
    if result.top_causes:
        lines += [
            "",
            "## Why items failed",
            "",
            "| items | cause, as one of them tells it | which |",
            "| --- | --- | --- |",
        ]
        lines += [
            f"| {cause['items']:,} | {markdown(str(cause['cause']))} | {markdown(str(cause.get('item', '')))} |"
            for cause in result.top_causes
        ]
    if result.warnings:
        lines += [
            "",
            "## Warnings",
            "",
            *(f"- {markdown(one[:LINE_SHOWN])}" for one in result.warnings[:WARNINGS_SHOWN]),
        ]
        if len(result.warnings) > WARNINGS_SHOWN:
            lines.append(f"- {len(result.warnings) - WARNINGS_SHOWN:,} more, in the summary file")
    return "\n".join(lines) + "\n"


def _outcome(result: RunResult) -> str:
    if result.stopped:
        return "stopped before its end"
    return result.failure.partition("\n")[0].rstrip(".") or "Completed"


def _places(run: Run, result: RunResult) -> list[tuple[str, str]]:
    folder = str(run.output_address.child(run.names.result_folder))
    manifests = [("output manifest", address) for address in result.manifests]
    return [*manifests, ("result files", folder), ("summary", result.summary)]


def _place(name: str, address: str) -> str:
    """An address as a link, where the browser allows it, and as text to copy."""
    url = address if "://" in address else f"file://{address}"
    return f"- [{name}]({quote(url, safe=_SAFE)}): {code_span(address)}"


def _chart(successful: int, failed: int) -> str:
    total = successful + failed
    good = _WIDTH * successful / total if total else 0
    picture = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{_HEIGHT}">'
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" rx="4" fill="{_BAD if total else "#888"}"/>'
        f'<rect width="{good:.1f}" height="{_HEIGHT}" rx="4" fill="{_GOOD}"/></svg>'
    )
    data = base64.b64encode(picture.encode()).decode()
    return f"![{successful:,} SUCCESSFUL, {failed:,} FAILED](data:image/svg+xml;base64,{data})"


def _cell(text: str) -> str:
    return re.sub(r"(?<!\\)\|", r"\\|", text)
