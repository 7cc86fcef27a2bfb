"""Reading a specification: all problems at once, and the fields that are valid despite them."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from tasks.domain.errors import Problem, SpecificationError
from tasks.domain.package import validation_problems
from tasks.domain.service import BatchService


def parse_service(
    fields: dict[str, Any] | BatchService,
) -> tuple[BatchService | None, dict[str, Any], list[Problem]]:
    """Read a specification as far as possible; a service that was read before is taken as it is.

    Returns the service (None if there are problems), the fields that are valid by themselves, and every problem, so
    that valid fields can still be checked against model and storage.
    """
    try:
        service = BatchService.model_validate(fields)
        return service, service.model_dump(), []
    except ValidationError as error:
        problems = validation_problems(error)
        wrong = {str(found["loc"][0]) for found in error.errors() if found["loc"]}
    assert isinstance(fields, dict)
    right = {name: value for name, value in fields.items() if name not in wrong}
    defaults = {
        name: field.get_default(call_default_factory=True)  # other fields keep their defaults
        for name, field in BatchService.model_fields.items()
        if not field.is_required() and field.alias is None
    }
    return None, {**defaults, **right}, [_whole(problem) for problem in problems]


def _whole(problem: Problem) -> Problem:
    if problem.field == "name" and "pattern" in problem.expected:
        return Problem(problem.field, problem.value, "should be 1-64 letters, digits, '-' or '_'")
    secret = problem.field.startswith(("environment", "headers"))
    if secret or (problem.field == "model" and "@" in str(problem.value)):
        # The value may be a secret, or hold one.
        return Problem(problem.field, None, problem.expected)
    return Problem("specification", None, problem.expected) if problem.field == "value" else problem


def require(fields: dict[str, Any]) -> BatchService:
    """The service of these fields. Raises SpecificationError with every problem."""
    service, _, problems = parse_service(fields)
    if service is None:
        raise SpecificationError(problems)
    return service
