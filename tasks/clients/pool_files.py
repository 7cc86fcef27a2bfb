"""Resource pools as files: one YAML file per pool."""

from __future__ import annotations

from pathlib import Path

import yaml
from pydantic import ValidationError

from tasks.clients import yaml_fields
from tasks.domain.errors import Problem, SpecificationError
from tasks.domain.package import validation_problems
from tasks.domain.pool import Pool


def read_pools(folder: Path) -> dict[str, Pool]:
    """The pools of a folder (``*.yaml``, ``*.yml``), by name. Raises SpecificationError naming every invalid file."""
    pools: dict[str, Pool] = {}
    files: dict[str, Path] = {}
    problems: list[Problem] = []
    if not folder.is_dir():
        raise SpecificationError([Problem("THRESHER_POOLS", str(folder), "there is no such folder of pool files")])
    for path in sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")]):
        try:
            document = yaml_fields.load(path.read_bytes(), Pool)
            pool = Pool.model_validate(document)
        except ValidationError as error:
            problems += validation_problems(error, f"{path}: ")
        except (OSError, yaml.YAMLError, ValueError, RecursionError) as error:
            problems.append(Problem(str(path), None, f"should be a YAML file: {error}"))
        else:
            if pool.name in files:
                problems.append(
                    Problem(f"{path}: name", pool.name, f"is the name of the pool in {files[pool.name]}, too")
                )
            pools[pool.name] = pool
            files[pool.name] = path
    if problems:
        raise SpecificationError(problems)
    return pools
