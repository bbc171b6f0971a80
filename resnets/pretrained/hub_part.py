"""Large files of the hub, downloaded in several attempts (see docs/decisions.md).

huggingface_hub goes on where a connection broke off, but only within one call: what it has is
removed when that ends, so the next attempt begins anew.
"""

import os
import re

from resnets.errors import ContentError, require
from resnets.files.writing import open_updating
from resnets.pretrained.files import hub_folder, sha256


def download_part(
    repository: str, name: str, revision: str, endpoint: str, patience: float
) -> None:
    """Download a file of the hub's store for large ones to where huggingface_hub looks for it.

    What has come stays there if this is interrupted, and the next call goes on from its end. Does
    nothing where the file is there already, or where the hub keeps it elsewhere.

    Args:
        repository: OWNER/NAME.
        name: of the file.
        revision: commit, branch or tag.
        endpoint: address of the hub.
        patience: seconds until it says what it has.

    Raises:
        ContentError: what came is not what was published; it is removed.
        Exception: of huggingface_hub and its HTTP client, if the file does not come.
    """
    hub = require("huggingface_hub", "pretrained")
    files = require("huggingface_hub.file_download", "pretrained")
    utils = require("huggingface_hub.utils", "pretrained")
    url = hub.hf_hub_url(repository, name, revision=revision, endpoint=endpoint)
    facts = hub.get_hf_file_metadata(url, timeout=patience, endpoint=endpoint)
    published = facts.etag or ""
    if not re.fullmatch("[0-9a-f]{64}", published):  # a small file: git's name of it is shorter
        return
    folder = hub_folder() / files.repo_folder_name(repo_id=repository, repo_type="model")
    blob = folder / "blobs" / published
    # the lock that the library takes, too
    lock = hub_folder() / ".locks" / folder.name / f"{published}.lock"
    for parent in (blob.parent, lock.parent):
        parent.mkdir(parents=True, exist_ok=True)
    with utils.WeakFileLock(lock):
        if blob.exists():
            return
        part = blob.with_name(f"{published}.incomplete")
        with open_updating(part) as file:
            if facts.size is not None and file.seek(0, os.SEEK_END) > facts.size:
                file.truncate(0)  # two processes wrote to it, where locks do nothing
            files.http_get(
                url,
                file,
                resume_size=file.seek(0, os.SEEK_END),
                headers=utils.build_hf_headers(),
                expected_size=facts.size,
                displayed_filename=name,
            )
        if sha256(part) != published:
            part.unlink()
            raise ContentError(
                f"{repository}: what came of {name} is damaged: its SHA-256 is not that which the "
                "hub published; nothing was kept, try again"
            )
        part.replace(blob)
