"""Resource pools as files: one YAML file a pool."""

from __future__ import annotations

from pathlib import Path

import yaml
from pydantic import ValidationError

from tasks.domain.errors import Problem, SpecificationError
from tasks.domain.package import validation_problems
from tasks.domain.pool import Pool


def read_pools(folder: Path) -> dict[str, Pool]:
    """The pools of a folder, by name. Raises SpecificationError for a file that cannot be read."""
    pools: dict[str, Pool] = {}
    problems: list[Problem] = []
    for path in sorted(folder.glob("*.yaml")):
        try:
            document = yaml.safe_load(path.read_bytes())
            pool = Pool.model_validate(document)
        except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
            problems.append(Problem(str(path), None, f"should be a YAML file: {error}"))
        except ValidationError as error:
            problems += validation_problems(error, f"{path}: ")
        else:
            pools[pool.name] = pool
    if problems:
        raise SpecificationError(problems)
    return pools
