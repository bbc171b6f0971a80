"""Predictions on the machines of a Ray cluster: Ray Data hands images to workers with an engine.

The program that asks for them lists the images, writes the parts of `evaluation.parts`, and is the
only one that needs their folder; workers need the images and the model under the same paths. Ray
carries paths, and of images in shards their places, which workers read for themselves. Ray
Data starts workers while there is work, gives a lost one's images to another, and holds back where
rows are not taken fast enough.
"""

import os
import pickle
import platform
import socket
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resnets.addresses import why_unreachable
from resnets.data.places import LocalFolder
from resnets.data.shards import PlacedImages
from resnets.deployment.engines import EngineName, open_engine
from resnets.deployment.engines.selection import digest
from resnets.errors import ContentError, MissingExtra, UsageError, require
from resnets.evaluation.engine import Engine
from resnets.evaluation.parts import ROW, Part
from resnets.evaluation.predict import predict
from resnets.evaluation.prediction_table import tables_of
from resnets.evaluation.source import Source, StoredImage, to_send
from resnets.evaluation.statuses import engine_with_target
from resnets.evaluation.tta import with_tta
from resnets.format import plural
from resnets.images.stderr import silent_decoders
from resnets.interrupting import uninterrupted
from resnets.machine import cores

if TYPE_CHECKING:
    import pyarrow as pa

_SOURCES = "sources"  # column of what workers get: pickled images
_FAILURE = "failure"  # column of what workers return: why a block could not be predicted
_BATCHES = 8  # of images in a block, so that what a block costs Ray is little beside them
_LEAST_BLOCKS = 64  # into which images are divided rather than into whole batches
_ON_GPU = ("onnxruntime-cuda", "onnxruntime-tensorrt")  # engines, for which Ray counts GPUs
_PATIENCE = 10.0  # seconds for an answer
_SETTINGS, _HEADER = b"\x04", 9  # the kind of HTTP/2's first frame, and the length of its header
_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0" + _SETTINGS + bytes(5)  # RFC 9113, 3.4
_QUIET = {  # settings of Ray, where the user has set none: nothing is sent, and errors are told
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DATA_LOG_LEVEL": "ERROR",
}


@dataclass(frozen=True)
class WorkerTask:
    """What every worker computes with; values that can be sent.

    Attributes:
        folder: in which each works, so that paths mean the same, and are named alike in errors.
        file: of the network, under this path on every machine.
        file_digest: SHA-256 of it, which another file of that path does not have.
        engine: the runtime; not auto, which could choose another on each machine.
        threads: number of threads of each worker that compute, at least 1.
        max_error: target for the share of wrong predictions among those that are ok.
        tta: whether with test-time augmentation.
        top: how many classes are listed.
        batch_size: images computed at once.
        features: whether the features are wanted.
        schema: of the rows, as by `prediction_table.schema_of`.
    """

    folder: Path
    file: Path
    file_digest: str
    engine: EngineName
    threads: int
    max_error: float | None
    tta: bool
    top: int
    batch_size: int
    features: bool
    schema: "pa.Schema"

    def engine_of_worker(self) -> Engine:
        """The engine of a worker.

        Raises:
            UsageError: the file on this machine is another one.
        """
        if digest(self.file) != self.file_digest:
            raise UsageError(f"{self.file}: another file than where the command was started")
        engine = open_engine(self.file, self.engine, self.threads, measure=False)
        return with_tta(engine_with_target(engine, self.max_error), self.tta)


@contextmanager
def predicted_on_ray(
    task: WorkerTask,
    sources: Sequence[Source],
    parts: Sequence[Part],
    *,
    address: str | None = None,
    workers: int = 0,
) -> "Iterator[Iterator[pa.Table]]":
    """Have parts of a list of images predicted, for as long as the context lasts.

    Args:
        task: what each worker computes with.
        sources: all images, those of other parts included.
        parts: which of them are wanted.
        address: of a cluster; "local" starts one on this machine, which ends with the context.
            None: RAY_ADDRESS of the environment, else "local".
        workers: the most that run at once; 0: as many as the cluster has room for.

    Yields:
        Tables of consecutive rows, in any order, with the column `ROW`.

    Raises:
        MissingExtra: Ray is not installed.
        ConnectionError: nothing answers at the address.
        UsageError: there is no cluster at the address.
        ContentError: a worker cannot use the network or find the images, or Ray gave up.
    """
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    ray, ray_data = require("ray", "ray"), require("ray.data", "ray")
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", category=DeprecationWarning)  # Ray's, of its own names
        warnings.filterwarnings("ignore", category=FutureWarning, module="ray")
        stack.enter_context(_connected(ray, address))
        ray_data.DataContext.get_current().enable_progress_bars = False
        images = ray_data.from_arrow(list(_blocks(task, sources, parts)))
        rows = images.map_batches(
            _Worker,
            fn_constructor_args=(task,),
            compute=ray_data.ActorPoolStrategy(min_size=1, max_size=workers or None),
            batch_size=None,  # a block at a time
            batch_format="pyarrow",
            num_cpus=task.threads,
            num_gpus=int(task.engine in _ON_GPU),
        )
        try:
            yield _without_failures(rows.iter_batches(batch_size=None, batch_format="pyarrow"))
        except ray.exceptions.RayError as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
            raise ContentError(f"Ray gave up: {reason}") from error


@contextmanager
def _connected(ray: Any, address: str | None) -> Iterator[None]:
    """A connection to a cluster, or a cluster on this machine; an existing connection is used."""
    if ray.is_initialized():
        yield
        return
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    _refuse_dead(address)
    try:
        with uninterrupted():  # a half of Ray that is there ends the process by SIGSEGV, say
            _start(ray, address)
        yield
    finally:
        with uninterrupted():
            ray.shutdown()


def _start(ray: Any, address: str) -> None:
    """Connect to a cluster, or start one on this machine; as `predicted_on_ray`."""
    own = {"num_cpus": cores(), "include_dashboard": False} if address == "local" else {}
    try:
        ray.init(address, log_to_driver=False, logging_level="error", **own)
    except Exception as error:  # Ray raises what it likes, a bare Exception where time runs out
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        if own:
            raise ContentError(f"Ray does not start on this machine: {reason}") from error
        raise UsageError(
            f"address {address}: no Ray cluster is reached ({reason}); `ray start --head` starts "
            "one, local one on this machine for this command"
        ) from error


def _refuse_dead(address: str) -> None:
    """Refuse a host and port where nothing answers: Ray would try for minutes, in silence.

    Raises:
        ConnectionError: nothing answers.
    """
    scheme, _, rest = address.rpartition("://")
    host, _, port = rest.rpartition(":")
    if scheme not in ("", "ray") or not host or not port.isascii() or not port.isdecimal():
        return  # auto, local, or another kind, which Ray knows
    place = host.strip("[]"), int(port)
    if reason := why_unreachable(*place) or _why_no_ray(*place):
        raise ConnectionError(
            f"address {address}: no Ray cluster answers there ({reason}); `ray start --head` "
            "starts one, and prints its address"
        )


def _why_no_ray(host: str, port: int) -> str:
    """Why what listens at a port is no Ray, which speaks HTTP/2 there; empty if it may be one."""
    if os.environ.get("RAY_USE_TLS", "0") != "0":
        return ""  # it would not understand
    try:
        with socket.create_connection((host, port), timeout=_PATIENCE) as connection:
            connection.sendall(_GREETING)
            answer = connection.recv(_HEADER)
    except OSError as error:
        return str(error.strerror or error)
    return "" if answer[3:4] == _SETTINGS else "something else listens there"


def _blocks(
    task: WorkerTask, sources: Sequence[Source], parts: Sequence[Part]
) -> "Iterator[pa.Table]":
    """Tables of one row for a worker each: the number of the first image, and some images."""
    import pyarrow as pa

    size = _block_size(len(sources), task.batch_size)
    for part in parts:
        start, end = part.bounds(len(sources))
        for first in range(start, end, size):
            some = pickle.dumps(to_send(sources[first : min(first + size, end)]))
            yield pa.table({ROW: [first], _SOURCES: [some]})


def _block_size(total: int, batch_size: int) -> int:
    """Images that a worker gets at once: some whole batches, fewer where there are few images.

    >>> [_block_size(total, 32) for total in (1, 500, 2000, 100_000)]
    [1, 8, 32, 256]
    """
    even = -(-total // _LEAST_BLOCKS)
    if even < batch_size:
        return even
    return batch_size * min(_BATCHES, even // batch_size)


class _Worker:
    """Predicts blocks of images in one process, with an engine that is opened once.

    What it cannot do for a reason that a user can mend is a row, `_FAILURE`, and no exception: Ray
    would try again for ever, or print pages.
    """

    def __init__(self, task: WorkerTask) -> None:
        self._task = task
        self._engine: Engine | None = None
        with suppress(OSError):  # where all paths are absolute, it need not be there
            os.chdir(task.folder)

    def __call__(self, block: "pa.Table") -> "pa.Table":
        first: int = block[ROW][0].as_py()
        sources: list[Source] = pickle.loads(block[_SOURCES][0].as_py())  # noqa: S301  (from _blocks)
        try:
            return _numbered(self._predicted(sources), first)
        except (UsageError, ContentError, MissingExtra, OSError) as error:
            return _failed(self._task.schema, first, error)

    def _predicted(self, sources: Sequence[Source]) -> "pa.Table":
        """The rows of some images."""
        import pyarrow as pa

        _refuse_absent(sources)
        task = self._task
        if self._engine is None:
            self._engine = task.engine_of_worker()
        with silent_decoders():
            predictions = predict(
                self._engine,
                sources,
                top=task.top,
                batch_size=task.batch_size,
                features=task.features,
            )
            return pa.concat_tables(tables_of(predictions, task.schema))


def _refuse_absent(sources: Sequence[Source]) -> None:
    """Refuse images of which none is on this machine, where each would count as unreadable.

    Raises:
        UsageError: it says what every machine needs.
    """
    paths = [path for source in sources if (path := _file_of(source)) is not None]
    if paths and not any(path.exists() for path in paths):
        raise UsageError(
            f"{paths[0].absolute()}: not on this machine, nor {plural(len(paths) - 1, 'image')} "
            "after it: every machine needs the images under the same path"
        )


def _file_of(source: Source) -> Path | None:
    """The file that an image is read from, if it is to be on this machine."""
    content = source.content
    if isinstance(content, StoredImage) and isinstance(content.storage, PlacedImages):
        folder, place = content.storage.folder, content.storage.places[content.row]
        return folder.path / place.file if isinstance(folder, LocalFolder) else None
    return content if isinstance(content, Path) else None


def _numbered(rows: "pa.Table", first: int) -> "pa.Table":
    """Rows with their numbers, and no failure."""
    import pyarrow as pa

    numbers = pa.array(range(first, first + len(rows)), pa.int64())
    rows = rows.append_column(ROW, numbers)
    return rows.append_column(_FAILURE, pa.nulls(len(rows), pa.string()))


def _failed(schema: "pa.Schema", first: int, error: Exception) -> "pa.Table":
    """A row that stands for the failure of a block."""
    import pyarrow as pa

    row: dict[str, Any] = dict.fromkeys(schema.names)
    row |= {ROW: first, _FAILURE: f"{platform.node()}: {error}"}
    empty = schema.append(pa.field(ROW, pa.int64())).append(pa.field(_FAILURE, pa.string()))
    return pa.Table.from_pylist([row], empty)


def _without_failures(tables: "Iterator[pa.Table]") -> "Iterator[pa.Table]":
    """The tables without the column of failures.

    Raises:
        ContentError: the first failure, with the name of the machine.
    """
    for table in tables:
        if table[_FAILURE].null_count < len(table):
            raise ContentError(table[_FAILURE].drop_null()[0].as_py())
        yield table.drop_columns(_FAILURE)
