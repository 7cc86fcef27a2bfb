"""The checksum at the end of the files that a run relies on."""

from __future__ import annotations

import pytest

from tasks.domain.errors import DamagedFile
from tasks.domain.seal import digest, seal, unseal

DATA = bytes(range(256)) * 3


def test_unseal__gives_back_the_bytes_that_were_sealed() -> None:
    for data in (b"", b"x", DATA, seal(DATA, "inner")):
        assert unseal(seal(data, "run/shards/00001"), "run/shards/00001") == data


@pytest.mark.parametrize("kept", [*range(0, 60), 300, 700, 811])
def test_unseal__refuses_what_is_cut(kept: int) -> None:
    sealed = seal(DATA, "run")
    assert kept < len(sealed)
    with pytest.raises(DamagedFile, match=r"is empty|is cut"):
        unseal(sealed[:kept], "run")


def test_unseal__refuses_each_changed_byte() -> None:
    sealed = seal(DATA[:100], "run")
    for at in range(len(sealed)):
        changed = bytearray(sealed)
        changed[at] ^= 0x20
        with pytest.raises(DamagedFile):
            unseal(bytes(changed), "run")


def test_unseal__refuses_what_was_sealed_for_another_owner_or_not_at_all() -> None:
    for owner in ("", "run/shards/00002", "other/shards/00001", "run/shards/00001\0"):
        with pytest.raises(DamagedFile, match="another run or shard"):
            unseal(seal(DATA, owner), "run/shards/00001")
    with pytest.raises(DamagedFile, match="not written by this version"):
        unseal(b"PAR1" + DATA + b"PAR1", "run")
    with pytest.raises(DamagedFile, match="is damaged"):
        unseal(seal(DATA, "run") + seal(b"", "other")[-45:], "run")


def test_digest__tells_owner_and_data_apart() -> None:
    assert len({digest(b"ab", ""), digest(b"b", "a"), digest(b"", "ab"), digest(b"\0b", "a")}) == 4
