"""Who may ask: host names, other sites' pages, keys, and a rate for each caller.

A page of another site that a user of this machine has open can send requests to a server that
listens on 127.0.0.1 (cross-site posts), and can even pretend that its own name leads there (DNS
rebinding). Browsers say so in the headers Host, Origin and Sec-Fetch-Site, which are checked.
"""

import hashlib
import hmac
import ipaddress
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from resnets.errors import UsageError
from resnets.files.reading import read_text

_LOCAL = ("localhost", "127.0.0.1", "::1")
_PROBES = ("/v2/health/live", "/v2/health/ready")
_PAGES = ("/", "/docs", "/openapi.json")  # the same on every server; the first asks for the key
OPEN_PATHS = (*_PROBES, *_PAGES)  # without a key
OPEN_FOLDER = "/static/"  # of the page
_SAFE = ("GET", "HEAD", "OPTIONS")
_KEY_HEADERS = ("authorization", "x-api-key")
_OF_PROXIES = ("forwarded", "x-forwarded-", "x-real-ip", "via")  # headers that they add
_LEAST_KEY = 16  # characters
_HOW_TO_WRITE_KEYS = "write one key a line, such as `openssl rand -hex 32` prints"
_CALLERS = 10_000  # whose rate is remembered
_HOST = re.compile(r"[A-Za-z0-9._-]+")  # a name; browsers send letters of others as xn--...
_HOSTS = 64  # host names that are remembered, each of at most the headers' 64 KiB
_PERIODS = {"s": 1.0, "m": 60.0, "h": 3600.0}


class Refused(Exception):  # noqa: N818  (what happened, not a fault)
    """A request that is not answered.

    Attributes:
        status: of the response.
        reason: for the client.
        headers: of the response.
    """

    def __init__(self, status: int, reason: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(reason)
        self.status, self.reason, self.headers = status, reason, headers or {}


@dataclass(frozen=True)
class Keys:
    """Keys of which each request needs one; none, if there are none.

    Attributes:
        digests: SHA-256 of each.
        path: file that they are of; None: of none.
    """

    digests: tuple[bytes, ...] = ()
    path: Path | None = None

    @classmethod
    def of_file(cls, path: Path) -> "Keys":
        """The keys in a text file, one a line; lines that begin with # are comments.

        Raises:
            UsageError: there is no such file, no key in it, or one of less than 16 characters.
        """
        try:
            lines = [line.strip() for line in read_text(path).splitlines()]
        except OSError as error:
            raise UsageError(f"{path}: {error.strerror or error}") from None
        except UnicodeDecodeError:
            raise UsageError(f"{path}: no text file; {_HOW_TO_WRITE_KEYS}") from None
        keys = {n: line for n, line in enumerate(lines, 1) if line and not line.startswith("#")}
        if not keys:
            raise UsageError(f"{path}: no key; {_HOW_TO_WRITE_KEYS}")
        for number, key in keys.items():
            if len(key) < _LEAST_KEY or not key.isascii() or " " in key:
                raise UsageError(
                    f"{path}: the key in line {number} must have at least {_LEAST_KEY} characters "
                    "of ASCII and no space"
                )
        return cls(tuple(hashlib.sha256(key.encode()).digest() for key in keys.values()), path)

    def caller(self, headers: Headers) -> str | None:
        """A name for the caller whose key a request has: a part of the key's digest.

        None if the request has none of the keys, each of which is compared in constant time.
        """
        if not self.digests:
            return None
        kind, _, text = headers.get("authorization", "").partition(" ")
        bearer = text.strip() if kind.lower() == "bearer" else ""
        for key in (bearer, headers.get("x-api-key", "")):  # one right key is enough
            digest = hashlib.sha256(key.encode()).digest()
            matches = [hmac.compare_digest(digest, each) for each in self.digests]
            if any(matches):
                return digest.hex()[:8]
        return None


def parse_rate(text: str) -> float:
    """Requests a second, of a text such as 10/s, 600/m or 1000/h.

    Raises:
        UsageError: it is not such a text.

    >>> parse_rate("600/m")
    10.0
    """
    number, _, period = text.partition("/")
    try:
        rate = float(number) / _PERIODS[period or "s"]
    except (KeyError, ValueError):
        rate = 0.0
    if not 0 < rate < float("inf"):
        raise UsageError(f"--rate {text}: give a number of requests and a period: 10/s, 600/m")
    return rate


class Rate:
    """At most so many requests a second of each caller, of which a second's worth may come at once.

    Args:
        rate: requests a second.
        clock: in seconds.
    """

    def __init__(self, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.rate = rate
        self.burst = max(1.0, rate)
        self._clock = clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()  # requests, when

    def take(self, caller: str) -> None:
        """Count a request.

        Raises:
            Refused: 429, it is one too many.
        """
        now = self._clock()
        left, since = self._left.pop(caller, (self.burst, now))
        left = min(self.burst, left + (now - since) * self.rate)
        allowed = left >= 1
        self._left[caller] = (left - 1 if allowed else left, now)
        if len(self._left) > _CALLERS:
            self._left.popitem(last=False)
        if not allowed:
            wait = int((1 - left) / self.rate) + 1
            raise Refused(429, "too many requests; try again later", {"Retry-After": str(wait)})


@dataclass(frozen=True)
class Access:
    """What a request must fulfil.

    Attributes:
        hosts: names in the header Host, beside IP addresses and those of this machine; "*" is any.
        origins: of other sites whose pages may ask (CORS), such as https://example.org.
        keys: of which a request needs one.
        rate: of each caller, and of wrong keys from each address; None: any.
    """

    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    keys: Keys = field(default_factory=Keys)
    rate: Rate | None = None

    def check(self, method: str, path: str, headers: Headers, client: str) -> str:
        """A name for the caller: of its key, or its address.

        Args:
            method: of the request.
            path: likewise.
            headers: likewise.
            client: the address of the other end; empty if it is unknown.

        Raises:
            Refused: the request is not to be answered.
        """
        caller = self.keys.caller(headers)
        if not self.keys.digests:
            self._check_host(headers.get("host", ""))
        if method not in _SAFE:
            self._check_origin(headers)
        if path in OPEN_PATHS or path.startswith(OPEN_FOLDER):
            return caller or client
        if self.keys.digests and caller is None:
            if self.rate is not None and any(name in headers for name in _KEY_HEADERS):
                self.rate.take(client)  # else keys could be tried without an end
            reason = f"{_problem_of_key(headers)}: {_HOW_TO_SEND_KEYS}"
            raise Refused(401, reason, {"WWW-Authenticate": "Bearer"})
        if self.rate is not None:
            self.rate.take(caller or client)
        return caller or client

    def may_control(self, headers: Headers, client: str) -> bool:
        """Whether a request may load and unload models: with a key, or from this machine.

        A proxy on this machine that passes requests on is not this machine. Only its headers tell
        it, and nginx adds none unless told: behind a proxy, use keys.
        """
        if self.keys.digests:
            return self.keys.caller(headers) is not None
        passed_on = any(name.startswith(_OF_PROXIES) for name in headers)
        return not passed_on and is_loopback(client)

    def _check_host(self, header: str) -> None:
        """Refuse a host name that is none of ours: a browser was told that it leads here."""
        host = _host_name(header)
        known = (*_LOCAL, *(name.lower() for name in self.hosts))
        if "*" in self.hosts or host in known or _is_address(host):
            return
        if not host:
            raise Refused(403, "the header Host is missing, or names no host")
        raise Refused(
            403,
            f"the host name {host[:_SHOWN]!r} is not allowed; the server's --allow-host "
            f"{host[:_SHOWN]} allows it",
        )

    def _check_origin(self, headers: Headers) -> None:
        """Refuse what a page of another site sends."""
        origin = headers.get("origin")
        if origin is None:
            if headers.get("sec-fetch-site", "none") in ("none", "same-origin"):
                return
            raise Refused(403, _CROSS_SITE)
        host = headers.get("host", "")
        own = _place_of(origin) == host.lower()
        if not own and origin not in self.origins and "*" not in self.origins:
            raise Refused(403, _other_origin(origin, host))


_HOW_TO_SEND_KEYS = "send the header Authorization: Bearer KEY, or X-API-Key: KEY"


def _problem_of_key(headers: Headers) -> str:
    """Why a request has no right key."""
    kind, _, text = headers.get("authorization", "").partition(" ")
    if "x-api-key" not in headers and kind and not (kind.lower() == "bearer" and text.strip()):
        return "the header Authorization holds no key of the kind Bearer"
    wrong = any(name in headers for name in _KEY_HEADERS)
    return "the key is none of this server's" if wrong else "a key is needed"


_CROSS_SITE = "a page of another site may not ask here; the server's --cors ORIGIN allows it"
_SHOWN = 100  # characters of a header


def _other_origin(origin: str, host: str) -> str:
    """Why a page may not ask: what was compared, and what changes it.

    Where a proxy has put another Host in the place of the browser's, no header tells the server's
    own page from that of another site: see docs/decisions.md.
    """
    return (
        f"the page that asks is of {origin[:_SHOWN]!r} (Origin), and the request came to "
        f"{host[:_SHOWN]!r} (Host), so that it counts as a page of another site; a proxy before "
        "the server must pass on the browser's Host (nginx: proxy_set_header Host $http_host;), "
        "and pages of other sites need the server's --cors ORIGIN"
    )


def _place_of(url: str) -> str | None:
    """The host and port of a URL, in small letters; None where it has none."""
    try:
        return urlsplit(url).netloc.lower() or None
    except ValueError:  # such as of http://[
        return None


@lru_cache(_HOSTS)  # most requests have the same
def _host_name(header: str) -> str:
    """The host of a header Host, without its port."""
    try:
        return (urlsplit(f"//{header}").hostname or "").lower()
    except ValueError:
        return ""


@lru_cache(_HOSTS)
def _is_address(host: str) -> bool:
    """Whether a host is an IP address, to which no name can be bound anew."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Whether an address is reached from this machine only."""
    return host == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback)


def check_hosts(hosts: Sequence[str]) -> tuple[str, ...]:
    """Host names as they are compared with the header Host.

    Raises:
        UsageError: one could never be that of a request.
    """
    for host in hosts:
        if host != "*" and not _HOST.fullmatch(host) and not _is_address(host):
            raise UsageError(
                f"--allow-host {host}: give a name alone, without https:// and without a port, as "
                "photos.example.org, or '*' for any"
            )
    return tuple(hosts)


def check_origins(origins: Sequence[str]) -> tuple[str, ...]:
    """Origins as browsers send them.

    Raises:
        UsageError: one is not such as https://example.org or https://example.org:8080.
    """
    for origin in origins:
        plain = f"{origin.partition(':')[0]}://{_place_of(origin)}"
        if origin != "*" and origin.rstrip("/").lower() != plain.lower():
            raise UsageError(f"--cors {origin}: give an origin, such as https://example.org, or *")
    return tuple(origin.rstrip("/").lower() for origin in origins)
