"""Machines in network namespaces of their own, on one bridge, whose cables can be pulled out."""

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator


class Network:
    """Machines 0, 1, ... with an address each; see `network`."""

    def __init__(self, name: str) -> None:
        self.name = name

    def command(self, machine: int) -> list[str]:
        """What runs the words that follow it on a machine."""
        return ["ip", "netns", "exec", f"{self.name}-{machine}"]

    def address(self, machine: int) -> str:
        """By which the others reach a machine."""
        return f"10.77.0.{10 + machine}"

    def pull_out(self, machine: int) -> None:
        """Take a machine off the network. Connections stay, and nothing passes."""
        _ip("-n", self.name, "link", "set", f"port{machine}", "down")

    def plug_in(self, machine: int) -> None:
        """Bring a machine back."""
        _ip("-n", self.name, "link", "set", f"port{machine}", "up")


def why_no_network() -> str:
    """Why there can be no such network here; empty if there can."""
    if sys.platform != "linux" or os.geteuid() or not shutil.which("ip"):
        return "network namespaces need Linux, root and iproute2"
    try:
        with network(1):
            return ""
    except subprocess.CalledProcessError as error:
        return f"no network namespaces here: {error.stderr}"


@contextlib.contextmanager
def network(machines: int) -> Iterator[Network]:
    """A network of machines 0 to `machines` - 1; its namespaces are deleted afterwards."""
    name = f"resnets-{os.getpid()}"
    built = Network(name)
    spaces = [name, *(f"{name}-{machine}" for machine in range(machines))]
    try:
        for space in spaces:
            _ip("netns", "add", space)
        _ip("-n", name, "link", "add", "bridge", "type", "bridge")
        _ip("-n", name, "link", "set", "bridge", "up")
        for machine, space in enumerate(spaces[1:]):
            port, veth = f"port{machine}", ("type", "veth", "peer", "name", "eth0", "netns", space)
            _ip("-n", name, "link", "add", port, *veth)
            _ip("-n", name, "link", "set", port, "master", "bridge", "up")
            _ip("-n", space, "addr", "add", f"{built.address(machine)}/24", "dev", "eth0")
            _ip("-n", space, "link", "set", "lo", "up")
            _ip("-n", space, "link", "set", "eth0", "up")
        yield built
    finally:
        for space in spaces:
            subprocess.run(["ip", "netns", "delete", space], check=False, capture_output=True)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)
