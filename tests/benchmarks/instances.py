"""Sharing out for real: several instances of which one is slower, and how long the run takes by the ideal.

    python tests/benchmarks/instances.py [--instances 4] [--slower 4] [--items 4000] [--milliseconds 50]

The model servers answer one request at a time, each after so many milliseconds (the slow one after so many times as
long), and use hardly any CPU: what is measured is who waits for whom. The ideal is the number of items by the sum of
all instances' rates; the time taken is that of the inference, from the first healthy instance to the last report.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RUN_SH = """
if mkdir {folder}/slow-one 2>/dev/null; then TIME={slow}; else TIME={fast}; fi
exec {python} {server} --service-time $TIME --parallelism 1
"""


def main() -> None:
    """Run once; the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--instances", type=int, default=4)
    parser.add_argument("--slower", type=float, default=4)
    parser.add_argument("--items", type=int, default=4_000)
    parser.add_argument("--milliseconds", type=float, default=50)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-instances-") as name:
        print(json.dumps(measured(Path(name), options)))


def measured(folder: Path, options: argparse.Namespace) -> dict[str, float]:
    """One run of the command in a folder of its own."""
    source = folder / "in"
    source.mkdir()
    for number in range(options.items):
        (source / f"{number:06d}.bin").write_bytes(b"x" * 100)
    package = folder / "package"
    package.mkdir()
    request = {"data": {"type": "object", "properties": {"images": {"type": "file"}}}}
    (package / "config.json").write_text(
        json.dumps({"model_type": "Image", "apis": [{"url": "/", "request": request}]})
    )
    slow, fast = options.milliseconds * options.slower, options.milliseconds
    server = ROOT / "tests" / "fakes" / "model_server.py"
    (package / "run.sh").write_text(
        RUN_SH.format(folder=folder, slow=slow, fast=fast, python=sys.executable, server=server)
    )
    service = folder / "service.json"  # JSON is YAML
    service.write_text(
        json.dumps(
            {
                "name": "bench-instances", "model": str(package), "input_path": str(source),
                "output_path": str(folder / "out"), "instances": options.instances,
            }
        )
    )  # fmt: skip
    environment = {**os.environ, "PREFECT_HOME": str(folder / "home"), "THRESHER_CACHE": str(folder / "cache")}
    command = [str(Path(sys.executable).with_name("thresher")), "run", str(service)]
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    (summary,) = (folder / "out").glob("*.summary.json")
    figures = json.loads(summary.read_bytes())
    taken = figures["seconds"]["infer"]
    ideal = options.items / ((options.instances - 1) * 1000 / fast + 1000 / slow)
    return {
        "items": options.items,
        "ideal_seconds": round(ideal, 2),
        "seconds": taken,
        "ratio": round(taken / ideal, 3),
    }


if __name__ == "__main__":
    main()
