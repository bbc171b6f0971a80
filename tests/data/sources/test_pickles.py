import builtins
import contextlib
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from resnets.data.sources.archives import _load_dict
from resnets.errors import ContentError


class Call:
    """Pickles as a call of a function."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


def touch(path: Path) -> str:
    return f"open({str(path)!r}, 'w').close()"


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "attack",
    [
        lambda path: Call(os.system, f"touch {path}"),
        lambda path: Call(eval, touch(path)),
        lambda path: Call(exec, touch(path)),
        lambda path: Call(os.mkdir, str(path)),
        lambda path: Call(np.save, str(path), [0]),
        lambda path: Call(np.memmap, str(path), "uint8", "w+", 0, 4),
        lambda path: Call(builtins.open, str(path), "w"),
        lambda _: Call(getattr, "text", "upper"),
        lambda path: Call(Path, str(path)),
        lambda path: Call(pickle.loads, pickle.dumps(Call(os.mkdir, str(path)))),  # noqa: S301
    ],
    ids=lambda attack: "-".join(attack.__code__.co_names[1:]),
)
def test_nothing_in_a_strangers_pickle_runs(
    tmp_path: Path, protocol: int, attack: Callable[[Path], Call]
) -> None:
    path = tmp_path / "it-ran"
    data = pickle.dumps({b"data": attack(path)}, protocol)
    with pytest.raises(ContentError, match="which is"):
        _load_dict(data)
    assert not path.exists()


ATTACKS = {  # what Python itself would not write, and how it is refused
    "a function changed": (
        b"cnumpy\nndarray\n}X\x04\x00\x00\x00nameX\x06\x00\x00\x00encodesb.",
        "sets the state of a function",
    ),
    "an extension": (b"\x82\x01.", "holds the instruction EXT1"),
    "an instance": (b"(cos\nsystem\nX\x02\x00\x00\x00lso.", "names os.system"),
    "an old instance": (b"(X\x02\x00\x00\x00lsios\nsystem\n.", "holds the instruction INST"),
    "a persistent object": (b"Pos.system\n.", "holds the instruction PERSID"),
    "a dotted name": (
        b"\x80\x04\x8c\x05numpy\x8c\x10ndarray.__init__\x93.",
        "names numpy.ndarray._",
    ),
    "a name of ours": (b"cresnets.pickles\nCall\n.", "names resnets.pickles.Call"),
    "a list": (pickle.dumps([1]), "holds a list, not a dict"),
    "a stand-in": (b"cnumpy\nndarray\n.", "holds a Name, not a dict"),
    "nothing": (b"", "not a readable pickle"),
    "noise": (bytes(range(256)), "not a readable pickle|holds the instruction"),
    "cut": (pickle.dumps({b"a": list(range(100))}, 2)[:-9], "not a readable pickle"),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_crafted_pickle_is_refused(attack: str) -> None:
    data, message = ATTACKS[attack]
    with pytest.raises(ContentError, match=message):
        _load_dict(data)


@pytest.mark.parametrize(
    "array",
    [
        np.array([{"a": 1}], dtype=object),
        np.array(["text"]),
        np.zeros(2, dtype=[("a", "i4"), ("b", "f8")]),
        np.array(["2020-01-01"], dtype="M8[D]"),
    ],
    ids=["objects", "text", "records", "dates"],
)
def test_an_array_of_anything_but_numbers_is_refused(array: np.ndarray[Any, Any]) -> None:
    with pytest.raises(ContentError):
        _load_dict(pickle.dumps({"data": array}, 2))


def test_an_array_that_claims_more_than_it_holds_is_refused() -> None:
    data = pickle.dumps({"data": np.zeros((7, 9), dtype=np.uint8)}, 2)
    assert data.count(b"K\x07K\x09\x86") == 1
    for shape in (b"K\x07K\xff\x86", b"K\x07J\xff\xff\xff\xff\x86"):
        with pytest.raises(ContentError, match=r"without its|not a readable pickle"):
            _load_dict(data.replace(b"K\x07K\x09\x86", shape))


@given(
    npst.arrays(
        st.sampled_from([np.uint8, np.int64, np.float32, ">i4", "?"]),
        npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
    ),
    st.sampled_from([2, 3, 4]),
    st.booleans(),
)
def test_arrays_of_numbers_come_as_they_were_written(
    array: np.ndarray[Any, Any], protocol: int, by_columns: bool
) -> None:
    array = np.asfortranarray(array) if by_columns else array
    loaded = _load_dict(pickle.dumps({b"data": array}, protocol))["data"]
    assert loaded.dtype == array.dtype
    np.testing.assert_array_equal(loaded, array)


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), plain, max_size=4), st.integers(0, 4))
def test_plain_values_come_as_they_were_written(values: dict[str, Any], protocol: int) -> None:
    assert _load_dict(pickle.dumps(values, protocol)) == values


@given(st.binary(max_size=200))
def test_bytes_that_are_no_pickle_are_refused_and_never_crash(data: bytes) -> None:
    with contextlib.suppress(ContentError):
        _load_dict(data)


def test_strings_of_python_2_are_bytes_and_keys_are_text() -> None:
    name = b"leptodactylus_s_000004.png"
    short = b"U" + bytes([len(name)]) + name
    long = b"T" + struct.pack("<i", 300) + b"x" * 300
    data = b"\x80\x02}q\x01(U\x09filenames]q\x02(" + short + long + b"eu."
    assert _load_dict(data) == {"filenames": [name, b"x" * 300]}
