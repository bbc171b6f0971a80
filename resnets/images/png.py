"""Fast decoding of small, plain PNG files, with only Pillow's decoder.

For images of up to 64 x 64 pixels, opening them with Pillow takes about as long as decoding them.
"""

import re
import struct
import zlib

import numpy as np
from PIL import Image

from resnets.images.resizing import Pixels

_START = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
_MODES = {0: "L", 2: "RGB"}  # by colour type
SMALL = 64 * 64  # pixels; in larger images the time to open them hardly matters
# Chunks that Pillow ignores too. Text may contain an orientation, and cHRM may be damaged.
_WITHOUT_EFFECT = re.compile(b"IHDR|sBIT|bKGD|tIME|sPLT|hIST")


def decode_plain(data: bytes, channels: int, max_pixels: int = SMALL) -> Pixels | None:
    """Decode a small PNG of 8-bit grey or RGB, without interlacing, transparency or rotation.

    Args:
        data: the content of a file of any kind.
        channels: 1 or 3.
        max_pixels: the largest number of pixels to decode, in any case at most `SMALL`.

    Returns:
        (H, W, channels) uint8, contiguous and writable; None for any other image, for a number of
        channels that is not the image's, and for damaged files.
    """
    if not data.startswith(_START) or len(data) < 33:
        return None
    width, height, *kind = struct.unpack(">IIBBBBB", data[16:29])
    mode = _MODES.get(kind[1])
    if kind != [8, kind[1], 0, 0, 0] or mode is None or len(mode) != channels:
        return None
    if (
        not 0 < width * height <= min(SMALL, max_pixels)
        or (compressed := _image_data(data)) is None
    ):
        return None
    try:
        image = Image.frombytes(mode, (width, height), compressed, "zip", mode, 0)
    except (ValueError, OSError):  # Pillow reports the reason when it opens the file
        return None
    return np.frombuffer(bytearray(image.tobytes()), np.uint8).reshape(height, width, channels)


def _image_data(data: bytes) -> bytes | None:
    """The joined IDAT chunks of a PNG; None if a chunk is damaged or changes the pixels."""
    parts: list[bytes] = []
    position = 8
    while position + 12 <= len(data):
        length = int.from_bytes(data[position : position + 4], "big")
        name, end = data[position + 4 : position + 8], position + 8 + length
        if zlib.crc32(data[position + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
            return None
        if name == b"IEND":
            return b"".join(parts)
        if name == b"IDAT":
            parts.append(data[position + 8 : end])
        elif not _WITHOUT_EFFECT.fullmatch(name):
            return None
        position = end + 4
    return None
