"""Untrusted pickles, read by an interpreter that knows only plain values and calls nothing.

A pickle is a program, and Python's own unpickler runs it: it calls the functions that the file
names, with arguments from the file. Even harmless classes do harm with arguments and states that
are chosen for it (NumPy's turn bytes into addresses). Here a name stays a `Name`, and a call is
recorded as a `Call`. The few calls that make arrays and tensors are checked afterwards, by their
readers. Work and memory grow with the length of the file, never with a number that it states.
"""

import pickletools
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from resnets.errors import ContentError
from resnets.format import plural

_MOST = 1_000_000  # instructions; the largest networks' checkpoints have half as many
_LONG = 1 << 20  # bytes of a text; in longer ones no character may take four times its bytes
_HIGHEST_KEY = 1 << 60  # of numbers up to here no two have one hash
_LONGEST_KEY = 4096  # characters of a text, or bytes
_WIDEST_KEY = 8  # values in a tuple

_TABLE = {opcode.code: opcode for opcode in pickletools.opcodes}  # Python's own
_MODULES = (("__builtin__", "builtins"), ("copy_reg", "copyreg"), ("numpy._core.", "numpy.core."))


@dataclass(frozen=True, slots=True)
class Name:
    """A class or function that a pickle names; it is never looked up."""

    path: str  # module and name, such as numpy.dtype


@dataclass(slots=True, eq=False)
class Call:
    """A call in a pickle, and the state that it sets on the result; neither is executed."""

    function: Name
    arguments: tuple[Any, ...]
    state: Any = None


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """A persistent id: the pickle's description of something outside of it."""

    about: Any


class ForbiddenNameError(ContentError):
    """A pickle names a class or function that data never need.

    Attributes:
        name: its module and name.
    """

    def __init__(self, name: str) -> None:
        super().__init__(
            f"names {name}, which is neither a plain value nor an array: this is no data file, do "
            "not open it with anything"
        )
        self.name = name


class Cursor:
    """Bytes that are read from one end to the other, without copying the rest."""

    def __init__(self, data: bytes | bytearray, position: int = 0) -> None:
        self.data, self.position = data, position

    def read(self, length: int) -> bytes:
        """The next bytes, fewer at the end."""
        start = self.position
        self.position = min(len(self.data), start + max(0, length))
        return bytes(memoryview(self.data)[start : self.position])

    def readline(self) -> bytes:
        """The next bytes up to the end of a line, which is included."""
        end = self.data.find(b"\n", self.position)
        return self.read((len(self.data) if end < 0 else end + 1) - self.position)


def read_pickle(
    source: bytes | bytearray | Cursor,
    allowed: Callable[[str], bool],
    *,
    check: Callable[[Call], object] | None = None,
    references: list[Reference] | None = None,
    python2: str | None = None,
) -> Any:
    """What a pickle describes: plain values, with a `Call` where it asks for one.

    Args:
        source: the pickle; of a `Cursor` it is read up to its end and no further.
        allowed: whether a pickle may name a class or function, by module and name.
        check: gets every call, nested ones too, and raises for those that are not allowed.
        references: gets each persistent id; without this list none may occur.
        python2: the encoding of strings that Python 2 wrote; without it they come as bytes.

    Raises:
        ForbiddenNameError: it names what is not allowed.
        ContentError: it is broken, too large, or has instructions that data never need.
    """
    cursor = source if isinstance(source, Cursor) else Cursor(source)
    interpreter = _Interpreter(cursor, allowed, references=references, python2=python2)
    try:
        value = interpreter.run()
        for call in interpreter.calls if check else ():
            check(call)  # type: ignore[misc]
        return value
    except ContentError:
        raise
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ContentError(f"not a readable pickle ({type(error).__name__}: {error})") from None


class _Interpreter:
    """Carries out the instructions that build values, of protocols 0 to 4."""

    def __init__(
        self,
        cursor: Cursor,
        allowed: Callable[[str], bool],
        *,
        references: list[Reference] | None,
        python2: str | None,
    ) -> None:
        self.cursor, self.allowed = cursor, allowed
        self.references, self.python2 = references, python2
        self.stack: list[Any] = []
        self.outer: list[list[Any]] = []  # the stacks below each mark
        self.memo: dict[int, Any] = {}
        self.calls: list[Call] = []
        self.copied = 0  # values and characters that calls have copied

    def run(self) -> Any:
        """The value of the whole pickle."""
        cursor, data, end = self.cursor, self.cursor.data, len(self.cursor.data)
        for _ in range(_MOST):
            if cursor.position >= end:
                raise ContentError("not a readable pickle (it is cut off)")
            code = data[cursor.position]
            cursor.position += 1
            if code == _STOP:
                return self.stack.pop()
            instruction = _INSTRUCTIONS.get(code)
            if instruction is None:
                self.refuse(code)
            instruction(self)
        raise ContentError(f"has more than {_MOST:,} instructions; no data file needs as many")

    def refuse(self, code: int) -> NoReturn:
        """Raise the error for an instruction that data never need."""
        instruction = _TABLE.get(chr(code))
        if instruction is None:
            raise ContentError(f"not a readable pickle (there is no instruction {code:#x})")
        raise ContentError(f"holds the instruction {instruction.name}, which is not for data")

    def take(self, length: int) -> bytes:
        """The next ``length`` bytes."""
        data = self.cursor.read(length)
        if len(data) != length:
            raise ContentError("not a readable pickle (it is cut off)")
        return data

    def sized(self, width: int) -> bytes:
        """The next bytes, whose number comes first, in ``width`` bytes."""
        return self.take(int.from_bytes(self.take(width), "little"))

    def argument(self, code: str) -> Any:
        """The argument of an instruction in the notation of Python's own table."""
        kind = _TABLE[code].arg
        assert kind is not None
        return kind.reader(self.cursor)  # type: ignore[arg-type]

    def text(self, width: int) -> None:
        """A text in UTF-8."""
        self.stack.append(_decoded(self.sized(width), "utf-8"))

    def old_text(self, width: int) -> None:
        """A string of Python 2, where it was as good as bytes."""
        data = self.sized(width)
        self.stack.append(_decoded(data, self.python2) if self.python2 else data)

    def text_line(self) -> None:
        """A text that ends with its line; halves of a character become question marks."""
        self.stack.append(self.argument("V").encode("utf-8", "replace").decode())

    def old_line(self) -> None:
        """The same, written as Python writes a literal."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes that Python will not know for ever
            value = self.argument("S")
        self.stack.append(value if self.python2 else value.encode("latin-1"))

    def values(self) -> list[Any]:
        """Everything since the last mark."""
        values = self.stack
        self.stack = self.outer.pop()
        return values

    def mark(self) -> None:
        """Mark where a sequence of values begins."""
        self.outer.append(self.stack)
        self.stack = []

    def collect(self, make: Callable[[list[Any]], Any]) -> None:
        """Replace everything since the last mark by what ``make`` builds from it."""
        result = make(self.values())
        self.stack.append(result)

    def tuple_of(self, count: int) -> None:
        """Make a tuple of the last values."""
        if len(self.stack) < count:
            raise ContentError("not a readable pickle (a tuple of more values than there are)")
        self.stack[-count:] = [tuple(self.stack[-count:])]

    def extend(self, items: list[Any]) -> None:
        """Append to a list."""
        target = self.stack[-1]
        if type(target) is not list:
            raise ContentError(f"appends to a {type(target).__name__}")
        target.extend(items)

    def set_items(self, items: list[Any]) -> None:
        """Set keys of a dict."""
        _put(self.stack[-1], items)

    def keep(self, number: int) -> None:
        """Remember the last value by a number."""
        self.memo[number] = self.stack[-1]

    def recall(self, number: int) -> None:
        """The value remembered by a number."""
        self.stack.append(self.memo[number])

    def name(self, module: str, name: str) -> None:
        """A class or function, if the file may name it."""
        for other, usual in _MODULES:
            if module.startswith(other):
                module = module.replace(other, usual, 1)
        path = f"{module}.{name}"
        if not self.allowed(path):
            raise ForbiddenNameError(path[:200])
        self.stack.append(Name(path))

    def name_from_stack(self) -> None:
        """The same, by texts."""
        name, module = self.stack.pop(), self.stack.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise ContentError("names a class by something other than a text")
        self.name(module, name)

    def call(self) -> None:
        """Record a call, or carry it out if it only makes a plain value."""
        arguments, function = self.stack.pop(), self.stack.pop()
        if not isinstance(function, Name) or not isinstance(arguments, tuple):
            raise ContentError(f"calls a {type(function).__name__}")
        plain = _PLAIN.get(function.path)
        if plain:
            self.charge(arguments)
            self.stack.append(plain(*arguments))
            return
        call = Call(function, arguments)
        self.calls.append(call)
        self.stack.append(call)

    def charge(self, arguments: tuple[Any, ...]) -> None:
        """Count what a call copies: a file that copies one value over and over is no data file."""
        self.copied += sum(len(v) for v in arguments if isinstance(v, str | list | tuple | dict))
        if self.copied > len(self.cursor.data) + _MOST:
            raise ContentError("copies its values over and over, as no data file does")

    def set_state(self) -> None:
        """Record a state; a dict's state holds attributes, which are not needed."""
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, Name):
            raise ContentError("sets the state of a function")
        if isinstance(target, Call):
            target.state = state
        elif not isinstance(target, dict):
            raise ContentError(f"sets the state of a {type(target).__name__}")

    def refer(self) -> None:
        """Something outside of the pickle."""
        if self.references is None:
            raise ContentError("holds the instruction BINPERSID, which is not for data")
        self.references.append(Reference(self.stack.pop()))
        self.stack.append(self.references[-1])


def _decoded(data: bytes, encoding: str) -> str:
    """A text; long ones are refused if they would take up to four times their bytes."""
    if len(data) > _LONG and data.translate(None, bytes(range(0xC4))):
        raise ContentError(f"holds a text of {plural(len(data), 'byte')}; {_LONG:,} at most")
    return data.decode(encoding, errors="replace")


def _put(target: Any, items: list[Any]) -> None:
    """Set keys and values, in turns, of a dict. Hashing a key is a bounded amount of work."""
    if type(target) is not dict:
        raise ContentError(f"sets keys of a {type(target).__name__}")
    if len(items) % 2:
        raise ContentError("not a readable pickle (a key without a value)")
    for key in items[::2]:
        if not _is_key(key):
            raise ContentError(
                f"has a {type(key).__name__} as a key; keys are texts, whole numbers or short "
                "tuples of them"
            )
    target.update(zip(items[::2], items[1::2], strict=True))


def _new_dict(items: list[Any]) -> dict[Any, Any]:
    """A dict of keys and values, in turns."""
    result: dict[Any, Any] = {}
    _put(result, items)
    return result


def _is_key(value: Any, inside: bool = False) -> bool:
    """Whether a value may be a key: a text, a whole number, or a short tuple of them."""
    if isinstance(value, tuple):
        return not inside and len(value) <= _WIDEST_KEY and all(_is_key(v, True) for v in value)
    if isinstance(value, int):
        return -_HIGHEST_KEY < value < _HIGHEST_KEY
    return value is None or (isinstance(value, str | bytes) and len(value) <= _LONGEST_KEY)


def _dict_of(*arguments: Any) -> dict[Any, Any]:
    """What OrderedDict and Counter make of a dict, or of pairs as lists or tuples."""
    result: dict[Any, Any] = {}
    for content in arguments[:1]:
        pairs = list(content.items()) if isinstance(content, dict) else content
        if not isinstance(pairs, list | tuple) or not all(
            isinstance(pair, list | tuple) and len(pair) == 2 for pair in pairs
        ):
            raise ContentError("makes a dict of something other than pairs")
        _put(result, [item for pair in pairs for item in pair])
    return result


def _bytes_of(*arguments: Any) -> bytes:
    """How Python 3 writes byte strings for Python 2: as the text of the same numbers."""
    if not arguments:
        return b""
    if not isinstance(arguments[0], str):
        raise ContentError("makes bytes of something other than a text")
    return arguments[0].encode("latin-1")


_PLAIN: Mapping[str, Callable[..., Any]] = {  # calls that make a plain value
    "collections.OrderedDict": _dict_of,
    "collections.Counter": _dict_of,
    "_codecs.encode": _bytes_of,
    "builtins.bytes": _bytes_of,
}

_Instruction = Callable[[_Interpreter], object]


def _pushing(value: Callable[[_Interpreter], Any]) -> _Instruction:
    """An instruction that adds a value to the stack."""
    return lambda machine: machine.stack.append(value(machine))


def _from_table(code: str) -> _Instruction:
    """An instruction that adds its argument to the stack."""
    return _pushing(lambda machine: machine.argument(code))


def _unsigned(width: int) -> Callable[[_Interpreter], int]:
    """A whole number, of ``width`` bytes."""
    return lambda machine: int.from_bytes(machine.take(width), "little")


_STOP = ord(".")
_BY_CODE: Mapping[bytes, _Instruction] = {
    b"\x80": lambda machine: machine.take(1),  # PROTO
    b"\x95": lambda machine: machine.take(8),  # FRAME
    b"(": _Interpreter.mark,
    b"N": _pushing(lambda _: None),
    b"\x88": _pushing(lambda _: True),
    b"\x89": _pushing(lambda _: False),
    **{code.encode("latin-1"): _from_table(code) for code in "IJLFG\x8a"},
    b"K": _pushing(_unsigned(1)),
    b"M": _pushing(_unsigned(2)),
    b"V": _Interpreter.text_line,
    b"S": _Interpreter.old_line,
    b"T": lambda machine: machine.old_text(4),
    b"U": lambda machine: machine.old_text(1),
    b"\x8c": lambda machine: machine.text(1),
    b"X": lambda machine: machine.text(4),
    b"\x8d": lambda machine: machine.text(8),
    b"C": _pushing(lambda machine: machine.sized(1)),
    b"B": _pushing(lambda machine: machine.sized(4)),
    b"\x8e": _pushing(lambda machine: machine.sized(8)),
    b"}": _pushing(lambda _: {}),
    b"]": _pushing(lambda _: []),
    b"\x8f": _pushing(lambda _: []),  # EMPTY_SET; a set is read as its values
    b")": _pushing(lambda _: ()),
    b"d": lambda machine: machine.collect(_new_dict),
    b"l": lambda machine: machine.collect(list),
    b"t": lambda machine: machine.collect(tuple),
    b"\x85": lambda machine: machine.tuple_of(1),
    b"\x86": lambda machine: machine.tuple_of(2),
    b"\x87": lambda machine: machine.tuple_of(3),
    b"a": lambda machine: machine.extend([machine.stack.pop()]),
    b"e": lambda machine: machine.extend(machine.values()),
    b"\x90": lambda machine: machine.extend(machine.values()),  # ADDITEMS
    b"s": lambda machine: machine.set_items([machine.stack.pop(-2), machine.stack.pop()]),
    b"u": lambda machine: machine.set_items(machine.values()),
    b"p": lambda machine: machine.keep(machine.argument("p")),
    b"q": lambda machine: machine.keep(machine.take(1)[0]),
    b"r": lambda machine: machine.keep(_unsigned(4)(machine)),
    b"\x94": lambda machine: machine.keep(len(machine.memo)),
    b"g": lambda machine: machine.recall(machine.argument("g")),
    b"h": lambda machine: machine.recall(machine.take(1)[0]),
    b"j": lambda machine: machine.recall(_unsigned(4)(machine)),
    b"c": lambda machine: machine.name(*machine.argument("c").split(" ", 1)),
    b"\x93": _Interpreter.name_from_stack,
    b"R": _Interpreter.call,
    b"\x81": _Interpreter.call,  # NEWOBJ
    b"b": _Interpreter.set_state,
    b"Q": _Interpreter.refer,
}
_INSTRUCTIONS: Mapping[int, _Instruction] = {
    code[0]: instruction for code, instruction in _BY_CODE.items()
}
