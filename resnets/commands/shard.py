"""``resnets shard``: images in a few large files, for training from any storage."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import tyro

from resnets.addresses import AS_SHARDS, is_remote, refuse_address
from resnets.commands import run
from resnets.commands.flags import Cache
from resnets.commands.notices import print_notices
from resnets.commands.progress import progress_bar
from resnets.errors import Advice, UsageError
from resnets.escaping import say
from resnets.format import byte_size, plural
from resnets.interrupting import Signalled, signals_raise


def main(argv: list[str]) -> int:
    """Run ``resnets shard`` with ``argv``."""
    return run(shard, argv, config=(tyro.conf.FlagCreatePairsOff,))


def shard(
    data: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="DATA")],
    /,
    output: Annotated[str, tyro.conf.arg(metavar="PLACE")],
    size: int = 256,
    quality: int = 90,
    shard_mb: int = 256,
    skip_unreadable: bool = False,
    workers: int | None = None,
    class_level: int | None = None,
    train_folder: str | None = None,
    validation_folder: str | None = None,
    test_folder: str | None = None,
    cache: Cache = None,
    overwrite: bool = False,
) -> None:
    """Write images as shards: a few large tar files and an index, quick to copy and to read.

    All commands take the folder of shards as DATA. Its splits are those of DATA, and networks that
    were trained on one know the images of the other. The tar files are WebDataset's. A run that was
    stopped goes on where it was; shards that are complete are kept.

    Args:
        data: whatever `resnets train` takes.
        output: folder to write to, or an address such as s3://bucket/shards.
        size: pixels of the shorter side, to which larger images are resized; JPEG and PNG that fit
            are copied byte by byte.
        quality: quality of JPEG, 1 to 100.
        shard_mb: size of a tar file, about, in MB.
        skip_unreadable: leave out images that cannot be read; skipped.csv beside the index lists
            them and why.
        workers: processes that read, resize and write (default: one per core).
        class_level: which folders are the classes, as for `resnets train`.
        train_folder: folder of the training images, as for `resnets train`.
        validation_folder: folder of the validation images.
        test_folder: folder of the test images.
        cache: for DATA at an address, how much of it to keep on the local disk, such as 50GB.
        overwrite: replace shards of other data that PLACE holds.
    """
    from resnets.data.places import folder_at
    from resnets.data.processes import worker_count
    from resnets.data.sharding import Settings, write_shards
    from resnets.data.skipped_images import SKIPPED
    from resnets.data.sources.checks import check_names
    from resnets.data.sources.layout import layout_of_flags
    from resnets.data.sources.opening import read_source, source_name, with_cache
    from resnets.files.outputs import writable_folder

    settings = Settings(size, quality, shard_mb)
    folder = folder_at(output)
    if is_remote(output):
        folder.names()  # a place that takes no files is found before any work
    else:
        refuse_address(output, AS_SHARDS)
        writable_folder(Path(output))
        _refuse_inside(Path(output), Path(data))
    split_folders = {"train": train_folder, "validation": validation_folder, "test": test_folder}
    content = read_source(
        with_cache(data, cache), layout_of_flags(class_level, split_folders, None)
    )
    check_names(source_name(data, content), content.class_names)
    print_notices(content.warnings, (), machine=True)
    with _resumable(output), progress_bar(sum(map(len, content.images.values()))) as progress:
        written = write_shards(
            content,
            folder,
            settings,
            workers=worker_count(workers),
            skip_unreadable=skip_unreadable,
            progress=progress,
            overwrite=overwrite,
        )
    print_notices((), written.skipped, machine=True)
    if written.left_out:
        known = written.left_out - len(written.skipped)
        some = f" ({known:,} of them before)" if known else ""
        before = " before" if known == written.left_out else some
        listed = f"; listed in {folder.address}/{SKIPPED}" if written.skipped else ""
        say(
            f"{plural(written.left_out, 'unreadable image')} left out{before}{listed}",
            file=sys.stderr,
        )
    if written.gone:
        gone = plural(written.gone, "image")
        say(f"{gone} of the shards that were there before: not in DATA any more", file=sys.stderr)
    shards = written.about.shards
    images, size_in_bytes = sum(each.images for each in shards), sum(each.bytes for each in shards)
    kept = f" ({written.kept:,} kept)" if written.kept else ""
    say(
        f"{output}: {plural(images, 'image')} in {plural(len(shards), 'shard')}, "
        f"{byte_size(size_in_bytes)}{kept}"
    )


@contextlib.contextmanager
def _resumable(output: str) -> Iterator[None]:
    """Say what Ctrl-C, another signal, or below its reason an error, leaves."""
    left = (
        f"{output}: stopped; shards that are complete stay, and the same command goes on from there"
    )
    try:
        with signals_raise():
            yield
    except UsageError:  # nothing was written
        raise
    except Signalled as stop:
        raise Signalled(stop.signal, left) from None
    except KeyboardInterrupt:
        raise KeyboardInterrupt(left) from None
    except Exception as error:
        error.add_note(Advice(left))
        raise


def _refuse_inside(output: Path, data: Path) -> None:
    """Refuse to write into the folder that is read, where the shards would be taken as data."""
    if data.is_dir() and output.resolve().is_relative_to(data.resolve()):
        raise UsageError(f"{output}: is inside of {data}, which is read; name a folder elsewhere")
