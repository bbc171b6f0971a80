"""Telling the system's manager of services that the server is ready: systemd's sd_notify(3)."""

import socket
import sys
from collections.abc import Mapping

from resnets.escaping import say

_VARIABLE = "NOTIFY_SOCKET"  # of the manager, if it wants to be told
_READY = b"READY=1"


def tell_ready(environment: Mapping[str, str]) -> None:
    """Tell who started this process, if it asks, that the server answers from now on.

    Args:
        environment: of the process; NOTIFY_SOCKET is the path of a socket, or @ and a name of
            Linux' abstract ones.
    """
    address = environment.get(_VARIABLE, "")
    if sys.platform != "win32" and address[:1] in ("/", "@"):
        place = "\0" + address[1:] if address.startswith("@") else address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
                manager.connect(place)
                manager.sendall(_READY)
        except OSError as error:
            reason = error.strerror or error
            say(f"warning: {_VARIABLE} {address} was not told: {reason}", file=sys.stderr)
