"""Reading a pickle takes work and memory in proportion to its bytes, whatever it says."""

import collections
import io
import pickle
import resource
import struct
import tracemalloc

import pytest

from resnets.data.sources.archives import _load_dict
from resnets.errors import ContentError
from resnets.pickles import Call, Name, Reference, read_pickle


def everything(_: str) -> bool:
    return True


def test_a_call_is_written_down_and_not_made() -> None:
    call = read_pickle(b"cos\nsystem\n(X\x02\x00\x00\x00lstR.", everything)
    assert isinstance(call, Call)
    assert (call.function, call.arguments) == (Name("os.system"), ("ls",))


def test_a_persistent_id_is_handed_on_and_not_looked_up() -> None:
    references: list[Reference] = []
    value = read_pickle(b"K\x07Q.", everything, references=references)
    assert (value.about, references) == (7, [value])


def nested_key(levels: int) -> bytes:
    """A dict whose key is a tuple of one tuple twice, and so on: 2 ** levels steps to hash."""
    return b"}" + b")" + b"2\x86".replace(b"2", b"q\x00h\x00") * levels + b"K\x01s."


def deep_key(levels: int) -> bytes:
    return b"}" + b")" + b"\x85" * levels + b"K\x01s."


def copied_list(times: int) -> bytes:
    """One long list that is made a dict of over and over."""
    pair = b"(K\x01K\x02t"
    made = b"ccollections\nOrderedDict\nq\x01"
    pairs = b"](" + pair * 20_000 + b"eq\x00"
    return b"(" + made + pairs + b"h\x01h\x00\x85R" * times + b"l."


def copied_text(times: int) -> bytes:
    text = b"X" + struct.pack("<I", 1 << 22) + b"a" * (1 << 22) + b"q\x00"
    return b"(c_codecs\nencode\nq\x01" + text + b"h\x01h\x00\x85R" * times + b"l."


WORK = {
    "a key of tuples in tuples": nested_key(60),
    "a key that is deep": deep_key(100_000),
    "a frozen set as a key": b"}(K\x01\x91K\x01s.",
    "a list as a key": b"}]K\x01s.",
    "a float as a key": b"}G" + struct.pack(">d", 1.5) + b"K\x01s.",
    "a number of a shared hash": b"}\x8a\x09" + (2**61 - 1).to_bytes(9, "little") + b"K\x01s.",
    "a long text as a key": b"}X" + struct.pack("<I", 10_000) + b"a" * 10_000 + b"K\x01s.",
    "a call as a key": b"}ccollections\nCounter2\n)RK\x01s.",
    "a dict made over and over": copied_list(5_000),
    "bytes made over and over": copied_text(5_000),
    "too many values": b"(" + b"N" * 1_100_000 + b"l.",
    "a number of too many digits": b"L" + b"9" * 10_000 + b"L\n.",
    "a text that takes four times its bytes": b"X"
    + struct.pack("<I", (2 << 20) + 4)
    + b"a" * (2 << 20)
    + "\N{OX}".encode()
    + b".",
}


@pytest.mark.parametrize("kind", WORK)
def test_work_beyond_the_bytes_is_refused(kind: str) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_utime
    with pytest.raises(ContentError):
        read_pickle(WORK[kind], everything)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_utime - before < 5  # of processor time


CLAIMS = {
    "a text": b"X\xff\xff\xff\x7fa.",
    "a text of 2^60 bytes": b"\x8d" + struct.pack("<Q", 1 << 60) + b"a.",
    "bytes": b"\x8e" + struct.pack("<Q", 1 << 60) + b"a.",
    "a string of Python 2": b"T\xff\xff\xff\x7fa.",
    "a place to remember": b"Nr\xff\xff\xff\x7f.",
    "another place": b"Np99999999999\n.",
    "a frame": b"\x80\x04\x95" + struct.pack("<Q", 1 << 60) + b"N.",
}


@pytest.mark.parametrize("claim", CLAIMS)
def test_a_number_that_a_file_states_takes_no_memory(claim: str) -> None:
    tracemalloc.start()
    try:
        read_pickle(CLAIMS[claim], everything)
    except ContentError:
        pass
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 1 << 20


def test_plain_containers_are_made() -> None:
    values = {
        "ordered": collections.OrderedDict(a=1, b=[1, 2]),
        ("epoch", 3): {4: None, b"5": -(1 << 70)},
        "old": "\ud7ff\n",
    }
    for protocol in range(5):
        stream = io.BytesIO()
        pickle.Pickler(stream, protocol).dump(values)
        result = read_pickle(stream.getvalue(), everything, python2="utf-8")
        assert result == values or protocol == 0  # in which bytes keys are calls


def test_half_a_character_becomes_a_question_mark_that_can_be_printed() -> None:
    for pickled in (b"V\\ud800\n.", b"X\x03\x00\x00\x00\xed\xa0\x80."):
        text = read_pickle(pickled, everything)
        assert text.encode("utf-8")


def test_the_case_of_cifar_is_refused_at_once(shared: object) -> None:
    folder = shared("cases/files/cifar_tuplekey")  # type: ignore[operator]
    (bomb,) = folder.glob("*/data_batch_3")
    with pytest.raises(ContentError, match="key"):
        _load_dict(bomb.read_bytes())
