"""How an image is turned, from an EXIF segment, without Pillow's machinery for the rest of it."""

import struct

ORIENTATION = 0x0112  # the tag (CIPA DC-008, section 4.6.4)
SHORT = 3  # its type: 16 bits
MARK = b"Exif\0\0"
ORDERS = {b"II*\0": "<", b"MM\0*": ">"}  # as `struct` names them
XMP = b"tiff:Orientation"
SIZES = (0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8)  # bytes of a value, by type (TIFF 6.0, section 2)


def orientation_told(segments: list[bytes]) -> int | None:
    """The orientation that the APP1 segments of a JPEG tell.

    Returns:
        1 to 8; 1 if they tell none; None where it is not written in the plain way, for Pillow to
        find out.

    >>> orientation_told([])
    1
    """
    if any(XMP in segment for segment in segments):
        return None
    exif = [segment[len(MARK) :] for segment in segments if segment.startswith(MARK)]
    if len(exif) > 1:
        return None
    return orientation_in(exif[0]) if exif else 1


def orientation_in(tiff: bytes) -> int | None:
    """The orientation that the first directory of a TIFF tells: see `orientation_told`."""
    order = ORDERS.get(tiff[:4])
    if order is None:
        return None
    try:
        (start,) = struct.unpack_from(f"{order}I", tiff, 4)
        (count,) = struct.unpack_from(f"{order}H", tiff, start)
        places = range(start + 2, start + 2 + 12 * count, 12)
        entries = [struct.unpack_from(f"{order}HHII", tiff, place) for place in places]
    except struct.error:  # it ends early
        return None
    for _, kind, values, offset in entries:
        size = values * (SIZES[kind] if kind < len(SIZES) else 0)
        if size > 4 and offset + size > len(tiff):
            return None
    found = [entry[1:] for entry in entries if entry[0] == ORIENTATION]
    if not found:
        return 1
    if len(found) > 1 or found[0][:2] != (SHORT, 1):
        return None
    value = found[0][2] & 0xFFFF if order == "<" else found[0][2] >> 16  # two of the four bytes
    return value if 1 <= value <= 8 else 1
