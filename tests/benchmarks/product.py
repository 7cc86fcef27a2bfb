"""The product's side of a benchmark: one run of one batch service in this process, on an ephemeral Prefect server.

    PREFECT_HOME=... python tests/benchmarks/product.py INPUT OUTPUT URL

prints one JSON object with the same figures as a floor. `seconds` is the inference phase, as the run's own summary has
it; `whole_seconds` is the call of the flow. Run it from the root of the repository, in a fresh process.
"""

from __future__ import annotations

import argparse
import asyncio
import inspect
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from data import own_figures

MODEL_CONFIG = {
    "model_type": "Image",
    "model_algorithm": "benchmark",
    "apis": [
        {
            "url": "/",
            "method": "post",
            "request": {
                "Content-type": "multipart/form-data",
                "data": {"type": "object", "properties": {"file": {"type": "file"}}},
            },
            "response": {"Content-type": "application/json", "data": {"type": "object"}},
        }
    ],
}


def summary(output: str) -> dict[str, Any]:
    """The run's own summary, from a local folder or from S3."""
    if not output.startswith("s3://"):
        (path,) = Path(output).glob("infer-result-*.summary.json")
        return dict(json.loads(path.read_text()))
    from obstore.store import S3Store

    store = S3Store.from_url(output, client_options={"allow_http": True})
    metas = store.list_with_delimiter()["objects"]
    (key,) = (meta["path"] for meta in metas if meta["path"].endswith(".summary.json"))
    return dict(json.loads(store.get(key).bytes().to_bytes()))


def main() -> None:
    """Run the service once and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("input")
    parser.add_argument("output")
    parser.add_argument("url")
    options = parser.parse_args()
    os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from flows.batch_service import batch_service
    from tasks.domain.service import BatchService

    service = BatchService(
        name="benchmark",
        model=options.url,
        model_config=MODEL_CONFIG,
        input_path=options.input,
        output_path=options.output,
    )
    start = time.perf_counter()
    outcome = batch_service(service)
    if inspect.isawaitable(outcome):

        async def wait() -> None:
            await outcome

        asyncio.run(wait())
    whole = time.perf_counter() - start
    told = summary(options.output)
    items = int(told["items"]["successful"])
    seconds = float(told["seconds"]["infer"])
    figures = {
        "seconds": seconds,
        "whole_seconds": whole,
        "items": items,
        "rate": items / seconds,
    }
    print(json.dumps(figures | own_figures()))


if __name__ == "__main__":
    main()
