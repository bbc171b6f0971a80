"""Files of torch.save are read as torch reads them, and none of them makes more than it holds."""

import contextlib
import gzip
import io
import json
import pickle
import resource
import subprocess
import sys
import zipfile
from argparse import Namespace
from collections import Counter, OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from resnets.errors import ContentError
from resnets.networks.checkpoints.torch_file import read_torch
from resnets.networks.checkpoints.weights_file import read_weights

Shared = Callable[[str], Path]
REBUILD = torch._utils._rebuild_tensor_v2  # type: ignore[attr-defined]


class Stored:
    """Pickles as a reference to a storage outside of the pickle."""

    def __init__(self, key: str, count: Any, kind: Any = torch.FloatStorage) -> None:
        self.about = ("storage", kind, key, "cpu", count)


class Call:
    """Pickles as a call of a function, with a state set on its result."""

    def __init__(self, function: Any, *arguments: Any, state: Any = None) -> None:
        self.parts = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self) -> Any:
        return self.parts


class Pickler(pickle.Pickler):
    def persistent_id(self, value: Any) -> Any:
        return value.about if isinstance(value, Stored) else None


def archive(tree: Any, *, compress: int = zipfile.ZIP_STORED, **storages: bytes) -> bytes:
    """A file in the format of torch.save, whatever it claims."""
    pickled, packed = io.BytesIO(), io.BytesIO()
    Pickler(pickled, 2).dump(tree)
    with zipfile.ZipFile(packed, "w", compress) as file:
        file.writestr("archive/data.pkl", pickled.getvalue())
        for key, content in storages.items():
            file.writestr(f"archive/data/{key}", content)
    return packed.getvalue()


def weights(tmp_path: Path, content: bytes) -> dict[str, torch.Tensor]:
    path = tmp_path / "file.pth"
    path.write_bytes(content)
    return read_weights(path)


def view(offset: Any, size: Any, stride: Any, stored: Any = None) -> Call:
    stored = stored or Stored("0", 6)
    return Call(REBUILD, stored, offset, size, stride, False, OrderedDict())


SIX = np.arange(6, dtype=np.float32).tobytes()


def test_a_view_within_its_storage_is_read(tmp_path: Path) -> None:
    tensors = weights(tmp_path, archive({"a": view(1, (2, 2), (1, 2))}, **{"0": SIX}))
    assert tensors["a"].tolist() == [[1, 3], [2, 4]]


HUGE = 1 << 40
HOSTILE: dict[str, Any] = {
    "an offset beyond": view(5, (2,), (1,)),
    "a negative offset": view(-1, (2,), (1,)),
    "a size beyond": view(0, (7,), (1,)),
    "a negative size": view(0, (-2,), (1,)),
    "a negative stride": view(5, (2,), (-1,)),
    "a stride beyond": view(0, (2,), (6,)),
    "a huge stride": view(0, (2,), (1 << 62,)),
    "more numbers than its storage": view(0, (HUGE, HUGE), (0, 0)),
    "a size that overflows": view(0, (1 << 32, 1 << 32), (1, 1)),
    "an empty one that is huge": view(0, (0, HUGE), (1, 1)),
    "sizes without strides": view(0, (2, 2), (1,)),
    "a size of texts": view(0, ("2",), (1,)),
    "a size that is a list": view(0, [2], [1]),
    "many dimensions": view(0, (1,) * 70, (1,) * 70),
    "true as a size": view(0, (True,), (1,)),
    "a storage that is not there": view(0, (2,), (1,), Stored("1", 6)),
    "a storage elsewhere": view(0, (2,), (1,), Stored("../data.pkl", 6)),
    "a storage of a negative count": view(0, (2,), (1,), Stored("0", -6)),
    "a storage that claims more": view(0, (HUGE,), (1,), Stored("0", HUGE)),
    "a storage of objects": view(0, (2,), (1,), Stored("0", 6, dict)),
    "a storage that is a text": view(0, (2,), (1,), "0"),
    "too few arguments": Call(REBUILD, Stored("0", 6), 0),
}


@pytest.mark.parametrize("claim", HOSTILE)
def test_a_tensor_of_more_than_its_storage_is_refused(claim: str, tmp_path: Path) -> None:
    tree = {"good": view(0, (6,), (1,)), "bad": HOSTILE[claim]}
    with pytest.raises(ContentError, match=r"file\.pth: "):
        weights(tmp_path, archive(tree, **{"0": SIX}))


def test_many_views_of_one_storage_are_refused_before_a_network_copies_them(tmp_path: Path) -> None:
    tree = {f"a{number}": view(0, (1 << 20,), (1,), Stored("0", 1 << 20)) for number in range(99)}
    with pytest.raises(ContentError, match="several times the numbers"):
        weights(tmp_path, archive(tree, **{"0": bytes(4 << 20)}))


NUMPY: dict[str, Any] = {
    "an array of a pointer": Call(np.ndarray, (1,), np.dtype("O"), b"A" * 8),
    "a number that is an object": Call(
        np._core.multiarray.scalar,
        np.dtype("O"),
        b"A" * 8,  # type: ignore[attr-defined]
    ),
    "a number of other bytes": Call(
        np._core.multiarray.scalar,
        np.dtype("f8"),
        b"A" * 4,  # type: ignore[attr-defined]
    ),
    "a record": np.zeros(2, dtype=[("a", "O")]),
    "a type whose state says objects": Call(
        np._core.multiarray.scalar,  # type: ignore[attr-defined]
        Call(np.dtype, "V8", False, True, state=(3, "|", None, ("a",), {"a": ("O", 0)}, 8, 1, 27)),
        b"A" * 8,
    ),
    "a number type with fields": Call(
        np.dtype, "i8", False, True, state=(3, "<", None, ("a",), {"a": ("O", 0)}, 8, 1, 27)
    ),
    "a type made a sub-array of objects": Call(
        np.dtype, "i8", False, True, state=(3, "<", ("O", (9,)), None, None, 8, 1, 27)
    ),
}


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("claim", NUMPY)
def test_numpy_gets_no_state_of_a_strangers_choice(
    claim: str, nested: bool, tmp_path: Path
) -> None:
    tree = {"good": view(0, (6,), (1,)), "args": [NUMPY[claim]] if nested else NUMPY[claim]}
    with pytest.raises(ContentError, match=r"file\.pth: holds an? (array|number)"):
        weights(tmp_path, archive(tree, **{"0": SIX}))


def test_numbers_of_numpy_beside_the_weights_do_no_harm(tmp_path: Path) -> None:
    tree = {
        "accuracy": np.float64(0.9),
        "epochs": np.arange(3),
        "name": np.str_("resnet20"),
        "args": Namespace(depth=20),
        "milestones": Counter({30: 1, 60: 1}),
        "state_dict": {"weight": view(0, (2, 3), (3, 1))},
    }
    assert list(weights(tmp_path, archive(tree, **{"0": SIX}))) == ["state_dict.weight"]


def doubled(levels: int, width: int, inner: Any) -> Any:
    """A value within dictionaries that all refer to the same one below: width ** levels in all."""
    for _ in range(levels):
        inner = {f"k{number}": inner for number in range(width)}
    return inner


def chain(depth: int) -> Any:
    value: Any = {}
    for _ in range(depth):
        value = {"k": value}
    return value


def itself() -> Any:
    value: dict[str, Any] = {}
    value["again"] = value
    return value


UNFOLDING: dict[str, Callable[[], Any]] = {
    "dictionaries": lambda: doubled(8, 40, {}),
    "dictionaries of tensors": lambda: doubled(7, 30, view(0, (1,), (1,))),
    "two at a time": lambda: doubled(7, 60, {"a": 1}),
    "long names": lambda: {"k" * 4000: {"l" * 4000: view(0, (1,), (1,))}},
}


@pytest.mark.parametrize("kind", UNFOLDING)
def test_references_that_unfold_are_refused_in_a_bounded_time(kind: str, tmp_path: Path) -> None:
    content = archive(UNFOLDING[kind](), **{"0": SIX})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_utime
    with pytest.raises(ContentError, match=r"unfold|characters"):
        weights(tmp_path, content)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_utime - before < 5  # of processor time


def test_a_dictionary_that_holds_itself_ends(tmp_path: Path) -> None:
    with pytest.raises(ContentError, match=r"no tensor"):
        weights(tmp_path, archive(itself()))


def test_a_state_that_unfolds_is_refused_before_anything_walks_it() -> None:
    for tree in (doubled(30, 2, {}), itself(), [doubled(5, 100, ())]):
        with pytest.raises(ContentError, match="unfold"):
            read_torch(archive(tree)).values()


class Holder(nn.Module):
    """Weights of many types, shared, transposed, partial and with attributes."""


def many_kinds() -> dict[str, Any]:
    torch.manual_seed(0)
    base = torch.randn(4, 6)
    with_note = torch.zeros(3)
    with_note.note = "kept by torch"  # type: ignore[attr-defined]
    kinds = ["float16", "bfloat16", "float64", "int8", "uint8", "int16", "int32", "int64", "bool"]
    tree: dict[str, Any] = {kind: torch.ones(3, dtype=getattr(torch, kind)) for kind in kinds}
    return OrderedDict(
        tree
        | {
            "base": base,
            "row": base[1],
            "column": base[:, 2],
            "transposed": base.t(),
            "expanded": torch.tensor(7),
            "empty": torch.empty(0, 3),
            "parameter": nn.Parameter(base.clone()),
            "named": with_note,
            "complex": torch.tensor([1 + 2j]),
            "nested": {"list": [1, 2.5, None, True, "text", b"bytes", (1, 2)], 3: torch.ones(1)},
            "size": torch.Size([2, 3]),
        }
    )


def alike(ours: Any, theirs: Any) -> None:
    if isinstance(theirs, torch.Tensor):
        assert ours.dtype == theirs.dtype
        assert torch.equal(ours.float(), theirs.detach().float())
    elif isinstance(theirs, dict):
        assert list(ours) == list(theirs)
        for key, value in theirs.items():
            alike(ours[key], value)
    elif isinstance(theirs, list):
        for mine, value in zip(ours, theirs, strict=True):
            alike(mine, value)
    else:
        assert ours == theirs


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize("zipped", [True, False])
def test_values_are_read_as_torch_reads_them(protocol: int, zipped: bool) -> None:
    stream, kinds = io.BytesIO(), many_kinds()
    if zipped:  # torch cannot read these in its older format
        kinds["eight"] = torch.ones(4).to(torch.float8_e5m2)
    torch.save(kinds, stream, _use_new_zipfile_serialization=zipped, pickle_protocol=protocol)
    oldest = io.BytesIO()  # the only protocol that torch's restricted reader knows
    torch.save(kinds, oldest, _use_new_zipfile_serialization=zipped, pickle_protocol=2)
    theirs = torch.load(io.BytesIO(oldest.getvalue()), weights_only=True)
    alike(read_torch(stream.getvalue()).values(), theirs)


def test_a_state_does_not_share_memory_with_its_file_or_within_it() -> None:
    """torch.set_rng_state reads a storage from its start, wherever the tensor begins in it."""
    stream = io.BytesIO()
    both = torch.get_rng_state().repeat(2)
    torch.save({"pad": torch.zeros(3), "generator": both[len(both) // 2 :]}, stream)
    state = read_torch(stream.getvalue()).values()["generator"]
    assert state.storage_offset() == 0
    torch.set_rng_state(state)
    assert torch.equal(torch.get_rng_state(), state)


def test_real_files_are_read_as_torch_reads_them(shared: Shared) -> None:
    for path in sorted(shared("weights").iterdir()):
        if path.suffix == ".txt" or "layerfolding" in path.name:
            continue
        with torch.serialization.safe_globals([Namespace]):
            theirs = torch.load(path, map_location="cpu", weights_only=True)
        theirs = theirs.get("state_dict", theirs) if isinstance(theirs, dict) else theirs
        ours = {name.removeprefix("state_dict."): v for name, v in read_weights(path).items()}
        for name, value in theirs.items():
            if isinstance(value, torch.Tensor):
                assert torch.equal(ours[name], value), (path, name)


def test_a_compressed_archive_is_read(tmp_path: Path) -> None:
    tree = {"a": view(0, (6,), (1,))}
    content = archive(tree, compress=zipfile.ZIP_DEFLATED, **{"0": SIX})
    assert weights(tmp_path, content)["a"].tolist() == [0, 1, 2, 3, 4, 5]


SAVED = io.BytesIO()
torch.save({"net": {"w": torch.ones(2, 3), "v": torch.zeros(4)}, "epoch": 3}, SAVED)
OLD = io.BytesIO()
torch.save(
    {"net": {"w": torch.ones(2, 3), "v": torch.zeros(4)}, "epoch": 3},
    OLD,
    _use_new_zipfile_serialization=False,
)


@settings(max_examples=150)
@given(
    st.sampled_from([SAVED.getvalue(), OLD.getvalue()]),
    st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 255)), min_size=1, max_size=8),
    st.none() | st.integers(0, 3000),
)
def test_a_damaged_file_is_read_or_refused(
    content: bytes, changes: list[tuple[int, int]], cut: int | None
) -> None:
    damaged = bytearray(content)
    for place, value in changes:
        damaged[place % len(damaged)] = value
    with contextlib.suppress(ContentError):
        read_torch(damaged[:cut]).values()


INSPECT = """
import contextlib, io, json, re, sys
from pathlib import Path
from resnets.cli import main

for path in sys.argv[1:]:
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        code = main(["inspect", path])
    # not getrusage: it counts what the process that started this one held
    peak = re.search("VmHWM:[ \\t]*([0-9]+)", Path("/proc/self/status").read_text())[1]
    print(json.dumps([code, said.getvalue().strip(), int(peak) * 1024]))
"""


def inspected(*paths: Path) -> list[tuple[int, str, int]]:
    """Exit code, what is said and peak resident memory in bytes of each, in one process."""
    command = [sys.executable, "-c", INSPECT, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [tuple(json.loads(line)) for line in done.stdout.splitlines()]


def bomb_in_gzip(path: Path) -> None:
    path.write_bytes(gzip.compress(bytes(64 << 20), 1) * 20)


def bomb_in_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        file.writestr("weights.pth", bytes(300 << 20))


def bomb_in_a_storage(path: Path) -> None:
    stored = Stored("0", 300 << 20)
    tree = {"layer1.0.conv1.weight": view(0, (300 << 20,), (1,), stored)}
    path.write_bytes(archive(tree, compress=zipfile.ZIP_DEFLATED, **{"0": bytes(300 << 20)}))


@pytest.mark.slow
def test_what_unpacks_to_far_more_is_refused_in_little_memory(tmp_path: Path) -> None:
    bombs = (bomb_in_gzip, bomb_in_zip, bomb_in_a_storage)
    paths = [tmp_path / f"{write.__name__}.pth" for write in bombs]
    for write, path in zip(bombs, paths, strict=True):
        write(path)
    for code, message, peak in inspected(*paths):
        assert code == 1
        assert "unpacks to more than" in message
        assert peak < 1 << 30


def test_files_that_hurt_are_refused_in_one_line(shared: Shared) -> None:
    names = ("np_object_pointer.pth", "dictbomb.pth")
    for code, message, peak in inspected(*(shared(f"cases/files/{name}") for name in names)):
        assert code == 1
        assert "Traceback" not in message
        assert len(message.splitlines()) == 1
        assert peak < 1 << 30
