"""The result of ``thresher validate``, as text."""

from __future__ import annotations

import json
from typing import Any

from tasks.domain.plain_text import plain_lines
from tasks.domain.refused_items import REASONS, Count


def preview_text(found: dict[str, Any]) -> str:
    """Plan, mapping and first request, in human-readable form."""
    plan, model = found["plan"], found["model"]
    lines = [
        f"service   {found['name']}",
        f"model     {model['type']}{' ' + model['version'] if model['version'] else ''}, served by: {model['serving']}",
        f"instances {found['instances']} x {found['flavor']}",
        f"plan      {plan['items']:,} items, {plan['bytes']:,} bytes, {plan['shards']:,} shards",
    ]
    if plan["rows"] is not None:
        lines.append(f"          {plan['rows']:,} rows")
    if plan["items_of_unknown_size"]:
        lines.append(f"          {plan['items_of_unknown_size']:,} items of unknown size")
    for number, count in enumerate(found["refused"]):
        shown = Count(**count)
        lines.append(f"{'' if number else 'refused':10}{shown.share} ({REASONS[shown.reason]})")
    lines.append(f"manifest  {found['output_manifest']}")
    if found["mapping"] is not None:
        lines += ["", "mapping", json.dumps(found["mapping"], ensure_ascii=False, indent=2)]
    request = found["request"]
    if request is not None:
        lines += [
            "",
            f"first request (of {request['item']})",
            f"{request['method']} {request['path']}",
            f"Content-Type: {request['content_type']}",
            "",
            request["body"].replace("\r\n", "\n"),
        ]
    else:
        lines += ["", f"first request: none, because {found['no_request']}"]
    return "\n".join(one for line in lines for one in plain_lines(line)) + "\n"
