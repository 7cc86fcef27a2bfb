"""The product's side of a benchmark: one run of one batch service in this process.

    PREFECT_API_URL=... python tests/benchmarks/product.py SERVICE.json

runs the service whose fields are in the file, and prints one JSON object with the same figures as a floor. `seconds`
is the inference phase, as the run's own summary has it; `whole_seconds` is the call of the flow, `phases` all phases of
the summary. Rows are counted where the items are CSV files. Without PREFECT_API_URL Prefect starts a server for it.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from data import own_figures

FILE_MODEL = {
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
"""config.json of a model that takes a file a request: `model_config`, unless the service has its own."""


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
    fields = json.loads(Path(sys.argv[1]).read_text())
    os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from flows.batch_service import batch_service
    from tasks.domain.service import BatchService

    if fields["model"].startswith("http"):
        fields.setdefault("model_config", FILE_MODEL)
    service = BatchService(**fields)
    start = time.perf_counter()
    outcome = batch_service(service)
    if inspect.isawaitable(outcome):

        async def wait() -> None:
            await outcome

        asyncio.run(wait())
    whole = time.perf_counter() - start
    own = own_figures()  # before the summary is read
    told = summary(fields["output_path"])
    items = int(told["items"]["successful"])
    rows = int(told["rows"]["successful"])
    seconds = float(told["seconds"]["infer"])
    figures = {
        "seconds": seconds,
        "whole_seconds": whole,
        "phases": told["seconds"],
        "items": items,
        "rows": rows,
        "requests": told["requests"],
        "rate": (rows or items) / seconds if seconds else 0.0,
    }
    print(json.dumps(figures | own))


if __name__ == "__main__":
    main()
