"""Photograph a report, for the README: needs Chromium.

python docs/picture.py demo/report.html    writes docs/report.webp
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

PICTURE = Path(__file__).with_name("report.webp")
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
WIDTH, HEIGHT = 1000, 1480  # to the end of the learning curves


def photograph(report: Path, output: Path) -> None:
    """Write the top of a page as a picture.

    Raises:
        SystemExit: there is no browser, or it failed.
    """
    browser = next((path for name in NAMES if (path := shutil.which(name))), None)
    if browser is None:
        raise SystemExit(f"no browser; one of {', '.join(NAMES)} has to be on the PATH")
    with tempfile.TemporaryDirectory() as folder:
        shot = Path(folder) / "shot.png"
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        flags += [f"--user-data-dir={folder}/profile", f"--window-size={WIDTH},{HEIGHT}"]
        command = [browser, *flags, f"--screenshot={shot}", report.resolve().as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        if not shot.is_file():
            raise SystemExit(done.stderr)
        Image.open(shot).convert("RGB").save(output, quality=85)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    photograph(Path(sys.argv[1]), PICTURE)
