"""What a pickle states is bounded before it is believed: by the size of its file."""

from __future__ import annotations

import pickle
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fusionzoo.data.pickles import load_pickle, names_in
from fusionzoo.errors import DataError, UnsafePickleError

Write = Callable[..., Path]

_HASH_PRIME = 2**61 - 1
_DTYPE = b"cnumpy\ndtype\n(X\x02\x00\x00\x00f4K\x00K\x01tR"
_ARRAY = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tC\x01btR"


def long(value: int) -> bytes:
    data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def doubling(levels: int, make: bytes) -> bytes:
    """A value that holds the one before twice, `levels` times over."""
    program = b"\x80\x04K\x01\x85q\x00"
    for i in range(1, levels):
        program += b"0(" + 2 * (b"h" + bytes([i - 1])) + make + b"q" + bytes([i])
    return program


BOMBS: dict[str, tuple[bytes, str]] = {
    "a far memo place": (b"\x80\x02]r" + struct.pack("<I", 2**27) + b".", "remembered as number 134217728"),
    "a far memo place as text": (b"]p99999999999\n.", "remembered as number 99999999999"),
    "copies of bytes": (
        b"\x80\x04B" + struct.pack("<I", 10**6) + bytes(10**6) + b"q\x000(" + b"cbuiltins\nbytearray\nh\x00\x85R" * 500 + b"l.",
        "MiB of memory",
    ),
    "copies of text as bytes": (
        b"\x80\x02X" + struct.pack("<I", 10**6) + b"x" * 10**6 + b"q\x000(" + b"c_codecs\nencode\nh\x00\x85R" * 500 + b"l.",
        "MiB of memory",
    ),
    "copies of a list": (
        b"\x80\x02](" + b"K\x01" * 10**5 + b"eq\x000(" + b"cbuiltins\nlist\nh\x00\x85R" * 2000 + b"l.",
        "MiB of memory",
    ),
    "nothing but lists": (b"\x80\x02(" + b"]" * 2_000_000 + b"l.", "MiB of containers"),
    "nothing but dicts": (b"\x80\x02(" + b"}" * 400_000 + b"l.", "MiB of containers"),
    "nothing but sets": (b"\x80\x04(" + b"\x8f" * 400_000 + b"l.", "MiB of containers"),
    "a number of many bytes": (b"\x80\x02\x8b" + struct.pack("<i", 10**6) + b"\x7f" * 10**6 + b".", "of 1000000 bytes"),
    "a number of many digits": (b"I" + b"9" * 10**6 + b"\n.", "of 1000000 digits"),
    "a long number of many digits": (b"L" + b"9" * 5000 + b"L\n.", "of 5001 digits"),
    "a tuple of tuples as a key": (b"\x80\x02}K\x01" + b"\x85" * 10**5 + b"K\x01s.", "as the key of a container"),
    "a doubling tuple as a key": (doubling(60, b"t").replace(b"K\x01", b"}K\x01", 1) + b"K\x01s.", "as the key"),
    "a doubling tuple in a set": (doubling(60, b"t").replace(b"K\x01", b"\x8f(K\x01", 1) + b"\x90.", "as the key"),
    "a doubling tuple in a frozenset": (doubling(60, b"t").replace(b"K\x01", b"(K\x01", 1) + b"\x91.", "as the key"),
    "a doubling tuple in a dict of a mark": (doubling(60, b"t").replace(b"K\x01", b"(K\x01", 1) + b"Nd.", "as the key"),
    "a long tuple as a key": (b"\x80\x02}(" + b"K\x01" * 1000 + b"tK\x01s.", "a long tuple"),
    "an array as a key": (b"\x80\x02}" + _ARRAY + b"(K\x01K\x01\x85" + _DTYPE + b"\x89C\x04AAAAtbK\x01s.", "as the key"),
    "keys of one hash": (
        b"\x80\x04}(" + b"".join(long(_HASH_PRIME * (i + 1)) + b"K\x01" for i in range(5000)) + b"u.",
        "very many keys",
    ),
    "members of one hash": (
        b"\x80\x04\x8f(" + b"".join(long(_HASH_PRIME * (i + 1)) for i in range(5000)) + b"\x90.",
        "very many keys",
    ),
    "keys that a file can have probed one after the other": (
        b"\x80\x04}(" + b"".join(long((i + 1) << 40) + b"K\x01" for i in range(40000)) + b"u.",
        "very many keys",
    ),
    "a doubling list": (doubling(60, b"l") + b".", "far larger than the file"),
    "ten levels of ten": (
        b"\x80\x02]q\x00" + b"".join(b"0(" + (b"h" + bytes([i])) * 10 + b"lq" + bytes([i + 1]) for i in range(9)) + b".",
        "far larger than the file",
    ),
    "an array of a million references": (
        b"\x80\x02" + _ARRAY + b"q\x00(K\x01M\xe8\x03\x85" + _DTYPE + b"\x89B\xa0\x0f\x00\x00" + bytes(4000) + b"tb0("
        + b"h\x00" * 1_000_000 + b"l.",
        "far larger than the file",
    ),
    "itself": (b"\x80\x02]q\x00h\x00a.", "contains itself"),
    "deep lists": (b"\x80\x02" + b"]" * 50000 + b"a" * 49999 + b".", "nested too deeply"),
    "deep tuples": (b"\x80\x02)" + b"\x85" * 50000 + b".", "nested too deeply"),
    "an array of no bytes": (_ARRAY + b"(K\x01J\xff\xff\xff\x7f\x85" + _DTYPE + b"\x89C\x00tb.", "do not fit its shape"),
    "an array of many axes": (_ARRAY + b"(K\x01(" + b"K\x01" * 1000 + b"t" + _DTYPE + b"\x89C\x04AAAAtb.", "a malformed array"),
    "buffers that lie elsewhere": (b"\x80\x05\x97.", "buffers of protocol 5"),
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_before_it_takes_memory(write_pickle: Write, name: str):
    program, words = BOMBS[name]
    with pytest.raises(UnsafePickleError) as caught:
        load_pickle(write_pickle(program))
    assert words in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_utterances_as_pairs_of_a_name_and_a_number_are_keys(write_pickle: Write):
    table = {(f"dialogue{i // 9}", i): i for i in range(50000)}
    assert load_pickle(write_pickle(pickle.dumps(table, 4))) == table


_LIMITED = """
import resource, sys
from fusionzoo.data.pickles import load_pickle
from fusionzoo.errors import UnsafePickleError
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + (400 << 20),) * 2)
for path in sys.argv[1:]:
    try:
        load_pickle(path)
    except UnsafePickleError:
        continue
    sys.exit(path)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits of memory are Linux's")
def test_bombs_take_little_memory(tmp_path: Path):
    paths = [tmp_path / f"{i}.pkl" for i in range(len(BOMBS))]
    for path, (program, _) in zip(paths, BOMBS.values(), strict=True):
        path.write_bytes(program)
    done = subprocess.run([sys.executable, "-c", _LIMITED, *map(str, paths)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "program",
    [
        b"\x80\x04\x8d" + struct.pack("<Q", 2**40) + b"abc.",
        b"\x80\x04\x8e" + struct.pack("<Q", 2**63) + b"abc.",
        b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b"abc.",
        b"\x80\x04\x95" + struct.pack("<Q", 2**40) + b"N.",
        b"\x80\x02X\xff\xff\xff\xffabc.",
        b"\x80\x02T\xff\xff\xff\xffabc.",
        b"\x80\x02B\xff\xff\xff\x7fabc.",
    ],
)
def test_a_length_beyond_the_file_is_damage(write_pickle: Write, program: bytes):
    with pytest.raises(DataError, match="announces"):
        load_pickle(write_pickle(program))
    with pytest.raises(DataError):
        names_in(write_pickle(program))


def test_a_second_pickle_in_the_file_is_not_dropped_in_silence(write_pickle: Write):
    one = pickle.dumps([np.ones(2)])
    with pytest.raises(DataError, match="Several pickles in one file"):
        load_pickle(write_pickle(one + one))
    assert len(load_pickle(write_pickle(one + b"\n\0"))) == 1


HONEST: dict[str, Any] = {
    "numbers in lists": [[float(i), i % 256] for i in range(20000)],
    "many small lists": [[i] for i in range(30_000)],
    "bytes that look like instructions": [np.full(10**6, ord("]"), np.uint8), b"(" * 10**6, ["]" * 1000] * 10],
    "pairs as keys": {(d, u): [d, u] for d in range(200) for u in range(60)},
    "numbers as keys": {1000 * i: str(i) for i in range(20000)},
    "sets of names": [{f"dia{i}" for i in range(1000)}, frozenset({1, 2.5, ("a", 1)})],
    "one vector for many": [np.zeros(342)] * 3000,
    "big numbers": [2**63, -(2**63), 10**30, 2**64 - 1],
}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("name", HONEST)
def test_honest_pickles_are_read_as_pickle_reads_them(write_pickle: Write, name: str, protocol: int):
    got, expected = load_pickle(write_pickle(HONEST[name], protocol=protocol)), HONEST[name]
    if isinstance(expected, dict) or not isinstance(expected[0], np.ndarray):
        assert got == expected
        assert type(got) is type(expected)
    else:
        for a, b in zip(got, expected, strict=True):
            np.testing.assert_array_equal(a, b)
