from __future__ import annotations

import builtins
import collections
import copyreg
import io
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fusionzoo.data.pickles import load_pickle, names_in
from fusionzoo.errors import DataError, UnsafePickleError

Write = Callable[..., Path]


class Calls:
    """Pickles as a call of `function` with `args`."""

    def __init__(self, function: Any, *args: Any, state: Any = None):
        self.parts = (function, args) if state is None else (function, args, state)

    def __reduce__(self) -> Any:
        return self.parts


# ---------------------------------------------------------------------- what is admitted

ARRAYS = {
    "float32": np.arange(6, dtype=np.float32).reshape(2, 3),
    "float16": np.arange(3, dtype=np.float16),
    "big-endian": np.arange(4, dtype=">f8"),
    "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "bool": np.array([True, False]),
    "int64": np.array([[1], [2]]),
    "text": np.array(["a", "longer"]),
    "bytes": np.array([b"a", b"bc"]),
    "empty": np.zeros((0, 5)),
    "scalar array": np.array(3.5),
    "complex": np.array([1 + 2j]),
}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_of_every_protocol_come_through(write_pickle: Write, name: str, protocol: int):
    got = load_pickle(write_pickle([ARRAYS[name], ARRAYS[name]], protocol=protocol))
    for array in got:
        assert array.dtype == ARRAYS[name].dtype
        np.testing.assert_array_equal(array, ARRAYS[name])


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_containers_and_scalars_come_through(write_pickle: Write, protocol: int):
    content = {
        "list": [1, 2.5, None, True, "text", b"bytes", 10**30, 1j],
        "set": {1, 2},
        "frozen": frozenset({"a"}),
        "tuple": ((), (1,), {(1, "a"): 2}),
        "bytearray": bytearray(b"xyz"),
        "numpy scalars": [np.float32(1.5), np.int64(7), np.bool_(True), np.str_("s")],
    }
    expected = content | {"numpy scalars": [1.5, 7, True, "s"]}
    assert load_pickle(write_pickle(content, protocol=protocol)) == expected


def test_ordered_and_default_dicts_become_dicts(write_pickle: Write):
    default: dict[str, list[int]] = collections.defaultdict(list)
    default["a"].append(1)
    got = load_pickle(write_pickle([collections.OrderedDict(b=1, a=2), default, collections.defaultdict(dict)]))
    assert got == [{"b": 1, "a": 2}, {"a": [1]}, {}]
    assert [type(d) for d in got] == [dict] * 3


def test_object_arrays_of_plain_values_come_through(write_pickle: Write):
    array = np.empty(2, dtype=object)
    array[:] = [[np.ones(2)], "text"]
    got = load_pickle(write_pickle(array))
    assert got.dtype == object
    np.testing.assert_array_equal(got[0][0], np.ones(2))


def test_shared_containers_keep_their_shape(write_pickle: Write):
    inner = [np.ones(1)]
    got = load_pickle(write_pickle([inner, inner, {"a": inner}]))
    assert got[0] is got[1] is got[2]["a"]


def test_python_2_pickles_with_bytes_as_text(write_pickle: Write):
    # What Python 2's pickle wrote for {'d\xe9': array([1., 2.], float32)}, names of numpy < 2 and str for raw data.
    data = struct.pack("<2f", 1, 2)
    raw = (
        b"\x80\x02}q\x00U\x02d\xe9q\x01cnumpy.core.multiarray\n_reconstruct\nq\x02cnumpy\nndarray\nq\x03K\x00\x85q\x04"
        b"U\x01bq\x05\x87q\x06Rq\x07(K\x01K\x02\x85q\x08cnumpy\ndtype\nq\tU\x02f4q\nK\x00K\x01\x87q\x0bRq\x0c"
        b"(K\x03U\x01<q\rNNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tq\x0eb\x89U" + bytes([len(data)]) + data + b"q\x0ft"
        b"q\x10bs."
    )
    expected = pickle.loads(raw, encoding="latin1")
    got = load_pickle(write_pickle(raw))
    assert list(got) == list(expected) == ["dé"]
    np.testing.assert_array_equal(got["dé"], [1, 2])
    assert load_pickle(write_pickle(b"c__builtin__\nset\n((lp0\nI1\natR.")) == {1}


# ---------------------------------------------------------------------- what is refused

NESTED = np.empty(1, dtype=object)
NESTED[0] = Calls(os.system, "true")

REFUSED: dict[str, tuple[Any, str]] = {
    "os.system": (Calls(os.system, "exit 1"), "posix.system"),
    "eval": (Calls(eval, "1 + 1"), "builtins.eval"),
    "exec": (Calls(exec, "1"), "builtins.exec"),
    "getattr": (Calls(getattr, "a", "upper"), "builtins.getattr"),
    "import": (Calls(__import__, "os"), "builtins.__import__"),
    "open": (Calls(open, "/dev/null"), "io.open"),
    "numpy function": (Calls(np.load, "x.npy"), "numpy.load"),
    "numpy frompyfunc": (Calls(np.frompyfunc, len, 1, 1), "numpy.frompyfunc"),
    "pickle.loads": (Calls(pickle.loads, b"N."), "pickle.loads"),
    "inside an object array": (NESTED, "posix.system"),
    "inside a container": ({"a": [({"b": Calls(os.getcwd)},)]}, "posix.getcwd"),
    "a class": (Path("x"), "pathlib"),
    "ordinary object": (Calls(Calls), "Calls"),
    "a function as a value": (print, "builtins.print"),
    "structured array": (np.zeros(1, dtype=[("a", "f4")]), "neither numbers nor text"),
    "dates": (np.array(["2020-01-01"], dtype="M8[D]"), "M8"),
    "memory map": (Calls(np.memmap, "x"), "memmap"),
    "defaultdict of a function": (Calls(collections.defaultdict, os.getcwd), "posix.getcwd"),
    "defaultdict of set": (collections.defaultdict(set), "defaultdict"),
    "counter": (collections.Counter("a"), "collections.Counter"),
    "copyreg": (Calls(copyreg._reconstructor, object, object, None), "copyreg._reconstructor"),  # type: ignore[attr-defined]
}


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize("name", REFUSED)
def test_everything_else_is_refused_by_name(write_pickle: Write, name: str, protocol: int):
    content, offender = REFUSED[name]
    with pytest.raises(UnsafePickleError) as caught:
        load_pickle(write_pickle(content, protocol=protocol))
    message = str(caught.value)
    assert offender in message
    assert "features.pkl: refused" in message
    assert "Do not load it with pickle" in message


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_nothing_is_executed(write_pickle: Write, tmp_path: Path, protocol: int, monkeypatch):
    target = tmp_path / "made"
    called: list[str] = []
    monkeypatch.setattr(builtins, "eval", lambda code: called.append(code))
    content = [np.ones(2), Calls(os.mkdir, str(target)), Calls(os.system, f"touch {target}")]
    with pytest.raises(UnsafePickleError, match=r"posix.mkdir.*nothing of it was run"):
        load_pickle(write_pickle(content, protocol=protocol))
    with pytest.raises(UnsafePickleError):
        load_pickle(write_pickle(b"cbuiltins\neval\n(V1\ntR."))
    assert not target.exists()
    assert called == []


def dump(*parts: bytes) -> bytes:
    return b"\x80\x02" + b"".join(parts) + b"."


ARRAY = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tC\x01btR"
DTYPE_F4 = b"cnumpy\ndtype\n(X\x02\x00\x00\x00f4K\x00K\x01tR(K\x03X\x01\x00\x00\x00<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
DTYPE_OBJECT_WITHOUT_FLAGS = b"cnumpy\ndtype\n(X\x02\x00\x00\x00O8K\x00K\x01tR(K\x03X\x01\x00\x00\x00|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"

CRAFTED: dict[str, tuple[bytes, str]] = {
    # BUILD on a name: would replace attributes of our stand-in, or of numpy's class, for every later load.
    "build on a function": (
        dump(b"cnumpy.core.multiarray\n_reconstruct\n}X\x01\x00\x00\x00aK\x01sb"),
        "an attempt to change",
    ),
    "build on a class": (
        dump(b"cnumpy\nndarray\nN}X\x01\x00\x00\x00aK\x01s\x86b"),
        "an attempt to change numpy.ndarray",
    ),
    "build on a container": (dump(b"ccollections\nOrderedDict\n}X\x04\x00\x00\x00keysK\x01sb"), "an attempt to change"),
    # numpy's own unpickling would take these eight bytes for an address of a Python object.
    "raw bytes as objects": (
        dump(ARRAY, b"(K\x01K\x01\x85", DTYPE_OBJECT_WITHOUT_FLAGS, b"\x89C\x08AAAAAAAAtb"),
        "an array of objects whose data",
    ),
    "data too short": (dump(ARRAY, b"(K\x01K\x09\x85", DTYPE_F4, b"\x89C\x04AAAAtb"), "do not fit its shape"),
    "text of width 0": (
        dump(ARRAY, b"(K\x01J\xff\xff\xff\x7f\x85cnumpy\ndtype\n(X\x02\x00\x00\x00U0K\x00K\x01tR\x89C\x00tb"),
        "do not fit its shape",
    ),
    "dtype with fields": (
        dump(b"cnumpy\ndtype\n(X\x02\x00\x00\x00f4K\x00K\x01tR(K\x03X\x01\x00\x00\x00<NX\x01\x00\x00\x00aNtb"),
        "malformed dtype",
    ),
    "dtype of unknown order": (
        dump(b"cnumpy\ndtype\n(X\x02\x00\x00\x00f4K\x00K\x01tR(K\x03X\x01\x00\x00\x00?NNNtb"),
        "malformed dtype",
    ),
    "negative shape": (dump(ARRAY, b"(K\x01J\xff\xff\xff\xff\x85", DTYPE_F4, b"\x89C\x04AAAAtb"), "malformed array"),
    "dtype that is none": (dump(ARRAY, b"(K\x01K\x01\x85X\x02\x00\x00\x00f4\x89C\x04AAAAtb"), "malformed array"),
    "malformed state": (dump(ARRAY, b"K\x01b"), "malformed array"),
    "direct ndarray": (dump(b"cnumpy\nndarray\n(K\x01tR"), "a direct call of numpy.ndarray"),
    "reconstruct another class": (
        dump(b"cnumpy.core.multiarray\n_reconstruct\n(cbuiltins\nlist\n(K\x00tC\x01btR"),
        "a class other than numpy.ndarray",
    ),
    "codec with side effects": (
        dump(b"c_codecs\nencode\n(X\x01\x00\x00\x00aX\x04\x00\x00\x00zlibtR"),
        "encode as 'zlib'",
    ),
    "bytearray of a size": (dump(b"cbuiltins\nbytearray\n(J\xff\xff\xff\x7ftR"), "malformed bytearray"),
    "list of a number": (dump(b"cbuiltins\nlist\n(K\x05tR"), "malformed container"),
    "a name as the result": (dump(b"cnumpy\nndarray\n"), "numpy.ndarray where a value was expected"),
    "a name as a key": (dump(b"}cnumpy\nndarray\nK\x01s"), "as the key of a container"),
    "persistent id": (b"Pos.system\n.", "outside object 'os.system'"),
    "binary persistent id": (dump(b"X\x01\x00\x00\x00aQ"), "outside object 'a'"),
    "extension code": (dump(b"\x82\x2a)R"), "extension code"),
    "instance opcode": (b"(S'true'\nios\nsystem\n.", "os.system"),
    "object opcode": (b"(cos\nsystem\nS'true'\no.", "os.system"),
    "dotted name": (b"\x80\x04\x8c\x05numpy\x8c\x0fndarray.__new__\x93.", "numpy.ndarray.__new__"),
}


@pytest.mark.parametrize("name", CRAFTED)
def test_crafted_pickles_are_refused(write_pickle: Write, name: str):
    raw, words = CRAFTED[name]
    with pytest.raises(UnsafePickleError) as caught:
        load_pickle(write_pickle(raw))
    assert words in str(caught.value)
    # Whatever it tried to change, the next sound file reads as before.
    np.testing.assert_array_equal(load_pickle(write_pickle(ARRAYS["float32"])), ARRAYS["float32"])


def test_new_object_of_an_allowed_name_is_refused(write_pickle: Write):
    with pytest.raises(DataError, match="must be a type"):
        load_pickle(write_pickle(dump(b"ccollections\nOrderedDict\n)\x81")))


def test_a_registered_extension_code_cannot_smuggle_a_function(write_pickle: Write, tmp_path: Path):
    copyreg.add_extension("os", "mkdir", 243)
    try:
        target = str(tmp_path / "made").encode()
        pickle.loads(b"\x80\x02\x82\xf3.")  # puts the function in pickle's cache, past find_class
        with pytest.raises(UnsafePickleError, match="extension code 243"):
            load_pickle(write_pickle(dump(b"\x82\xf3(X" + struct.pack("<I", len(target)) + target + b"tR")))
    finally:
        copyreg.remove_extension("os", "mkdir", 243)
    assert not (tmp_path / "made").exists()


def test_our_stand_ins_cannot_be_pickled_into_something_else(write_pickle: Write):
    with pytest.raises(UnsafePickleError, match=r"fusionzoo.data.pickles.load_pickle"):
        load_pickle(write_pickle(b"cfusionzoo.data.pickles\nload_pickle\n(S'x'\ntR."))


# ---------------------------------------------------------------------- damage


def test_every_truncation_is_a_data_error(write_pickle: Write):
    whole = pickle.dumps([{"a": np.arange(4.0)}, {"x", "y"}], 2)
    for size in range(1, len(whole)):
        with pytest.raises(DataError, match=r"features.pkl"):
            load_pickle(write_pickle(whole[:size]))


def test_random_damage_never_escapes_as_another_error(write_pickle: Write):
    whole = pickle.dumps([{"a": np.arange(4.0)}, {"x": [1, 2]}, {"y"}], 2)
    random = np.random.default_rng(0)
    outcomes = collections.Counter()
    for _ in range(300):
        bad = bytearray(whole)
        bad[int(random.integers(0, len(bad)))] = int(random.integers(0, 256))
        try:
            load_pickle(write_pickle(bytes(bad)))
        except DataError:
            outcomes["refused"] += 1
        else:
            outcomes["read"] += 1
    assert outcomes["refused"] > 50


def test_deep_nesting_is_a_data_error(write_pickle: Write):
    with pytest.raises(DataError, match="nested too deeply"):
        load_pickle(write_pickle(b"\x80\x02" + b"]" * 50000 + b"a" * 49999 + b"."))


def test_a_missing_file_is_a_data_error(tmp_path: Path):
    with pytest.raises(DataError, match="no such file"):
        load_pickle(tmp_path / "none.pkl")


# ---------------------------------------------------------------------- names without loading


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_names_are_listed_without_loading(write_pickle: Write, tmp_path: Path, protocol: int):
    content = [np.ones(2), np.ones(2), Calls(os.mkdir, str(tmp_path / "made")), Calls(os.mkdir, "again")]
    names = names_in(write_pickle(content, protocol=protocol))
    assert "posix.mkdir" in names
    assert any(n.endswith(("multiarray._reconstruct", "numeric._frombuffer")) for n in names)
    assert len(names) == len(set(names))
    assert not (tmp_path / "made").exists()


def test_names_in_refuses_damage(write_pickle: Write):
    with pytest.raises(DataError, match="damaged"):
        names_in(write_pickle(b"\x80\x02\xff\xff"))


def test_names_of_memoised_text_are_found(write_pickle: Write):
    buffer = io.BytesIO()
    pickler = pickle.Pickler(buffer, 4)
    pickler.dump(["posix", "mkdir", Calls(os.mkdir, "x")])
    assert names_in(write_pickle(buffer.getvalue())) == ["posix.mkdir"]
