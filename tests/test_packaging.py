"""What ships around the code: the sdist, the bounds of dependencies, the repository's forms."""

import os
import re
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
SCHEMAS = {
    "CITATION.cff": "citation-file-format",
    ".github/workflows/*.yml": "github-workflows",
    ".github/ISSUE_TEMPLATE/[!c]*.yml": "github-issue-forms",
    ".github/ISSUE_TEMPLATE/config.yml": "github-issue-config",
}


def tracked() -> set[str]:
    """The files that git keeps here; skips the test outside a checkout."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout")
    command = ["git", "-C", str(ROOT), "ls-files"]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    if done.returncode:
        pytest.skip("git cannot list the files of this checkout")
    return set(done.stdout.splitlines())


def test_the_extra_all_holds_every_extra_that_is_for_users() -> None:
    extras = PROJECT["optional-dependencies"]
    (everything,) = extras["all"]
    held = set(everything.removeprefix("resnets[").removesuffix("]").split(","))
    assert held == set(extras) - {"all", "docs", "test"}
    assert {"mlflow", "tensorboard", "wandb"} <= held
    assert "--log-to" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_sdist_has_every_file_of_the_repository(tmp_path: Path) -> None:
    files = {name for name in tracked() if (ROOT / name).exists()}
    command = [sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (path,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}
    assert files - packed == set()
    assert not any("__pycache__" in name for name in packed)


def names(requirements: list[str]) -> dict[str, str]:
    """The lower bound of each requirement."""
    matches = (re.match(r"([\w.-]+)>=([\d.]+)( *;.*)?$", text) for text in requirements)
    return {match[1].lower(): match[2] for match in matches if match}


def version(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", text))


def test_the_lock_has_every_dependency_at_or_above_its_bound() -> None:
    locked = dict(line.lower().replace("_", "-").split("==") for line in LOCK)
    optional = PROJECT["optional-dependencies"]
    wanted = names([*PROJECT["dependencies"], *optional["test"], *optional["onnx"]])
    assert len(wanted) > 15
    for name, bound in wanted.items():
        assert version(locked[name.replace("_", "-")]) >= version(bound), name


@pytest.mark.parametrize("pattern", SCHEMAS)
def test_what_the_hosting_site_reads_keeps_to_its_schema(pattern: str) -> None:
    pytest.importorskip("check_jsonschema")
    files = [str(path) for path in sorted(ROOT.glob(pattern))]
    assert files
    command = [sys.executable, "-m", "check_jsonschema", *files]
    command += ["--builtin-schema", f"vendor.{SCHEMAS[pattern]}"]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stdout


def test_the_citation_has_the_version_and_the_licence_of_the_package() -> None:
    lines = (ROOT / "CITATION.cff").read_text(encoding="utf-8").splitlines()
    assert f"version: {PROJECT['version']}" in lines
    assert f"license: {PROJECT['license']}" in lines


@pytest.mark.skipif(os.name == "nt", reason="make may not be there")
def test_the_workflows_and_ci_call_only_targets_that_there_are() -> None:
    files = [ROOT / ".ci" / "run", *(ROOT / ".github" / "workflows").glob("*.yml")]
    text = "\n".join(path.read_text(encoding="utf-8") for path in files)
    called = set(re.findall(r"^(?:\s*- run: )?make ([a-z]+)", text, re.MULTILINE))
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert {"test", "demo", "package"} <= called
    assert called <= set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
