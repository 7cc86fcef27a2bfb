"""The form for a service in the Prefect user interface: a choice of pools and flavors, and plain fields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prefect import Flow
from prefect.utilities.callables import parameter_schema

from tasks.domain.pool import Flavor, Pool

_NULL = {"type": "null"}


def form(flow: Flow[..., Any], pools: Mapping[str, Pool]) -> dict[str, Any]:
    """The parameter schema of a flow that takes a service, for a form with a choice of pools and flavors.

    The user interface shows a nullable field as two tabs; here it is one field that may be left empty. Its list of
    flavors cannot follow the choice of a pool: it has those of all pools, each of which it describes, and the server
    refuses a flavor of another pool when the form is submitted.
    """
    schema = parameter_schema(flow).model_dump_for_openapi()
    properties = schema["definitions"]["BatchService"]["properties"]
    for name, field in properties.items():
        if _NULL in field.get("anyOf", ()):
            properties[name] = _without_null(field)
    properties["resource_pool"]["enum"] = list(pools)
    if properties["resource_pool"].get("default") not in pools:
        properties["resource_pool"]["default"] = next(iter(pools), None)
    offered = {flavor.name: None for pool in pools.values() for flavor in pool.flavors}
    properties["flavor"]["enum"] = list(offered)
    detail = "; ".join(f"{name}: {', '.join(map(_described, pool.flavors))}" for name, pool in pools.items())
    properties["flavor"]["description"] += f". {detail}"
    schema["definitions"]["BatchService"] |= _flavors_of_the_pool(pools, properties["resource_pool"].get("default"))
    return schema


def _described(flavor: Flavor) -> str:
    accelerators = f", accelerators: {flavor.accelerators}" if flavor.accelerators else ""
    return f"{flavor.name} ({flavor.cpu:g} CPU, {flavor.memory_gb:g} GiB{accelerators})"


def _flavors_of_the_pool(pools: Mapping[str, Pool], default: str | None) -> dict[str, Any]:
    """A rule of JSON Schema for each pool, one in the ``else`` of the other: the user interface passes over them."""
    rule: dict[str, Any] = {}
    for name, pool in reversed(list(pools.items())):
        chosen: dict[str, Any] = {"properties": {"resource_pool": {"const": name}}}
        if name != default:
            chosen["required"] = ["resource_pool"]
        offered = {"properties": {"flavor": {"enum": [flavor.name for flavor in pool.flavors]}}}
        rule = {"if": chosen, "then": offered} | ({"else": rule} if rule else {})
    return rule


def _without_null(field: dict[str, Any]) -> dict[str, Any]:
    others = [one for one in field["anyOf"] if one != _NULL]
    if len(others) != 1 or "$ref" in others[0]:
        return field  # a schedule has fields of its own: its tabs choose whether there is one
    rest = {name: value for name, value in field.items() if name not in ("anyOf", "default")}
    return {**rest, **others[0]}
