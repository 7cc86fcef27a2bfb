"""``make demo``: run the two example packages on their real data and show the results."""

from __future__ import annotations

import csv
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from deployments.one_run.shown_run import show_run
from deployments.services.specification import read_specification
from deployments.terminal.door import stop_on_signals
from deployments.terminal.output import error_console
from tasks.domain.errors import ThresherError
from tasks.domain.run import RunResult
from tasks.domain.settings import ROOT

EXAMPLES = Path(__file__).parent / "examples"
MODELS = ROOT / "infra" / "models"
_SHOWN = 3
_WIDTH = 160


def main() -> None:
    """Run both example services into ``demo-output`` and print the results and their accuracy."""
    console = Console(width=_WIDTH if not sys.stdout.isatty() else None, highlight=False, soft_wrap=True)
    stop_on_signals()
    output = Path(sys.argv[1]).absolute() if len(sys.argv) > 1 else ROOT / "demo-output"
    results: dict[str, RunResult] = {}
    for name in ("iris", "digits"):
        spec = EXAMPLES / f"{name}.yaml"
        console.print(f"\n[bold]thresher run {spec.relative_to(ROOT)}[/bold]")
        try:
            results[name] = show_run(read_specification(spec, [f"output_path={output / name}"]), verbose=False)
        except (ThresherError, KeyboardInterrupt) as error:
            error_console().print(str(error), markup=False)
            sys.exit(1)
        result = results[name]
        console.print(f"{result.successful:,} of {result.items:,} items SUCCESSFUL, {result.failed:,} FAILED")
    _show(console, results["digits"], output)
    right = {"iris": _iris_right(results["iris"]), "digits": _digits_right(results["digits"])}
    console.print("\n[bold]Accuracy reached on the demo's data[/bold]")
    for name, answers in right.items():
        console.print(f"  {name:7} {sum(answers)} of {len(answers)} right: {sum(answers) / len(answers):.4f}")
    console.print(
        "\n[bold]Where to go on[/bold]\n"
        f"  the specification     {(EXAMPLES / 'digits.yaml').relative_to(ROOT)}\n"
        "  check without running .venv/bin/thresher validate deployments/examples/iris.yaml\n"
        "  run one               .venv/bin/thresher run deployments/examples/digits.yaml\n"
        "  your own model        infra/models/README.md\n"
        "  everything else       README.md"
    )
    if any(result.failed for result in results.values()):
        sys.exit(1)


def _show(console: Console, result: RunResult, output: Path) -> None:
    console.print(f"\n[bold]{os.path.relpath(output)}[/bold]")
    for line in _tree(output):
        console.print(line, markup=False)
    manifest = Path(result.manifest)
    console.print(f"\n[bold]The first lines of the output manifest[/bold] {os.path.relpath(manifest)}")
    with manifest.open(encoding="utf-8") as file:
        lines = [next(file) for _ in range(min(_SHOWN, result.items))]
    for line in lines:
        console.print(line.rstrip(), markup=False)
    location = json.loads(lines[0])["inference-loc"]
    console.print(f"\n[bold]The first result file[/bold] {os.path.relpath(location)}")
    console.print(Path(location).read_text(encoding="utf-8")[:300], markup=False)


def _tree(folder: Path, indent: str = "  ") -> Iterator[str]:
    """The folder as a tree, with only the first entries of each folder."""
    entries = sorted(folder.iterdir(), key=lambda path: (path.is_file(), path.name))
    for entry in entries[:_SHOWN]:
        yield f"{indent}{entry.name}{'/' if entry.is_dir() else ''}"
        if entry.is_dir():
            yield from _tree(entry, f"{indent}    ")
    if len(entries) > _SHOWN:
        yield f"{indent}... {len(entries) - _SHOWN} more"


def _iris_right(result: RunResult) -> list[bool]:
    labels = _rows(MODELS / "iris" / "labels.csv")
    location = json.loads(Path(result.manifest).read_text(encoding="utf-8"))["inference-loc"]
    answers = [json.loads(line) for line in Path(location).read_text(encoding="utf-8").splitlines()]
    return [
        answer["data"]["resp_data"][0]["predictresult"] == label[-1]
        for answer, label in zip(answers, labels, strict=True)
    ]


def _digits_right(result: RunResult) -> list[bool]:
    labels = {row[0]: row[1] for row in _rows(MODELS / "digits" / "labels.csv")}
    right = []
    with Path(result.manifest).open(encoding="utf-8") as file:
        for line in map(json.loads, file):
            answer = json.loads(Path(line["inference-loc"]).read_bytes())
            name = "/".join(Path(line["source"]).parts[-2:])
            right.append(answer["predicted_label"] == labels[name])
    return right


def _rows(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return [row for row in csv.reader(file) if row]


if __name__ == "__main__":
    main()
