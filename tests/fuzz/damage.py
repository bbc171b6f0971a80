"""Damaging valid files by their structure: lengths, types, nesting, order, ends.

Each function takes the bytes of a valid file and a `Random`, and gives those of a damaged one whose
outer shell is still sound (checksums, lengths, containers), so that the damage reaches the reader.
"""

import gzip
import io
import json
import pickletools
import re
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from random import Random
from typing import Any

Damage = Callable[[bytes, Random], bytes]

NUMBERS = (0, 1, -1, 2, 127, 128, 255, 256, 1 << 15, 1 << 31, (1 << 31) - 1, 1 << 32, 1 << 40)
HUGE = (*NUMBERS, 1 << 62, (1 << 63) - 1, 1 << 63, (1 << 64) - 1, 10**30, 10**5000)
HOSTILE: tuple[Any, ...] = (
    *(None, True, False, *NUMBERS, 1 << 62, 10**30, 0.5, -0.0, 1e308, float("nan"), float("inf")),
    *("", "a", "a" * 3000, "\0", "\ud800", "²", "../..", "\N{RIGHT-TO-LEFT OVERRIDE}\n\x1b[2J"),
    *([], {}, [[]], [None], {"": {}}, [1, "a", {}], {"size": -1}, [10**9] * 3),
)


def bytes_(content: bytes, random: Random) -> bytes:
    """One to four changes anywhere."""
    data = bytearray(content)
    for _ in range(random.randint(1, 4)):
        place = random.randrange(len(data) + 1)
        end = min(len(data), place + random.choice((1, 2, 4, 8, 16, 64, 512)))
        kind = random.randrange(8)
        if kind == 0:
            data[place:end] = random.randbytes(end - place)
        elif kind == 1:
            number = random.choice(NUMBERS) & ((1 << 64) - 1)
            width, order = random.choice((1, 2, 4, 8)), random.choice(("little", "big"))
            data[place : place + width] = (number & ((1 << 8 * width) - 1)).to_bytes(width, order)
        elif kind == 2:
            del data[place:]
        elif kind == 3:
            del data[place:end]
        elif kind == 4:
            data[place:place] = data[place:end] * random.choice((1, 3, 50))
        elif kind == 5:
            other = random.randrange(len(data) + 1)
            data[place:end] = data[other : other + end - place]
        elif kind == 6 and data:
            data[place % len(data)] ^= 1 << random.randrange(8)
        else:
            data[place:place] = random.randbytes(random.choice((1, 4, 100)))
    return bytes(data)


def tree(value: Any, random: Random) -> Any:
    """Change one place in nested lists and tables."""
    children = list(value) if isinstance(value, dict) else list(range(len(value)))
    if children and random.random() < 0.8:
        key = random.choice(children)
        copy = dict(value) if isinstance(value, dict) else list(value)
        inner = copy[key]
        if isinstance(inner, dict | list) and random.random() < 0.7:
            copy[key] = tree(inner, random)
        elif random.random() < 0.2:
            del copy[key]
        elif isinstance(copy, dict) and random.random() < 0.1:
            copy[random.choice(("", "a", "__metadata__", "\0"))] = copy.pop(key)
        else:
            copy[key] = random.choice((*HOSTILE, inner, [inner], {"a": inner}))
        return copy
    return random.choice(HOSTILE)


def numbers_of(pattern: bytes) -> Damage:
    """Put other numbers, or none, for one to three of those that a pattern finds."""

    def change(content: bytes, random: Random) -> bytes:
        places = list(re.finditer(pattern, content))
        data = content
        for place in sorted(
            random.sample(places, min(len(places), random.randint(1, 3))), key=lambda m: -m.start()
        ):
            other = random.choice((*map(str, HUGE[:-1]), "9" * 5000, "", "1e999", "nan", "1.5"))
            data = data[: place.start()] + other.encode() + data[place.end() :]
        return data

    return change


def text(content: bytes, random: Random) -> bytes:
    """Change lines, words and numbers."""
    if random.random() < 0.4:
        return numbers_of(rb"\d+")(content, random)
    if random.random() < 0.2:
        return bytes_(content, random)
    lines = content.split(b"\n")
    words = (b"[", b"[" * 3000, b"]", b"(", b")", b"((", b'"', b"'", b"\0", b",", b"\t", b"=")
    words += (b"{a=", b"\xff", b"\xef\xbb\xbf", b"A" * 70_000, b"a." * 500, b"..", b"\r", b"")
    for _ in range(random.randint(1, 3)):
        place = random.randrange(len(lines))
        kind = random.randrange(5)
        if kind == 0:
            del lines[place : place + random.choice((1, 5))]
            lines = lines or [b""]
        elif kind == 1:
            lines[place:place] = lines[place : place + 3] * random.choice((1, 100))
        elif kind == 2:
            other = random.randrange(len(lines))
            lines[place], lines[other] = lines[other], lines[place]
        else:
            at = random.randrange(len(lines[place]) + 1)
            line = lines[place]
            lines[place] = line[:at] + random.choice(words) + line[at + random.choice((0, 1, 9)) :]
    return b"\n".join(lines)


def safetensors(content: bytes, random: Random) -> bytes:
    """Change the table in the header, or the JSON in its texts; the length fits again."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    metadata = header.get("__metadata__", {})
    metadata.pop("digest", None)  # the damage shall come further than that
    if metadata and random.random() < 0.7:
        name = random.choice([key for key in metadata if key != "format"] or ["format"])
        if random.random() < 0.8 and metadata[name][:1] in "[{":
            metadata[name] = json.dumps(tree(json.loads(metadata[name]), random))
        else:
            metadata[name] = random.choice(("", "[", "[" * 5000, "null", "1", '"a"', "9" * 5000))
    elif random.random() < 0.8:
        header = tree(header, random)
    written = json.dumps(header).encode()
    stated = len(written) if random.random() < 0.95 else random.choice(NUMBERS) & (1 << 64) - 1
    return struct.pack("<Q", stated) + written + content[8 + length :]


SNIPPETS = (
    *(b"N", b"\x88", b"K\xff", b"M\xff\xff", b"J\xff\xff\xff\xff", b"J\x00\x00\x00\x80", b"]"),
    *(b"}", b")", b"(", b"t", b"l", b"d", b"\x85", b"\x86", b"\x87", b"R", b"b", b"Q", b"s", b"u"),
    *(b"a", b"e", b"h\x00", b"q\x00", b"\x94", b"0", b"2", b"\x81", b"\x93", b"\x8f", b"\x91"),
    *(b"\x8a\x08" + b"\xff" * 7 + b"\x7f", b"\x8a\xff" + b"\x01" * 255, b"G\x7f\xf8" + bytes(6)),
    *(b"X\x01\x00\x00\x00a", b"X\xff\xff\xff\x7f", b"U\x01a", b"C\x01a", b"\x8e" + b"\xff" * 8),
    *(b"cnumpy\ndtype\n", b"cnumpy\nndarray\n", b"cnumpy.core.multiarray\nscalar\n"),
    *(b"ccollections\nOrderedDict\n", b"ctorch\nFloatStorage\n"),
    b"ctorch._utils\n_rebuild_tensor_v2\n",
    *(b"cargparse\nNamespace\n", b"cbuiltins\nset\n", b"ctorch\nSize\n", b"cos\nsystem\n", b"."),
    *(b"\x82\x01", b"\x95" + b"\xff" * 8, b"L99999999999999999999\n", b"V\\ud800\n", b"S'a'\n"),
)  # fmt: skip


def pickle(content: bytes, random: Random) -> bytes:
    """Delete, repeat, swap, change and insert instructions."""
    try:
        starts = [place for _, _, place in pickletools.genops(content)]
    except ValueError:
        return bytes_(content, random)
    parts = [content[a:b] for a, b in zip(starts, [*starts[1:], len(content)], strict=True)]
    for _ in range(random.randint(1, 4)):
        place = random.randrange(len(parts))
        kind = random.randrange(6)
        if kind == 0 and len(parts) > 1:
            del parts[place]
        elif kind == 1:
            parts[place:place] = parts[place : place + 5] * random.choice((1, 2, 100))
        elif kind == 2:
            other = random.randrange(len(parts))
            parts[place], parts[other] = parts[other], parts[place]
        elif kind == 3:
            parts[place] = random.choice(SNIPPETS)
        elif kind == 4:
            parts[place] = bytes_(parts[place], random)
        else:
            parts[place:place] = [random.choice(SNIPPETS)]
    return b"".join(parts)


def pickles(content: bytes, random: Random) -> bytes:
    """The same in one of several pickles in a row, as torch wrote before its archives."""
    ends, start = [], 0
    for _ in range(5):
        stream = io.BytesIO(content[start:])
        for _ in pickletools.genops(stream):
            pass
        start += stream.tell()
        ends.append(start)
    which = random.randrange(6)
    if which == 5:
        return content[:start] + bytes_(content[start:], random)
    begin = ends[which - 1] if which else 0
    return content[:begin] + pickle(content[begin : ends[which]], random) + content[ends[which] :]


def archive(content: bytes, random: Random) -> bytes:
    """Change a member of a zip archive, drop, rename or repeat one; or the archive itself."""
    if random.random() < 0.15:
        return bytes_(content, random)
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        members = [(name, file.read(name)) for name in file.namelist()]
    which = random.randrange(len(members))
    if random.random() < 0.7:
        which = next(n for n, (name, _) in enumerate(members) if name.endswith("data.pkl"))
    name, inside = members[which]
    kind = random.randrange(10)
    if kind == 0:
        del members[which]
    elif kind == 1:
        members[which] = (random.choice(("", "data.pkl", "a/data.pkl", "../x", "a" * 300)), inside)
    elif kind == 2:
        members[which] = (name, inside * random.choice((0, 2, 50)))
    else:
        members[which] = (name, (pickle if name.endswith(".pkl") else bytes_)(inside, random))
    packed = io.BytesIO()
    how = random.choice((zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    with zipfile.ZipFile(packed, "w", how) as file:
        for name, inside in members:
            file.writestr(zipfile.ZipInfo(name), inside, how)
    return packed.getvalue()


def packed(damage: Damage) -> Damage:
    """The same inside of gzip."""

    def change(content: bytes, random: Random) -> bytes:
        if random.random() < 0.2:
            return bytes_(content, random)
        return gzip.compress(damage(gzip.decompress(content), random), 1)

    return change


TAR_FIELDS = (  # sizes and kinds
    *(b"77777777777\0", b"\x80" + b"\xff" * 11, b"\xff" * 12, b"-1"),
    *(b"x", b"L", b"S", b"g", b"1"),
)


def tar(content: bytes, random: Random) -> bytes:
    """Change a member of a tar archive or its header, whose checksum fits again."""
    data = bytearray(content)
    with tarfile.open(fileobj=io.BytesIO(content)) as file:
        members = [(m.offset, m.offset_data, m.size) for m in file.getmembers()]
    head, start, size = random.choice(members)
    if random.random() < 0.5:
        inside = pickle(bytes(data[start : start + size]), random)[:size]
        data[start : start + size] = inside.ljust(size, b"\0")
    else:
        header = bytearray(data[head : head + 512])
        field = random.choice(((0, 100), (124, 12), (124, 12), (156, 1), (257, 8), (345, 155)))
        other = random.choice(
            (
                b"77777777777\0",
                b"\x80" + b"\xff" * 11,
                b"\xff" * 12,
                b"-1",
                b"x",
                b"L",
                b"S",
                b"g",
                b"1",
            )
        )
        header[field[0] : field[0] + field[1]] = other[: field[1]].ljust(field[1], b"\0")
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
        data[head : head + 512] = header
    return bytes(data) if random.random() < 0.9 else bytes_(bytes(data), random)


def png(content: bytes, random: Random) -> bytes:
    """Change a chunk, whose checksum fits again."""
    chunks, place = [], 8
    while place < len(content):
        length = int.from_bytes(content[place : place + 4], "big")
        chunks.append((content[place + 4 : place + 8], content[place + 8 : place + 8 + length]))
        place += 12 + length
    which = random.randrange(len(chunks))
    kind, inside = chunks[which]
    if random.random() < 0.3 and kind == b"IDAT":
        inside = zlib.compress(bytes_(zlib.decompress(inside), random))
    else:
        inside = bytes_(inside, random)
    chunks[which] = (kind, inside)
    if random.random() < 0.2:
        chunks.insert(which, random.choice(chunks))
    output = content[:8]
    for kind, inside in chunks:
        checksum = zlib.crc32(kind + inside)
        output += struct.pack(">I", len(inside)) + kind + inside + struct.pack(">I", checksum)
    return output


def protobuf(content: bytes, random: Random, depth: int = 0) -> bytes:
    """Change a field of a message, at any depth; the lengths around it fit again."""
    fields = _fields(content)
    if not fields:
        return bytes_(content, random)
    which = random.randrange(len(fields))
    number, kind, value = fields[which]
    choice = random.random()
    if choice < 0.1:
        del fields[which]
    elif choice < 0.2:
        fields[which:which] = [fields[which]] * random.choice((1, 2, 60))
    elif choice < 0.3:
        fields[which] = (random.randint(1, 30), kind, value)
    elif isinstance(value, bytes):
        deeper = depth < 9 and random.random() < 0.85
        fields[which] = (
            number,
            kind,
            (protobuf(value, random, depth + 1) if deeper else bytes_(value, random)),
        )
    else:
        fields[which] = (number, kind, random.choice(NUMBERS) & ((1 << 64) - 1))
    return b"".join(_field(*each) for each in fields)


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 127:
        encoded.append(value & 127 | 128)
        value >>= 7
    return bytes([*encoded, value])


def _field(number: int, kind: int, value: int | bytes) -> bytes:
    key = _varint(number << 3 | kind)
    if isinstance(value, bytes):
        return key + (_varint(len(value)) + value if kind == 2 else value)
    return key + _varint(value)


def _fields(content: bytes) -> list[tuple[int, int, int | bytes]]:
    """The fields of a message; nothing if it is none."""
    place = 0
    fields: list[tuple[int, int, int | bytes]] = []

    def varint() -> int:
        nonlocal place
        value = shift = 0
        while True:
            value |= (content[place] & 127) << shift
            place, shift = place + 1, shift + 7
            if not content[place - 1] & 128:
                return value

    try:
        while place < len(content):
            key = varint()
            if key & 7 == 0:
                fields.append((key >> 3, 0, varint()))
                continue
            length = {1: 8, 5: 4}.get(key & 7) or (varint() if key & 7 == 2 else -1)
            if length < 0 or place + length > len(content) or not key >> 3:
                return []
            fields.append((key >> 3, key & 7, content[place : place + length]))
            place += length
    except IndexError:
        return []
    return fields


def footer(content: bytes, random: Random) -> bytes:
    """Change the end of a parquet file, where all is described, more often than its pages."""
    length = int.from_bytes(content[-8:-4], "little")
    start = len(content) - 8 - length
    if random.random() < 0.3:
        return bytes_(content[:start], random) + content[start:]
    inside = bytes_(content[start:-8], random)
    return content[:start] + inside + struct.pack("<I", len(inside)) + b"PAR1"


def either(*damages: Damage) -> Damage:
    """One of several."""
    return lambda content, random: random.choice(damages)(content, random)
