"""What went wrong in a remote place, whether another attempt may help, and when to make it."""

import asyncio
import errno
import os
import random
import socket
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

from resnets.errors import ContentError
from resnets.format import duration, plural

_BUSY = (408, 425, 429)  # besides 500 and above: statuses of HTTP after which one tries again
_UNKNOWN_SIGNER = (18, 19, 20, 21)  # of OpenSSL: X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT, ...
_S3_BUSY = ("SlowDown", "RequestTimeout", "InternalError", "ServiceUnavailable", "Throttling")
_CREDENTIALS = {  # where those of a scheme are taken from
    "http": "the file .netrc in the home folder, or the one that NETRC names",
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY of the environment, or AWS_PROFILE",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS of the environment",
}


class RemoteError(OSError):
    """A remote place cannot be read or written, after all attempts. Exit code 1, never skipped."""


class WrongBytesError(RemoteError, ContentError):
    """A remote place holds other bytes than the index says. Only training may leave them out."""


class WrongLengthError(Exception):
    """A server sent another number of bytes than the range has.

    Attributes:
        expected: bytes of the range.
        received: bytes that came.
        end: the size of the file, if the range goes beyond it.
    """

    def __init__(self, expected: int, received: int, end: int | None = None) -> None:
        super().__init__(expected, received, end)
        self.expected, self.received, self.end = expected, received, end


@dataclass(frozen=True)
class Failure:
    """Why an attempt failed.

    Attributes:
        reason: in words, without any part of a message that may hold a credential.
        again: whether another attempt may help.
        pause: seconds that the server asks to wait; None if it does not say.
        missing: whether there is no such file.
        denied: whether credentials are missing or wrong.
        silent: whether nothing answered at all: there is no such host, or it is away.
    """

    reason: str
    again: bool = True
    pause: float | None = None
    missing: bool = False
    denied: bool = False
    silent: bool = False


@dataclass(frozen=True)
class Patience:
    """How long to wait, and how often to try.

    Attributes:
        attempts: the first included.
        silent_attempts: the same where nothing answers at all.
        seconds: for an answer to begin and end, and one more for each `slowest` bytes of it.
        slowest: bytes a second.
        first_pause: seconds before the second attempt; each later one is twice as long.
        longest_pause: seconds, also where the server asks for more.
        total: seconds of an outage, beyond which no other attempt begins; but for those that the
            server asks to wait.
    """

    attempts: int = 8
    silent_attempts: int = 8
    seconds: float = 20.0
    slowest: int = 1 << 18
    first_pause: float = 0.5
    longest_pause: float = 30.0
    total: float = 120.0

    def limit(self, length: int) -> float:
        """The time limit, in seconds, of a request that transfers `length` bytes."""
        return self.seconds + length / self.slowest

    def allows(self, lasted: float, limit: float) -> bool:
        """Whether another attempt is made that may take `limit` seconds, half of them in time."""
        return lasted + limit / 2 <= self.total

    def pause(self, failures: int, failure: Failure, chance: float | None = None) -> float:
        """Seconds before the next attempt; between half and all of it, by chance.

        A server that asks to wait is waited for: at least as long as it says. The chance spreads
        the attempts of many machines.

        Args:
            failures: attempts that failed so far.
            failure: the last of them.
            chance: in [0, 1); drawn by default.

        >>> [Patience().pause(n, Failure("busy"), chance=0.999) // 0.1 / 10 for n in (1, 2, 9)]
        [0.4, 0.9, 29.9]
        >>> Patience().pause(1, Failure("busy", pause=7.0), chance=0.0)
        7.25
        """
        chance = random.random() if chance is None else chance
        own: float = min(self.first_pause * 2.0 ** (failures - 1), self.longest_pause)
        own *= 0.5 + chance / 2
        return own if failure.pause is None else own + min(failure.pause, self.longest_pause)


ONCE_OPEN = Patience()  # data that could be read before: minutes of trouble are waited for
AT_FIRST = Patience(
    attempts=4, silent_attempts=2
)  # an address that was just given, and may be wrong


def credentials_of(scheme: str) -> str:
    """Where the credentials for a scheme are taken from.

    >>> credentials_of("gs")
    'credentials are taken from GOOGLE_APPLICATION_CREDENTIALS of the environment'
    """
    return f"credentials are taken from {_CREDENTIALS[scheme]}"


def failure_of(error: BaseException, limit: float) -> Failure:
    """What an exception of fsspec, aiohttp or botocore means.

    Args:
        error: that an attempt raised.
        limit: seconds after which it is given up.
    """
    if type(error).__name__ in ("ConnectionTimeoutError", "ConnectTimeoutError"):
        return Failure("nothing answers there", silent=True)
    if isinstance(error, asyncio.TimeoutError):
        return Failure(f"no whole answer within {duration(limit)}")
    if isinstance(error, WrongLengthError):
        return _wrong_length(error)
    answer = getattr(error, "response", None) or getattr(error.__cause__, "response", None)
    if isinstance(answer, dict):
        return _of_s3(answer)
    status = getattr(error, "status", None) or getattr(error.__cause__, "status", None)
    status = status or getattr(error, "code", None)  # gcsfs
    if isinstance(status, int) and status:
        return _of_status(status, getattr(error, "headers", None))
    if isinstance(error, OSError) and str(error).startswith("Forbidden"):  # gcsfs, of status 403
        return _of_status(403, None)
    if isinstance(error, FileNotFoundError):
        if error.__cause__ is not None:  # fsspec's word for whatever happened
            return failure_of(error.__cause__, limit)
        return Failure("no such file", again=False, missing=True)
    return _of_connection(error)


def _wrong_length(error: WrongLengthError) -> Failure:
    """A shorter answer may have been cut; a longer one comes from a server without ranges."""
    if error.end is not None:
        return Failure(f"the file ends at byte {error.end:,}, was it cut off?", again=False)
    sent = f"the server sent {plural(error.received, 'byte')} instead of {error.expected:,}"
    if error.received < error.expected:
        return Failure(sent)
    return Failure(
        f"{sent}: it does not answer requests for a range; use a server that does "
        "(nginx, Caddy, S3), or download the folder and give its path",
        again=False,
    )


def _of_s3(answer: dict[str, Any]) -> Failure:
    """The error that an S3-compatible server answered."""
    code = str(answer.get("Error", {}).get("Code", ""))
    metadata = answer.get("ResponseMetadata", {})
    status = int(metadata.get("HTTPStatusCode") or 0)
    failure = _of_status(status, metadata.get("HTTPHeaders"))
    missing = failure.missing or code in ("NoSuchKey", "NoSuchBucket", "404")
    reason = "no such bucket" if code == "NoSuchBucket" else failure.reason
    if code and not code.isdigit() and not missing:
        reason = f"{reason} ({code})"
    again = not missing and (failure.again or code in _S3_BUSY)
    return Failure(reason, again, failure.pause, missing, failure.denied)


def _of_status(status: int, headers: Any) -> Failure:
    """What a status of HTTP means."""
    if status in (404, 410):
        return Failure("no such file", again=False, missing=True)
    if status in (401, 403):
        return Failure(f"access denied (status {status})", again=False, denied=True)
    if status == 416:
        return Failure("the file ends before, was it cut off? (status 416)", again=False)
    again = status in _BUSY or status >= 500
    return Failure(f"status {status} of the server", again, _seconds_to_wait(headers))


def _seconds_to_wait(headers: Any) -> float | None:
    """The seconds of the header Retry-After; None without one.

    >>> _seconds_to_wait({"Retry-After": "3"}), _seconds_to_wait({"retry-after": "soon"})
    (3.0, None)
    """
    by_name = {str(name).lower(): str(text) for name, text in dict(headers or {}).items()}
    text = by_name.get("retry-after", "")
    if text.strip().isdigit():
        return float(text)
    try:
        when, now = parsedate_to_datetime(text), parsedate_to_datetime(by_name.get("date", ""))
        return max(0.0, (when - now).total_seconds())
    except (TypeError, ValueError):
        return None


def _of_connection(error: BaseException) -> Failure:
    """An error without an answer: of the name, the connection or the credentials."""
    kind = type(error).__name__
    if "Credential" in kind or "RefreshError" in kind or isinstance(error, PermissionError):
        return Failure("access denied", again=False, denied=True)
    certificate = getattr(error, "certificate_error", None)
    if problem := getattr(certificate, "verify_message", None):
        unknown = getattr(certificate, "verify_code", None) in _UNKNOWN_SIGNER
        hint = "; give the file of who signed it by SSL_CERT_FILE" if unknown else ""
        return Failure(f"its certificate is not trusted ({problem}){hint}", again=False)
    if "Certificate" in kind or "SSL" in kind:
        return Failure(f"no secure connection ({kind})", again=False)
    if "Payload" in kind or "Disconnected" in kind or "IncompleteRead" in kind:
        return Failure("the connection was cut")
    system = _error_of_system(error)
    if isinstance(system, socket.gaierror):
        return Failure("no such host (check its name)", silent=True)
    number = getattr(system, "errno", None)
    if isinstance(number, int) and number in errno.errorcode:
        return Failure(os.strerror(number).lower())
    return Failure("no connection")


def _error_of_system(error: BaseException | None) -> OSError | None:
    """What the system said of a connection: aiohttp and botocore wrap it, one in the other."""
    while error is not None:
        wrapped = getattr(error, "kwargs", None)
        inner = wrapped.get("error") if isinstance(wrapped, dict) else None
        inner = getattr(error, "os_error", inner)
        if inner is None and isinstance(error, OSError):
            return error
        error = inner if isinstance(inner, BaseException) else error.__cause__
    return None
