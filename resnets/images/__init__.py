"""Decoding of image files to uint8 arrays: orientation, colours, resizing.

Only `vectorised`, which no other module here imports, needs torch.
"""

from resnets.images.converting import from_pixels
from resnets.images.decoding import decode, decode_crop, from_pillow, read_deep
from resnets.images.opening import ALLOWED, MAX_PIXELS, UNTRUSTED
from resnets.images.preprocessing import Preprocessing
from resnets.images.probing import Probe, probe
from resnets.images.resizing import Box, Pixels, centre_crop, resize
from resnets.images.white import White

__all__ = [
    "ALLOWED",
    "MAX_PIXELS",
    "UNTRUSTED",
    "Box",
    "Pixels",
    "Preprocessing",
    "Probe",
    "White",
    "centre_crop",
    "decode",
    "decode_crop",
    "from_pillow",
    "from_pixels",
    "probe",
    "read_deep",
    "resize",
]
