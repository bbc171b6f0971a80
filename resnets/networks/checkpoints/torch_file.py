"""What `torch.save` wrote, read without torch's unpickler: values, and tensors as views of it.

Both of its formats: a zip archive of a pickle and one member a storage (torch 1.6 and later), and
before that a row of pickles with the storages behind them. The pickles are read by
`resnets.pickles`; a tensor is made only of bytes of the file, and reaches no further.
"""

import struct
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch
from torch import Tensor

from resnets.errors import ContentError
from resnets.packing import BROKEN_ZIP, Window, refuse_many_members, unpacked_limit, unpacked_member
from resnets.pickles import Call, Cursor, Name, Reference, array_or_plain, check_call, read_pickle
from resnets.pickles.arrays import NAMES as ARRAYS

_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # how the older format begins
_MOST_VALUES = 1_000_000  # of a training state, each counted as often as it is referred to
_ALIGNED = 64  # bytes; where torch lets storages begin
_MOST_DIMENSIONS = 16
_DEEPEST = 32  # levels of values in a training state, and of calls in a tensor's

_STORED: Mapping[str, str] = {  # what torch calls a storage, and its type of numbers
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexDoubleStorage": "complex128",
    "ComplexFloatStorage": "complex64",
    "UntypedStorage": "uint8",
}
_QUANTISED = (
    "QInt8Storage",
    "QInt32Storage",
    "QUInt8Storage",
    "QUInt4x2Storage",
    "QUInt2x4Storage",
)
_PLACES = ("torch.", "torch.cuda.", "torch.storage.")  # modules that have storages and tensors

_TENSOR_OF = "torch._utils._rebuild_tensor"
_PARAMETER_OF = "torch._utils._rebuild_parameter"
_TYPED_TENSOR_OF = "torch._tensor._rebuild_from_type_v2"
_REBUILDS = (
    *(f"{_TENSOR_OF}{version}" for version in ("", "_v2", "_v3")),
    *(_PARAMETER_OF, f"{_PARAMETER_OF}_with_state", _TYPED_TENSOR_OF),
)
_UNREAD = (  # torch allows them too; what they make is no weight of a residual network
    *("qtensor", "sparse_tensor", "meta_tensor_no_storage", "nested_tensor", "wrapper_subclass"),
    *("device_tensor_from_numpy", "device_tensor_from_cpu_tensor"),
)
_ALLOWED = frozenset(
    {
        *("collections.OrderedDict", "collections.Counter", "_codecs.encode", "argparse.Namespace"),
        *("builtins.bytearray", "builtins.set", "builtins.complex", "builtins.bytes"),
        *("torch.Size", "torch.device", "torch.Tensor", "torch.nn.parameter.Parameter"),
        "torch.serialization._get_layout",
        *_REBUILDS,
        *(f"torch._utils._rebuild_{what}" for what in _UNREAD),
        *(f"{place}{name}" for place in _PLACES for name in (*_STORED, *_QUANTISED)),
        *ARRAYS,
    }
)


def _is_allowed(path: str) -> bool:
    """Whether a file may name a class or function: what torch lists as safe, and records of data.

    None of them is called. A name of torch that is a type of numbers, or a class of tensors, is
    allowed too.
    """
    module, _, name = path.rpartition(".")
    if path in _ALLOWED:
        return True
    if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype | torch.qscheme):
        return True
    return name.endswith("Tensor") and f"{module}." in _PLACES and hasattr(torch, name)


@dataclass
class TorchFile:
    """A tree of values from a file, and the storages that its tensors are views of.

    Attributes:
        tree: dicts, lists, plain values and calls.
        content: the file.
        storages: where the bytes of each storage lie in the file, by its key.
        allowance: bytes of tensors that may still be made; at first four times the file's.
    """

    tree: Any
    content: bytearray
    storages: Mapping[str, range]
    allowance: int = 0
    _tensors: dict[int, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.allowance = unpacked_limit(len(self.content))

    def tensor(self, call: Call) -> Tensor | None:
        """The tensor that a call makes; None if it makes something else.

        Raises:
            ContentError: its numbers are not all in the file.
        """
        if id(call) not in self._tensors:
            tensor = self._tensor(call, 0)
            if tensor is None:
                return None
            self._tensors[id(call)] = tensor
        return self._tensors[id(call)]

    def _tensor(self, call: Any, depth: int) -> Tensor | None:
        """As `tensor`; parameters and tensors with attributes are calls within calls."""
        if not isinstance(call, Call) or depth > _DEEPEST:
            return None
        path, arguments = call.function.path, call.arguments
        if path.startswith(_TENSOR_OF):
            return self._view(path, arguments)
        if path.startswith(_PARAMETER_OF) and arguments:
            return self._tensor(arguments[0], depth + 1)
        if path == "torch.nn.parameter.Parameter":
            state = call.state if isinstance(call.state, tuple) else ()
            return self._tensor(next(iter((*state, *arguments)), None), depth + 1)
        if path == _TYPED_TENSOR_OF and len(arguments) >= 3:
            function, _, inner = arguments[:3]
            if isinstance(function, Name) and isinstance(inner, tuple):
                return self._tensor(Call(function, inner), depth + 1)
        return None

    def _view(self, path: str, arguments: tuple[Any, ...]) -> Tensor:
        """A tensor of (storage, offset, size, stride, ...), and in the third version its type."""
        if len(arguments) < 4:
            raise ContentError("a tensor without a storage, an offset, a size and a stride")
        reference, offset, size, stride = arguments[:4]
        type_name = arguments[6] if path.endswith("_v3") and len(arguments) > 6 else None
        kind = _dtype_of(type_name, reference)
        _check_counts(offset, size, stride)
        if not prod(size):
            return torch.empty(size, dtype=kind) if max(size) <= _MOST_VALUES else _refuse(size)
        flat = self._storage(reference, kind)
        reach = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) + 1
        if reach > flat.numel() or prod(size) > flat.numel():
            raise ContentError(f"a tensor {size} that reaches beyond its {flat.numel()} numbers")
        self.allowance -= prod(size) * kind.itemsize
        if self.allowance < 0:
            raise ContentError("tensors of several times the numbers that are in the file")
        return flat.as_strided(size, stride, offset)

    def _storage(self, reference: Any, kind: torch.dtype) -> Tensor:
        """The numbers of a storage, in their order."""
        _, _, key, _, count, *views = reference.about
        place = self.storages.get(str(key) if isinstance(key, str | int) else "")
        if place is None or type(count) is not int or count < 0:
            raise ContentError("a tensor whose numbers are not in the file")
        if views and views[0] is not None:  # a part of a storage, as torch wrote before 0.4
            first, part = _view_of(views[0])
            place = place[first * kind.itemsize : (first + part) * kind.itemsize]
        if not len(place) // kind.itemsize:
            raise ContentError("a tensor of a storage without numbers")
        length = len(place) // kind.itemsize * kind.itemsize
        numbers = torch.frombuffer(
            self.content, dtype=torch.uint8, count=length, offset=place.start
        )
        return (numbers.clone() if place.start % kind.itemsize else numbers).view(kind)

    def values(self) -> Any:
        """The whole tree as plain values and tensors, whose memory is their own.

        Raises:
            ContentError: it holds anything else, or its parts unfold to far more than the file.
        """
        budget = iter(range(_MOST_VALUES))
        return self._plain(self.tree, budget, 0)

    def _plain(self, value: Any, budget: Iterator[int], depth: int) -> Any:
        """`values` of a part; each visit counts, so that shared parts cannot unfold without end."""
        if next(budget, None) is None or depth > _DEEPEST:
            raise ContentError("values within values that unfold to far more than the file")
        if isinstance(value, dict):
            return {key: self._plain(part, budget, depth + 1) for key, part in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(self._plain(part, budget, depth + 1) for part in value)
        if isinstance(value, Call):
            if value.function.path == "torch.Size":
                return self._plain(value.arguments[0] if value.arguments else (), budget, depth + 1)
            tensor = self.tensor(value)
            return array_or_plain(value) if tensor is None else tensor.clone()
        if isinstance(value, Name | Reference):
            raise ContentError(f"holds a {type(value).__name__.lower()} that is no value")
        return value


def _refuse(size: tuple[int, ...]) -> Tensor:
    """An empty tensor that claims an absurd side."""
    raise ContentError(f"a tensor of the size {size}")


def _check_counts(offset: Any, size: Any, stride: Any) -> None:
    """Refuse an offset, a size or a stride that is negative, huge, or no number."""
    fits = isinstance(size, tuple) and isinstance(stride, tuple) and len(size) == len(stride)
    if not fits or len(size) > _MOST_DIMENSIONS:
        raise ContentError("a tensor whose size or stride is none")
    for value in (offset, *size, *stride):
        if type(value) is not int or not 0 <= value < 1 << 48:
            raise ContentError(f"a tensor with {str(value)[:20]} as its offset, size or stride")


def _dtype_of(type_name: Any, reference: Any) -> torch.dtype:
    """The type of a tensor's numbers: the named one, or else its storage's."""
    about = reference.about if isinstance(reference, Reference) else ()
    if not isinstance(about, tuple) or len(about) not in (5, 6) or about[0] != "storage":
        raise ContentError("a tensor without a storage")
    name = type_name if type_name is not None else about[1]
    last = name.path.rpartition(".")[2] if isinstance(name, Name) else ""
    kind = getattr(torch, _STORED.get(last, last), None)
    if not isinstance(kind, torch.dtype) or kind.itemsize < 1:
        raise ContentError(f"a tensor of {last or 'something'}, not of plain numbers")
    return kind


def _view_of(view: Any) -> tuple[int, int]:
    """Where a part of a storage begins and how many numbers it has."""
    if not isinstance(view, tuple) or len(view) != 3:
        raise ContentError("a part of a storage that is none")
    for value in view[1:]:
        if type(value) is not int or not 0 <= value < 1 << 48:
            raise ContentError("a part of a storage that is none")
    return view[1], view[2]


def read_torch(content: bytes | bytearray) -> TorchFile:
    """Read a file of `torch.save`.

    Args:
        content: of the file; the tensors share the memory of a bytearray.

    Raises:
        ForbiddenNameError: it names what no weights need, which could run code.
        ContentError: it is damaged, or refers to bytes that it does not have.
    """
    content = content if isinstance(content, bytearray) else bytearray(content)
    return _archive(content) if content[:2] == b"PK" else _row_of_pickles(content)


def _pickle(source: bytes | Cursor, references: list[Reference] | None = None) -> Any:
    collected = [] if references is None else references
    return read_pickle(source, _is_allowed, check=check_call, references=collected, python2="utf-8")


def _archive(content: bytearray) -> TorchFile:
    """The format of torch 1.6 and later."""
    refuse_many_members(content)
    try:
        with zipfile.ZipFile(Window(content)) as archive:
            return _from_members(archive, content)
    except ContentError:
        raise
    except BROKEN_ZIP as error:
        raise ContentError(f"a damaged zip archive ({error})") from None


def _from_members(archive: zipfile.ZipFile, content: bytearray) -> TorchFile:
    members = {info.filename: info for info in archive.infolist()}
    name = next(name for name in members if name.endswith("data.pkl"))
    prefix = name.removesuffix("data.pkl")
    order = members.get(f"{prefix}byteorder")
    if order and unpacked_member(archive, order, 64) == b"big":
        raise ContentError("written on a big-endian machine; such files are not read")
    limit = unpacked_limit(len(content))
    tree = _pickle(bytes(unpacked_member(archive, members[name], limit)))
    places = {}
    for name, member in members.items():
        if name.startswith(f"{prefix}data/"):
            key = name.removeprefix(f"{prefix}data/")
            places[key] = _place(archive, member, content, limit)
    return TorchFile(tree, content, places)


def _place(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, content: bytearray, limit: int
) -> range:
    """Where a storage lies in `content`, to which it is appended if it was compressed."""
    if member.compress_type != zipfile.ZIP_STORED:
        numbers = unpacked_member(archive, member, limit - len(content))
        content += bytes(-len(content) % _ALIGNED)
        content += numbers
        return range(len(content) - len(numbers), len(content))
    head = member.header_offset
    if content[head : head + 4] != b"PK\3\4":
        raise zipfile.BadZipFile(f"{member.filename} is not where its table of contents says")
    name, extra = struct.unpack_from("<HH", content, head + 26)
    start = head + 30 + name + extra
    if start + member.file_size > len(content):
        raise zipfile.BadZipFile(f"{member.filename} is cut off")
    return range(start, start + member.file_size)


def _row_of_pickles(content: bytearray) -> TorchFile:
    """The format before torch 1.6: five pickles, then each storage after its length."""
    cursor = Cursor(content)
    references: list[Reference] = []
    if _pickle(cursor) != _MAGIC or _pickle(cursor) != _PROTOCOL:
        raise ContentError("not a file of torch.save")
    system, tree, keys = _pickle(cursor), _pickle(cursor, references), _pickle(cursor)
    if isinstance(system, dict) and system.get("little_endian") is False:
        raise ContentError("written on a big-endian machine; such files are not read")
    widths, places = {}, {}
    for reference in references:
        width = _dtype_of(None, reference).itemsize  # refuses anything but a storage
        key = reference.about[2]
        widths[str(key) if isinstance(key, str | int) else ""] = width
    for key in keys if isinstance(keys, list) else ():
        if not isinstance(key, str | int) or str(key) not in widths:
            raise ContentError("a damaged file of torch.save (a storage that no tensor has)")
        length = int.from_bytes(cursor.read(8), "little") * widths[str(key)]
        start = cursor.position
        if start + length > len(content):
            raise ContentError("cut off within its weights")
        places[str(key)] = range(start, start + length)
        cursor.position += length
    return TorchFile(tree, content, places)
