"""Content-Encoding of answers: undone within a bound, or refused."""

from __future__ import annotations

import gzip
import zlib

import pytest

from tasks.domain.encoding import PIECE_BYTES, decoded, is_encoded
from tasks.domain.errors import AnswerError

TEXT = b'{"label": "cat"}' * 1000


def named(value: object) -> str:
    """What a case is called: some data are long."""
    return value[:20] if isinstance(value, str) else "data"


def packed(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


def raw(data: bytes) -> bytes:
    made = zlib.compressobj(wbits=-15)
    return made.compress(data) + made.flush()


@pytest.mark.parametrize(
    ("encoding", "data"),
    [
        ("gzip", packed(TEXT)), (" GZIP ", packed(TEXT)), ("x-gzip", packed(TEXT)),
        ("gzip", packed(TEXT[:77]) + packed(TEXT[77:])), ("gzip", packed(TEXT) + bytes(512)),
        ("gzip", packed(b"") + packed(TEXT) + packed(b"")),
        ("deflate", zlib.compress(TEXT)), ("deflate", raw(TEXT)),
    ],
    ids=named,
)  # fmt: skip
def test_answer__is_decoded(encoding: str, data: bytes) -> None:
    assert is_encoded(encoding)
    assert b"".join(decoded(encoding, data, len(TEXT))) == TEXT


def test_raw_deflate__that_begins_like_the_header_of_zlib_is_decoded() -> None:
    for length in range(1, 400):
        data = raw(bytes([length % 256]) * length)
        assert b"".join(decoded("deflate", data, 1000)) == bytes([length % 256]) * length


@pytest.mark.parametrize("encoding", ["", "identity", " Identity "])
def test_answer__without_encoding_is_none(encoding: str) -> None:
    assert not is_encoded(encoding)


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "identity, gzip", "compress", "x" * 1000], ids=named)
def test_encoding__that_is_not_known_is_refused_by_its_name(encoding: str) -> None:
    with pytest.raises(AnswerError, match=r"Content-Encoding '.*'; it should be none") as refused:
        list(decoded(encoding, b"x", 100))
    assert len(str(refused.value)) < 200


@pytest.mark.parametrize(
    ("encoding", "data"),
    [
        ("gzip", packed(TEXT)[:-1]), ("gzip", packed(TEXT)[:40]), ("gzip", b"\x1f"), ("gzip", TEXT),
        ("gzip", packed(TEXT) + b"more"), ("gzip", packed(TEXT) + packed(TEXT)[:30]),
        ("gzip", packed(TEXT)[:-6] + bytes(6)),
        ("deflate", zlib.compress(TEXT)[:-3]), ("deflate", raw(TEXT)[:-1]),
        ("deflate", zlib.compress(TEXT) + b"more"), ("deflate", zlib.compress(TEXT)[:-1] + b"\0"), ("deflate", b"\xff"),
        ("deflate", TEXT),
    ],
    ids=named,
)  # fmt: skip
def test_stream__that_is_cut_or_damaged_is_no_answer(encoding: str, data: bytes) -> None:
    with pytest.raises(AnswerError, match=r"The model's answer is damaged: it cannot be decoded as (gzip|deflate)"):
        list(decoded(encoding, data, 1 << 20))


def test_stream__of_members_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.domain.encoding.MOST_MEMBERS", 10)
    assert b"".join(decoded("gzip", packed(b"x") * 10, 100)) == b"x" * 10
    with pytest.raises(AnswerError, match="more than 10 members"):
        list(decoded("gzip", packed(b"") * 11, 100))


@pytest.mark.parametrize("compress", [packed, zlib.compress, raw])
def test_bomb__is_not_decoded_beyond_the_bound(compress: object) -> None:
    data = compress(bytes(64 << 20))  # type: ignore[operator]
    pieces: list[bytes] = []
    with pytest.raises(AnswerError, match=r"more than 3000000 bytes \(2.86102 MiB\) when its (gzip|deflate) encoding"):
        pieces.extend(decoded("gzip" if data[0] == 0x1F else "deflate", data, 3_000_000))
    assert max(map(len, pieces)) <= PIECE_BYTES
    assert sum(map(len, pieces)) <= 3_000_000
