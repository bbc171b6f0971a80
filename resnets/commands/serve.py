"""``resnets serve``: networks behind HTTP."""

import inspect
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import urlsplit

import tyro

from resnets.commands import run
from resnets.deployment.engines import EngineName
from resnets.errors import UsageError, require
from resnets.escaping import say, say_text
from resnets.files.reading import regular
from resnets.format import bytes_of
from resnets.interrupting import ended_by_sigterm
from resnets.machine import cores

if TYPE_CHECKING:
    from resnets.serving.access import Access
    from resnets.serving.serving import Serving
    from resnets.serving.settings import Settings

_MODULES = ("starlette", "uvicorn", "httptools", "python_multipart", "prometheus_client", "yaml")
_OF_PLACE = ("host", "port", "api_key", "allow_host", "shadow", "print_")  # others elsewhere

Target = Literal["systemd", "compose", "kubernetes", "kserve"]


def main(argv: list[str]) -> int:
    """Run ``resnets serve`` with ``argv``."""
    with ended_by_sigterm():
        return run(serve, argv, config=(tyro.conf.FlagCreatePairsOff,))


@dataclass(frozen=True)
class _Limits:
    """Limits of a server.

    Attributes:
        max_batch: most images in a batch, which are computed together: requests that come at the
            same time share one. 0: the fastest, measured at the start.
        queue: images that may be in the server at once, and in one request; requests beyond are
            answered 503 at once.
        timeout: seconds after which a request is given up; a client may ask for less in the header
            X-Request-Timeout.
        max_body: largest body of a request, such as 20MB; a number alone is in MiB.
        max_pixels: largest image, in megapixels.
        grace: seconds to finish what is in flight when the server is asked to stop.
        collect_mb: largest size of the folder of --collect, in MiB.
    """

    max_batch: int = 0
    queue: int = 256
    timeout: float = 30.0
    max_body: str = "32MiB"
    max_pixels: int = 128
    grace: float = 30.0
    collect_mb: int = 1000


@dataclass(frozen=True)
class _Callers:
    """Who may ask, and how.

    Attributes:
        rate: most requests of a key, or of an address, such as 10/s, 600/m or 1000/h (without a
            letter, a second); 429 beyond. Requests with a wrong key count for their address.
        allow_host: further host names by which this server may be called, or '*'. IP addresses and
            localhost may always; with --api-key, any name.
        cors: origins of other sites whose pages may ask, such as https://example.org.
        tls_certificate: PEM file of the certificate chain, for https.
        tls_key: PEM file of its private key.
        root_path: path under which a proxy offers this server, such as /resnets; the proxy may take
            it away from the requests that it passes on, or leave it.
        control: let programs on this machine, or with a key, load and unload models.
        no_access_log: write no line for each request; faults and changed files still have theirs.
    """

    rate: str = ""
    allow_host: tuple[str, ...] = ()
    cors: tuple[str, ...] = ()
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    root_path: str = ""
    control: bool = False
    no_access_log: bool = False


def serve(
    models: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="MODEL ...")],
    /,
    host: str = "127.0.0.1",
    port: int = 8000,
    engine: Annotated[EngineName, tyro.conf.arg(metavar="ENGINE")] = "auto",
    threads: int = 0,
    workers: int = 1,
    api_key: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None,
    collect: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None,
    shadow: Annotated[Path | None, tyro.conf.arg(metavar="MODEL")] = None,
    print_: Annotated[Target | None, tyro.conf.arg(name="print")] = None,
    *,
    limits: tyro.conf.OmitArgPrefixes[_Limits],
    callers: tyro.conf.OmitArgPrefixes[_Callers],
) -> int:
    """Answer images over HTTP, with calibrated probabilities and the status of `resnets predict`.

        resnets serve resnet20_cifar10
        curl --data-binary @photo.jpg http://127.0.0.1:8000/predict

    A page for people is at http://127.0.0.1:8000/. It stops on Ctrl-C or SIGTERM, once what is in
    flight is answered.

    Args:
        models: model files, exported files (.onnx, .xml), folders of runs or networks by name.
            The first one answers where a request names none (?model=NAME).
        host: address to listen on; the default is reached from this machine only.
        port: port to listen on; 0 takes a free one.
        engine: what computes: onnxruntime, openvino, torch, on a GPU onnxruntime-cuda and others;
            auto takes the fastest.
        threads: number of threads that compute; 0: the engine's own choice.
        workers: processes that share the port, each with the same limits.
        api_key: file of keys, one a line, of which each request must send one as the header
            Authorization: Bearer KEY, or X-API-Key. Only the paths of /v2/health, the page itself
            and /docs need none.
        collect: folder for images that users label on the page; `resnets train` reads it.
        shadow: another model, which answers images too, afterwards and only while the server has
            time to spare; it skips the rest. /metrics has how well they agree, and how many were
            skipped.
        print_: print a file that runs this server elsewhere, and stop: a unit of systemd, or YAML
            for Docker Compose, Kubernetes or KServe.
        limits: limits of a server.
        callers: who may ask, and how.
    """
    for module in _MODULES:
        require(module, "serve")
    from resnets.serving.serving import Serving

    if not models:
        raise UsageError("no model given: name a model file, an exported file or a run")
    own: dict[str, Any] = {"engine": engine, "threads": threads, "workers": workers}
    own |= {"collect": collect, "shadow": shadow}
    settings = _settings(host, port, limits, callers, collect, workers)
    access = _access(api_key, callers)
    _refuse_several(workers, control=callers.control, collect=collect is not None)
    if print_ is not None:
        flags = _flags_of(own | asdict(limits) | asdict(callers))
        _print(print_, models, flags, settings, callers.allow_host, api_key, shadow)
        return 0
    _warn_of_others(host, api_key)
    _warn_of_rates(workers, callers.rate)
    if settings.tls_certificate is not None:
        from resnets.serving.tls import context_of

        context_of(settings.tls_certificate, settings.tls_key)  # refuses what cannot be used
    threads = threads or (max(1, cores() // workers) if workers > 1 else 0)
    _run(Serving(models, engine, threads, settings, access, shadow), workers, settings)
    return 0


def _settings(
    host: str, port: int, limits: _Limits, callers: _Callers, collect: Path | None, workers: int
) -> "Settings":
    """The settings of the server, in its units."""
    from resnets.serving.settings import Settings

    return Settings(
        host=host,
        port=port,
        max_batch=limits.max_batch,
        queue=limits.queue,
        timeout=limits.timeout,
        max_body=_body_bytes(limits.max_body),
        max_pixels=limits.max_pixels * 1_000_000,
        grace=limits.grace,
        collect=collect,
        collect_mb=limits.collect_mb,
        workers=workers,
        root_path=callers.root_path,
        control=callers.control,
        access_log=not callers.no_access_log,
        tls_certificate=_pem(callers.tls_certificate),
        tls_key=_pem(callers.tls_key),
    )


def _body_bytes(size: str) -> int:
    """The bytes of --max-body; a number without a unit is in MiB, as in earlier versions.

    >>> _body_bytes("20MB"), _body_bytes("32")
    (20000000, 33554432)

    Raises:
        UsageError: it is no size.
    """
    try:
        return bytes_of(f"{size}MiB" if size.strip().isdecimal() else size)
    except UsageError as error:
        raise UsageError(f"--max-body {error}") from None


def _access(api_key: Path | None, callers: _Callers) -> "Access":
    """Who may ask."""
    from resnets.serving.access import Access, Keys, Rate, check_hosts, check_origins, parse_rate

    return Access(
        hosts=check_hosts(callers.allow_host),
        origins=check_origins(callers.cors),
        keys=Keys() if api_key is None else Keys.of_file(api_key),
        rate=Rate(parse_rate(callers.rate)) if callers.rate else None,
    )


def _print(
    target: Target,
    models: Sequence[Path],
    flags: Sequence[str],
    settings: "Settings",
    allowed_hosts: Sequence[str],
    api_key: Path | None,
    shadow: Path | None,
) -> None:
    """Print the file that runs the server elsewhere.

    Raises:
        UsageError: nobody would know where that server listens.
    """
    if settings.port == 0:
        raise UsageError(
            f"--print {target}: --port 0 takes a port that nobody knows there; give one, such as "
            "--port 8000"
        )
    from resnets.model_path import find_model
    from resnets.serving.deployment_files import Deployment, deployment_file

    deployment = Deployment(
        [find_model(path) for path in models],
        flags,
        settings,
        api_key,
        allowed_hosts=allowed_hosts,
        shadow=shadow and find_model(shadow),
    )
    say_text(deployment_file(target, deployment).rstrip("\n"))


def _refuse_several(workers: int, *, control: bool, collect: bool) -> None:
    """Refuse several processes with flags that need one."""
    for flag, folder in (("--control", control), ("--collect", collect)):
        if folder and workers > 1:
            raise UsageError(f"{flag} needs one process: leave out --workers")


def _warn_of_others(host: str, api_key: Path | None) -> None:
    """Say that other machines may ask, where they need no key."""
    from resnets.serving.access import is_loopback

    if not is_loopback(host) and api_key is None:
        say(
            f"warning: --host {host} lets other machines ask, and no key is needed; --api-key FILE "
            "asks for one",
            file=sys.stderr,
        )


def _warn_of_rates(workers: int, rate: str) -> None:
    """Say that each process counts for itself."""
    if rate and workers > 1:
        say(
            f"warning: each of the {workers} processes allows --rate {rate}, so that a caller with "
            f"several connections may get {workers} times as much",
            file=sys.stderr,
        )


def _run(serving: "Serving", workers: int, settings: "Settings") -> None:
    """Serve until the process is told to stop."""
    from resnets.deployment.engines.opening import why_torch
    from resnets.serving.readiness import tell_ready
    from resnets.serving.server import address_of, is_every_address, listening
    from resnets.serving.workers import serve_by_workers

    serving.check()
    every = is_every_address(settings.host)

    def started(address: str) -> None:
        for path in serving.paths if serving.engine == "auto" else ():
            if why := why_torch(path):
                say(f"{path}: computed by {why}", file=sys.stderr)
        more = f" and on port {urlsplit(address).port} of all other addresses of this machine"
        say(f"serving on {address}{more if every else ''}", file=sys.stderr)
        tell_ready(os.environ)

    if workers == 1:
        serving.in_this_process(started)
        return
    with closing(listening(settings)) as listener:
        address = address_of(listener, "https" if settings.tls_certificate else "http")
        serve_by_workers(serving, workers, listener, settings.grace, lambda: started(address))


def _pem(path: Path | None) -> Path | None:
    """A file of TLS, which must exist."""
    from resnets.serving.tls import LARGEST_PEM

    try:
        return path and regular(path, LARGEST_PEM)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}") from None


def _flags_of(values: Mapping[str, Any]) -> list[str]:
    """The words of the flags with values that are not the defaults, but for those of a place.

    >>> _flags_of({"engine": "auto", "workers": 2, "control": True, "allow_host": ("a",)})
    ['--workers', '2', '--control']
    """
    defaults = asdict(_Limits()) | asdict(_Callers())
    defaults |= {
        name: parameter.default for name, parameter in inspect.signature(serve).parameters.items()
    }
    words: list[str] = []
    for name, value in values.items():
        if name in _OF_PLACE or value == defaults[name]:
            continue
        if isinstance(value, Path):
            value = value.absolute()  # what is printed runs in another folder
        if isinstance(value, float):
            value = str(value).removesuffix(".0")  # as people write it
        several = [*map(str, value)] if isinstance(value, tuple) else [str(value)]
        words += [f"--{name.replace('_', '-')}", *([] if value is True else several)]
    return words
