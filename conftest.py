import atexit
import io
import os
import shutil
import tempfile

import pytest
from hypothesis import HealthCheck, settings
from PIL import Image

# No example has a deadline: how long one takes says more of the machine than of the code. And every
# run has the same examples, so that a test fails because of a change and not of its day; to look
# for new ones: pytest --hypothesis-profile search
settings.register_profile("search", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("same", settings.get_profile("search"), derandomize=True)
settings.load_profile("same")

# No test sees the networks that its user has in the caches of other libraries.
os.environ["HF_HOME"] = os.environ["TORCH_HOME"] = tempfile.mkdtemp(prefix="resnets-no-cache-")
os.environ.pop("HF_HUB_CACHE", None)
atexit.register(shutil.rmtree, os.environ["HF_HOME"], ignore_errors=True)

collect_ignore_glob = [
    "tests/fixtures/*/make.py",
    "tests/fixtures/make_*.py",
]  # they need other projects' packages


@pytest.fixture(autouse=True)
def examples(request: pytest.FixtureRequest) -> None:
    """Give the docstrings' examples a folder of their own and a PNG of 3 x 2 red pixels."""
    if not isinstance(request.node, pytest.DoctestItem):
        return  # thousands of tests that need no folder
    content = io.BytesIO()
    Image.new("RGB", (3, 2), "red").save(content, "PNG")
    names = {"tmp": request.getfixturevalue("tmp_path"), "png": content.getvalue()}
    request.getfixturevalue("doctest_namespace").update(names)
