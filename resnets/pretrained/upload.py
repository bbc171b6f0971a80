"""Upload of a folder to the hub of Hugging Face, by its own library."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from resnets.errors import ContentError, UsageError, require
from resnets.pretrained.files import is_offline
from resnets.pretrained.hub import hub_endpoint, status_of
from resnets.pretrained.reference import read_reference
from resnets.run_files import REPORT

_PREFIX = "hf-hub:"
_OPTIONAL = (REPORT, "model.onnx")  # not in every folder that is uploaded


def repository_of(word: str) -> str:
    """OWNER/NAME of a repository on the hub, also written hf-hub:OWNER/NAME.

    Raises:
        UsageError: it is written otherwise.

    >>> repository_of("hf-hub:ann/ants-and-bees")
    'ann/ants-and-bees'
    """
    try:
        reference = read_reference(_PREFIX + word.removeprefix(_PREFIX))
    except UsageError:
        raise UsageError(f"{word}: no repository of the hub; write it as OWNER/NAME") from None
    if reference.revision:
        raise UsageError(f"{word}: name the branch with --revision {reference.revision}")
    return reference.name


def refuse_without_token() -> None:
    """Refuse to upload where that cannot succeed, before any work.

    Raises:
        MissingExtra: huggingface_hub is not installed.
        UsageError: transfers are switched off, or there is no token.
    """
    hub: Any = require("huggingface_hub", "pretrained")
    if is_offline():
        raise UsageError("transfers are switched off (HF_HUB_OFFLINE, TRANSFORMERS_OFFLINE)")
    if not hub.get_token():
        raise UsageError(
            "no token: give one of yours that may write in HF_TOKEN, or `hf auth login`"
        )


def make_repository(
    repository: str, *, private: bool, branch: str | None, pull_request: bool
) -> None:
    """Make a repository and a branch, unless they are there: whether one may write shows here.

    Args:
        repository: OWNER/NAME.
        private: whether a new repository is private; one that is public is refused.
        branch: a branch to make too; None: none.
        pull_request: whether the right to propose a commit is enough.

    Raises:
        UsageError: the hub does not know the token, or this user may not write there.
        ContentError: the hub is not reached, or fails.
    """
    hub: Any = require("huggingface_hub", "pretrained")
    endpoint = hub_endpoint()
    api = hub.HfApi(endpoint=endpoint)
    with _explaining(repository, endpoint):
        api.create_repo(repository, private=private or None, exist_ok=True)
        _check_right(api, repository, pull_request)  # create_repo does not, of one that is there
        if private and not api.model_info(repository).private:
            raise UsageError(
                f"{repository} is there already and public; --private makes new repositories "
                f"private only: change it at {endpoint}/{repository}/settings"
            )
        if branch:
            api.create_branch(repository, branch=branch, exist_ok=True)


def _check_right(api: Any, repository: str, pull_request: bool) -> None:
    """Have the hub refuse who may not write; a mirror that cannot tell (404) refuses nobody."""
    errors: Any = require("huggingface_hub.errors", "pretrained")
    try:
        if pull_request:
            api.whoami()
        else:
            api.auth_check(repository, write=True)
    except errors.HfHubHTTPError as error:
        if status_of(error) != 404:
            raise


def upload(folder: Path, repository: str, *, revision: str | None, pull_request: bool) -> str:
    """Upload a folder in one commit to a repository that `make_repository` has made.

    Args:
        folder: what is in it takes the place of files of the same names. A report or an ONNX file
            of an earlier network is deleted where it has none.
        repository: OWNER/NAME.
        revision: the branch; None is the main one.
        pull_request: propose the commit, in place of making it.

    Returns:
        The address of the commit or pull request.

    Raises:
        UsageError: this user may not write there, or the hub refuses what is given.
        ContentError: the hub is not reached, or fails.
    """
    hub: Any = require("huggingface_hub", "pretrained")
    utils: Any = require("huggingface_hub.utils", "pretrained")
    utils.logging.set_verbosity_error()  # what goes wrong is told by this package
    if not sys.stderr.isatty():
        utils.disable_progress_bars()
    endpoint = hub_endpoint()
    with _explaining(repository, endpoint):
        commit = hub.HfApi(endpoint=endpoint).upload_folder(
            repo_id=repository,
            folder_path=folder,
            revision=revision,
            create_pr=pull_request,
            delete_patterns=list(_OPTIONAL),
            commit_message="Written by resnets push",
        )
    return str(commit.pr_url or commit.commit_url)


@contextmanager
def _explaining(repository: str, endpoint: str) -> Iterator[None]:
    """Tell errors of requests in words of this package."""
    try:
        yield
    except UsageError:
        raise
    except Exception as error:  # of the HTTP client, which is another in each version
        if not _is_of_transfer(error):
            raise
        raise _explained(error, repository, endpoint) from None


def _is_of_transfer(error: Exception) -> bool:
    """Whether the hub or the way to it is to blame, and not the code."""
    errors: Any = require("huggingface_hub.errors", "pretrained")
    of_http = errors.HfHubHTTPError.__bases__  # those of the HTTP client, and OSError
    return isinstance(error, (*of_http, ValueError, RuntimeError))  # refusals; broken transfers


def _explained(error: Exception, repository: str, endpoint: str) -> Exception:
    """The error of a request in words of this package."""
    status = status_of(error)
    if status == 401:
        return UsageError(
            f"{repository}: {endpoint} does not know the token in HF_TOKEN (401); make one that "
            f"may write at {endpoint}/settings/tokens"
        )
    if status == 403:
        return UsageError(
            f"{repository}: the token may not write there (403); make one with the right to write "
            f"at {endpoint}/settings/tokens, or name a repository of your own"
        )
    if isinstance(error, ValueError) or status in (400, 404, 409, 422):
        reason = " ".join(str(error).split())
        return UsageError(f"{repository}: {endpoint} refuses it: {reason}")
    if status is not None:
        return ContentError(f"{repository}: {endpoint} answers with an error: {status}; try again")
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return error
    reason = " ".join(str(error.__cause__ or error).split()) or type(error).__name__
    return ContentError(f"{repository}: {endpoint} is not reached, or broke off ({reason})")
