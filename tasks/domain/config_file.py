"""Reading a ``config.json``: the parts used must be valid, unused ones are passed over."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from tasks.domain.errors import Problem, SpecificationError
from tasks.domain.lenient_json import parse_lenient
from tasks.domain.package import IMAGE, NOTHING, Api, Dependency, PackageConfig, validation_problems


class _Dependencies(BaseModel):
    dependencies: tuple[Dependency, ...]


def parse_config(raw: bytes, where: str, *, running: bool = False) -> PackageConfig:
    """Read a ``config.json``; ``where`` names it in messages.

    An error in a part that is not used is no problem: the part is ``passed_over``. For a model server that is already
    ``running`` only its APIs and its health address are used.

    Raises SpecificationError with every problem, each with its path inside the JSON (``apis[0].request.data``).
    """
    try:
        document, odd = parse_lenient(raw)
    except ValueError as error:
        raise SpecificationError([Problem(where, None, f"should be JSON in UTF-8: {error}")]) from None
    if not isinstance(document, Mapping):
        raise SpecificationError([Problem(where, None, f"should be a JSON object, not {type(document).__name__}")])
    document = dict(document)
    passed_over = [*odd, *_unused_apis(document), *_unused_parts(document, running)]
    try:
        config = PackageConfig.model_validate(document)
    except ValidationError as error:
        raise SpecificationError(validation_problems(error, f"{where}: ")) from None
    if problems := _rules(config, where, running):
        raise SpecificationError(problems)
    return config.passing_over(passed_over)


def _unused_apis(document: dict[str, Any]) -> Iterator[str]:
    """Remove broken APIs from a document if requests can be sent to another; yields each with the reason.

    Valid APIs that requests cannot be sent to stay, and are also yielded.
    """
    name = "apis" if document.get("apis") is not None else "api"
    given = document.get(name)
    if given in NOTHING:
        document.pop(name, None)
        return
    given = [given] if isinstance(given, dict) else given
    document[name] = given
    if not isinstance(given, list):
        return
    read: list[Api | str] = []
    for entry in given:
        try:
            read.append(Api.model_validate(entry))
        except ValidationError as error:
            read.append("; ".join(map(str, validation_problems(error))))
    if not any(isinstance(api, Api) and api.carries_body for api in read):
        return
    for number, api in enumerate(read):
        if isinstance(api, str):
            yield f"{name}[{number}]: {api}"
        elif not api.carries_body:
            how = f"is asked by {api.method}" if api.speaks_http else f"has the protocol {api.protocol}"
            yield f"{name}[{number}], {api.url}, {how}"
    document[name] = [entry for entry, api in zip(given, read, strict=True) if isinstance(api, Api)]


def _unused_parts(document: dict[str, Any], running: bool) -> Iterator[str]:
    """Remove invalid parts of a document that are not used for such a model; yields each with the reason."""
    if running and not isinstance(document.get("model_type"), str):
        document["model_type"] = "Custom"
    image = document.get("model_type") == IMAGE
    location = document.get("swr_location")
    if location and (running or not image):
        yield f"swr_location is used for models of type {IMAGE} only"
    elif location and not isinstance(location, str):
        yield f"swr_location = {location!r} is no address of an image"
    if running or not image or not isinstance(location, str):
        document.pop("swr_location", None)
    if not running and not image:
        return
    dependencies = document.get("dependencies")
    if dependencies in NOTHING:
        return
    try:
        _Dependencies.model_validate({"dependencies": dependencies})
    except ValidationError as error:
        del document["dependencies"]
        yield "; ".join(str(one) for one in validation_problems(error))


def _rules(config: PackageConfig, where: str, running: bool) -> list[Problem]:
    problems: list[Problem] = []
    urls = [api.url for api in config.apis if api.carries_body] or [api.url for api in config.apis]
    if config.model_type == IMAGE or running:
        for url in sorted(url for url, times in Counter(urls).items() if times > 1):
            problems.append(Problem(f"{where}: apis", url, "each url should stand once"))
    elif len(urls) > 1:
        problems.append(Problem(f"{where}: apis", ", ".join(urls), f"a {config.model_type} model has exactly one API"))
    elif urls != ["/"]:
        problems.append(Problem(f"{where}: apis[0].url", urls[0], f"should be / for a {config.model_type} model"))
    return problems
