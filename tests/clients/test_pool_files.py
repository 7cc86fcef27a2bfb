"""Resource pools read from their files: every wrong file is named."""

from __future__ import annotations

from pathlib import Path

import pytest
from clients.support import ROOT

from tasks.clients.pool_files import read_pools
from tasks.domain.errors import SpecificationError

FLAVORS = "contact: us\nflavors: [{name: cpu-1, cpu: 1, memory_gb: 2}]\n"


def test_pools__of_the_project_are_of_every_kind_and_access() -> None:
    pools = read_pools(ROOT / "infra" / "pools")
    assert {"public-cpu", "public-gpu", "dedicated-example"} == set(pools)
    assert {(pool.kind, pool.access) for pool in pools.values()} == {("process", "public"), ("kubernetes", "dedicated")}
    assert all(pool.flavors and pool.contact for pool in pools.values())


def test_pools__are_files_with_either_ending(tmp_path: Path) -> None:
    for name in ("a.yaml", "b.yml", "c.txt"):
        (tmp_path / name).write_text(f"name: {name[0]}\n{FLAVORS}")
    assert [*read_pools(tmp_path)] == ["a", "b"]


def test_pools__name_every_wrong_file_at_once(tmp_path: Path) -> None:
    texts = {
        "a.yaml": f"name: same\n{FLAVORS}",
        "b.yaml": f"name: same\n{FLAVORS}",
        "broken.yaml": "name: [",
        "bytes.yaml": b"\xff\xfe\x00",
        "extra.yaml": f"name: extra\nsize: 3\n{FLAVORS}",
        "kind.yaml": f"name: kind\nkind: cloud\n{FLAVORS}",
        "list.yaml": "- 1\n",
        "none.yaml": "",
        "right.yaml": f"name: right\n{FLAVORS}",
    }
    for name, text in texts.items():
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(SpecificationError) as refused:
        read_pools(tmp_path)
    said = [f"{one.field} {one.expected}" for one in refused.value.problems]
    for name in texts:
        assert any(name in one for one in said) == (name not in ("right.yaml",)), (name, said)


def test_pools__of_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SpecificationError, match="there is no such folder of pool files"):
        read_pools(tmp_path / "nowhere")
