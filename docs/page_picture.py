"""Photograph the page of `resnets serve`, for the README: needs Playwright and Chromium.

python docs/page_picture.py    writes docs/page.webp
"""

import io
import shutil
import threading
import time
from pathlib import Path

import uvicorn
from PIL import Image
from playwright.sync_api import sync_playwright

from resnets.serving.app import create_app
from resnets.serving.example_images import example_images
from resnets.serving.served_model import open_served
from resnets.serving.server import address_of, listening
from resnets.serving.settings import Settings

PICTURE = Path(__file__).with_name("page.webp")
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
WIDTH, HEIGHT = 1180, 1010
NETWORK = "resnet20_cifar10"
FLAGS = ("--no-sandbox", "--disable-gpu", "--hide-scrollbars")


def photograph(address: str, browser_path: str) -> bytes:
    """A PNG of the page with the drawings of the demo answered, one of them selected."""
    files = [
        {"name": name, "mimeType": "image/png", "buffer": content}
        for name, content in example_images().items()
    ]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=FLAGS)
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        page.goto(address)
        page.wait_for_selector("html[data-ready]")
        page.set_input_files("#choose", files)
        page.wait_for_selector(f"#progress-text:text('{len(files)} of {len(files)}')")
        page.wait_for_selector("#detail .overlay")
        page.wait_for_timeout(500)  # milliseconds, in which the bars grow
        shot = page.screenshot()
        browser.close()
        return shot


def main() -> None:
    """Serve the packaged network on a free port, and write the picture.

    Raises:
        SystemExit: there is no browser.
    """
    browser = next((path for name in NAMES if (path := shutil.which(name))), None)
    if browser is None:
        raise SystemExit(f"no browser; one of {', '.join(NAMES)} has to be on the PATH")
    settings = Settings(port=0)
    model = open_served(Path(NETWORK), engine="torch", max_batch=4)
    app = create_app({model.name: model}, settings)
    with listening(settings) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_config=None))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            while not server.started:
                time.sleep(0.05)
            shot = photograph(f"{address_of(listener)}/", browser)
        finally:
            server.should_exit = True
            thread.join()
    Image.open(io.BytesIO(shot)).convert("RGB").save(PICTURE, quality=85)


if __name__ == "__main__":
    main()
