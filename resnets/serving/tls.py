"""The server's files of TLS: what is wrong with them, and renewed ones in the place of the old."""

import hashlib
import ssl
from pathlib import Path

from resnets.errors import UsageError
from resnets.files.reading import read_input
from resnets.serving.credentials import Watched

LARGEST_PEM = 1 << 20  # bytes


def context_of(certificate: Path, key: Path | None) -> ssl.SSLContext:
    """What new connections are shown.

    Args:
        certificate: PEM file of the certificate chain.
        key: PEM file of its private key; None: it is in the file of the certificate.

    Raises:
        UsageError: the server could not use the files.
        OSError: they cannot be read.
    """
    keys = key or certificate
    keys_flag = f"--tls-key {key}" if key else f"--tls-certificate {certificate}"

    def encrypted() -> str:
        raise UsageError(
            f"{keys_flag}: the key is encrypted; write it without a password (openssl pkey -in KEY "
            "-out PLAIN)"
        )

    _refuse_other_pem(certificate, f"--tls-certificate {certificate}", "CERTIFICATE")
    if key is None and b"PRIVATE KEY-----" not in read_input(certificate, LARGEST_PEM):
        raise UsageError(f"{keys_flag}: it holds no private key; give --tls-key FILE, too")
    _refuse_other_pem(keys, keys_flag, "PRIVATE KEY")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key, encrypted)
    except ssl.SSLError as error:
        if error.reason in _OF_ANOTHER:
            reason = f"{keys_flag}: the key is not that of the certificate {certificate}"
        elif _is_certificate(certificate):
            reason = f"{keys_flag}: the private key cannot be used ({error.reason or error})"
        else:
            reason = f"--tls-certificate {certificate}: the certificate is damaged"
        raise UsageError(reason) from None
    return context


# the latter where one is of RSA and the other of ECDSA, which OpenSSL keeps apart
_OF_ANOTHER = ("KEY_VALUES_MISMATCH", "NO_CERTIFICATE_ASSIGNED")


def _is_certificate(path: Path) -> bool:
    """Whether the certificates of a file can be read."""
    try:
        ssl.create_default_context().load_verify_locations(path)
    except ssl.SSLError:
        return False
    return True


def _refuse_other_pem(path: Path, flag: str, kind: str) -> None:
    """Refuse a file without an object of a kind in PEM, such as `PRIVATE KEY`."""
    if f"{kind}-----".encode() not in read_input(path, LARGEST_PEM):
        raise UsageError(f"{flag}: it holds no -----BEGIN {kind}----- as files in PEM do")


def renewed(
    listening: ssl.SSLContext, certificate: Path, key: Path | None
) -> Watched[ssl.SSLContext]:
    """Files of TLS that new connections are shown as they are then; old ones go on as they began.

    A certificate that is loaded into the context in use would stand beside the old one where their
    keys are of two kinds, such as RSA and ECDSA, and clients would go on to choose the old one.

    Args:
        listening: in use, with the files as they are now.
        certificate: as of `context_of`.
        key: likewise.
    """
    paths = (certificate, *filter(None, [key]))

    def digest() -> bytes:
        return hashlib.sha256(b"".join(read_input(path, LARGEST_PEM) for path in paths)).digest()

    def use(context: ssl.SSLContext) -> None:
        def show(connection: ssl.SSLObject, _name: str | None, _: ssl.SSLContext) -> None:
            connection.context = context

        listening.sni_callback = show  # called also where a client names no server

    return Watched(paths, lambda: (digest(), context_of(certificate, key)), use, digest())
