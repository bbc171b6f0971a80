"""Settings of a server: its limits and where it listens."""

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from resnets.errors import UsageError
from resnets.images.opening import MAX_PIXELS
from resnets.machine import cores, reading_threads

_MEBIBYTE = 1 << 20
_BODIES = 8  # of the largest size that are in memory at once


@dataclass(frozen=True)
class Settings:
    """Where a server listens, and its limits.

    Attributes:
        host: the address to listen on; 127.0.0.1 is reached from this machine only.
        port: the port to listen on; 0 takes a free one.
        max_batch: images computed at once; 0: measured at the start.
        queue: images that may be in the server at once, decoded or not; further requests are
            answered 503 at once.
        timeout: seconds after which a request is given up, from its first byte.
        max_body: bytes of a request's body.
        max_pixels: pixels of an image, width times height.
        decoders: threads that decode images; 1: the one that computes decodes, too.
            Large images have as many threads of their own.
        grace: seconds to finish what is in flight when the server is asked to stop.
        workers: processes that share the port, each of which has these limits.
        control: whether clients may load and unload models.
        access_log: whether each request is a line of the log.
        root_path: path under which a proxy offers this server; empty, or it begins with /.
        tls_certificate: PEM file of the certificate chain; None: http.
        tls_key: PEM file of its private key; None: it is in the file of the certificate.
        examples: whether the page offers drawings to try.
        collect: folder for the images that users label; None: none are kept.
        collect_mb: MiB that the folder may hold.

    Raises:
        UsageError: a value is not allowed.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    max_batch: int = 0
    queue: int = 256
    timeout: float = 30.0
    max_body: int = 32 * _MEBIBYTE
    max_pixels: int = MAX_PIXELS
    decoders: int = 0
    grace: float = 30.0
    examples: bool = False
    collect: Path | None = None
    collect_mb: int = 1000
    workers: int = 1
    control: bool = False
    access_log: bool = True
    root_path: str = ""
    tls_certificate: Path | None = None
    tls_key: Path | None = None

    def __post_init__(self) -> None:
        allowed = {
            "port": 0 <= self.port <= 65_535,
            "max_batch": self.max_batch >= 0,
            "queue": self.queue >= 1,
            "timeout": self.timeout > 0,
            "max_body": self.max_body >= 1,
            "max_pixels": self.max_pixels >= 1,
            "decoders": self.decoders >= 0,
            "grace": self.grace >= 0,
            "workers": self.workers >= 1,
            "collect_mb": self.collect_mb >= 1,
            "root_path": _is_root(self.root_path),
            "tls_key": self.tls_key is None or self.tls_certificate is not None,
        }
        for name, sound in allowed.items():
            if not sound:
                flag = "--" + name.replace("_", "-")
                raise UsageError(f"{flag} {getattr(self, name)}: {_ALLOWED[name]}")

    def limits(self) -> dict[str, float]:
        """The limits by name, as metrics tell them."""
        limits: dict[str, float] = {
            "queue": self.queue,
            "timeout_seconds": self.timeout,
            "body_bytes": self.max_body,
            "all_bodies_bytes": self.all_bodies,
            "image_pixels": self.max_pixels,
            "decoding_threads": self.decoding_threads,
            "grace_seconds": self.grace,
            "workers": self.workers,
        }
        return limits if self.collect is None else limits | {"collect_bytes": self.collect_bytes}

    @property
    def all_bodies(self) -> int:
        """Bytes of the bodies of all requests together; further ones are answered 503."""
        return _BODIES * self.max_body

    @property
    def collect_bytes(self) -> int:
        """Bytes that the folder of `collect` may hold."""
        return self.collect_mb << 20

    @property
    def decoding_threads(self) -> int:
        """Number of threads that decode: `decoders`, or on several cores as many as read files."""
        return self.decoders or (reading_threads() if cores() > 1 else 1)


def _is_root(path: str) -> bool:
    """Whether browsers ask for what is below a path as it is written.

    >>> [_is_root(path) for path in ("", "/a/b", "a", "/a/", "/a//b", "/a/../b", "/%2e/b", "/a?b")]
    [True, True, False, False, False, False, False, False]
    """
    first, *parts = path.split("/")
    sound = all(unquote(part) not in ("", ".", "..") for part in parts)
    return not first and sound and not set(path) & set("?#\\")


_ALLOWED = {
    "workers": "it must be at least 1",
    "collect_mb": "it must be at least 1",
    "port": "a port is a number from 0 (any that is free) to 65535",
    "max_batch": "it must be at least 1, or 0 to measure the best",
    "queue": "it must be at least 1",
    "timeout": "it must be more than 0 seconds",
    "max_body": "it must be more than 0",
    "max_pixels": "it must be at least 1",
    "decoders": "it must be at least 1, or 0 for one per core and a few more (one on one core)",
    "grace": "it must be at least 0 seconds",
    "root_path": (
        "it must begin with / and not end with it, as /resnets, and have no part that browsers "
        "take out of a path, as .."
    ),
    "tls_key": "give --tls-certificate FILE, too",
}
