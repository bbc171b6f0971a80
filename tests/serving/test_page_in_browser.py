"""The page in Debian's Chromium: whoever uses it by mouse, keyboard or screen reader is served."""

import csv
import io
import json
import shutil
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image, ImageEnhance

import resnets
from resnets.evaluation.calibration import calibrate
from tests.serving.conftest import image_bytes
from tests.spread import spread

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = (
    *("--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--disable-gpu"),
)
MEASURE_SHIFTS = """
window.shifts = [];
new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) if (!entry.hadRecentInput) window.shifts.push(entry.value);
}).observe({ type: "layout-shift", buffered: true });
"""
WIDTHS = (320, 768, 1024, 1440)
WAIT = 20_000  # milliseconds, on the slowest machine
ENGINES: Mapping[str, Any] = {".safetensors": "torch", ".onnx": "onnxruntime"}
PACKAGED = Path(resnets.__file__).with_name("shipped") / "resnet20_cifar10.safetensors"
EXPORTED = Path(__file__).parents[1] / "fixtures" / "before_trust" / "digits.onnx"

pytestmark = pytest.mark.slow

Open = Callable[..., "Page"]


class LiveServer:
    """A server of models in this process, that can stop and start again on its port."""

    def __init__(self, collect: Path, collect_mb: int = 1000, **files: Path) -> None:
        from resnets.serving.server import listening
        from resnets.serving.settings import Settings

        self._files, self._collect = files, collect
        self._collect_mb = collect_mb
        with listening(Settings(port=0)) as free:
            self.port = free.getsockname()[1]
        self.start()

    def start(self) -> None:
        import uvicorn

        from resnets.serving.app import create_app
        from resnets.serving.served_model import open_served
        from resnets.serving.settings import Settings

        models = {
            name: open_served(file, name=name, engine=ENGINES[file.suffix], max_batch=4)
            for name, file in self._files.items()
        }
        app = create_app(models, Settings(collect=self._collect, collect_mb=self._collect_mb))
        self._server = uvicorn.Server(
            uvicorn.Config(app, port=self.port, log_config=None, timeout_graceful_shutdown=1)
        )
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        deadline = time.monotonic() + 20
        while not self._server.started and time.monotonic() < deadline:
            time.sleep(0.01)

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(20)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not CHROMIUM.exists():
        pytest.skip("there is no Chromium")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def server(model_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    pytest.importorskip("uvicorn", reason="the extra serve is not installed")
    live = LiveServer(tmp_path_factory.mktemp("collected"), tiny=model_file)
    yield live
    live.stop()


@pytest.fixture(scope="module")
def packaged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A server of a network that was trained, calibrated and evaluated."""
    pytest.importorskip("uvicorn", reason="the extra serve is not installed")
    live = LiveServer(tmp_path_factory.mktemp("collected"), cifar10=PACKAGED)
    yield live
    live.stop()


@pytest.fixture
def lonely(model_file: Path, tmp_path: Path) -> Iterator[LiveServer]:
    """A server in whose queue only the images of one test wait for a label."""
    pytest.importorskip("uvicorn", reason="the extra serve is not installed")
    live = LiveServer(tmp_path / "collected", tiny=model_file)
    yield live
    live.stop()


@pytest.fixture
def visit(browser: "Browser", server: LiveServer) -> Iterator[Open]:
    """Opens the page; what its policy forbids, and errors of its scripts, fail the test."""
    contexts, faults = [], []

    def visited(address: str = "", **options: Any) -> "Page":
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(WAIT)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on(
            "console",
            lambda message: "Security Policy" in message.text and faults.append(message.text),
        )
        page.add_init_script(MEASURE_SHIFTS)
        page.goto(address or server.url)
        page.wait_for_selector("html[data-ready]")
        return page

    yield visited
    for context in contexts:
        context.close()
    assert not faults


def images(count: int) -> list[dict[str, Any]]:
    return [
        {"name": f"{n}.png", "mimeType": "image/png", "buffer": image_bytes(40, seed=n)}
        for n in range(count)
    ]


def wait_for_answers(page: "Page", count: int) -> None:
    from playwright.sync_api import expect

    expect(page.locator("#gallery .tile")).to_have_count(count, timeout=WAIT)
    expect(page.locator("#gallery .waiting")).to_have_count(0, timeout=WAIT)


def wait_until(page: "Page", condition: Callable[[], bool]) -> None:
    """Wait until something holds, while the page goes on."""
    for _ in range(WAIT // 50):
        if condition():
            return
        page.wait_for_timeout(50)
    raise AssertionError("it does not come to hold")


def refuse_faults(page: "Page", parts: Any = None, **options: Any) -> None:
    """Nothing that axe finds, and no scrolling from side to side."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    options |= {"resultTypes": ["violations"]}  # the others take time
    assert axe.run(page, context=parts, options=options).response["violations"] == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_images_are_answered_filtered_and_saved(visit: Open, tmp_path: Path) -> None:
    page = visit()
    bad = {"name": "=1+1.png", "mimeType": "image/png", "buffer": image_bytes()[:80]}
    page.set_input_files("#choose", [*images(5), bad])
    wait_for_answers(page, 6)
    assert page.locator("#detail .bars li").count() == 3  # the classes of the network
    assert page.locator("#detail .title h2").inner_text() in ("cat", "dog", "owl")
    assert page.locator("#gallery .unreadable").count() == 1
    with page.expect_download() as download:
        page.click("#csv")
    download.value.save_as(tmp_path / "all.csv")
    with (tmp_path / "all.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == [*(f"{n}.png" for n in range(5)), "'=1+1.png"]
    assert sum(float(rows[0][f"probability{rank}"]) for rank in (1, 2, 3)) == pytest.approx(1)
    assert rows[0]["error"] == ""
    page.click("#gallery .tile:has(.unreadable)")
    assert rows[5]["reason"] == page.inner_text("#detail .says > p")
    page.click("#gallery .tile >> nth=0")
    assert rows[0]["reason"] == page.inner_text("#detail .says > p")
    wanted = page.locator("#detail .title h2").inner_text()
    page.select_option("#class-filter", wanted)
    visible = page.locator("#gallery li:visible .tile-class").all_inner_texts()
    assert set(visible) == {wanted}  # and the image that cannot be read has no class
    page.select_option("#class-filter", "")
    page.click("#status-filter label:has([value=unreadable])")
    assert page.locator("#gallery li:visible").count() == 5
    page.fill("#least", "100")
    assert page.locator("#none-shown").is_visible()
    assert page.locator("#detail").is_hidden()  # nothing is told of an image that is not shown
    page.fill("#least", "")  # before another number is typed
    assert page.locator("#detail").is_visible()
    page.fill("#most", "")
    assert page.locator("#gallery li:visible").count() == 5
    with page.expect_download() as download:
        page.click("#json")
    download.value.save_as(tmp_path / "shown.json")
    shown = json.loads((tmp_path / "shown.json").read_text(encoding="utf-8"))
    assert [row["reason"] for row in shown] == [row["reason"] for row in rows[:5]]
    page.click("#clear")
    assert page.locator("#welcome").is_visible()
    page.set_input_files("#choose", images(1))
    wait_for_answers(page, 1)
    assert page.inner_text("#progress-text") == "1 of 1 answered"


def test_pasted_and_dropped_images_are_answered(visit: Open) -> None:
    page = visit()
    send = """([event, bytes]) => {
      const transfer = new DataTransfer();
      transfer.items.add(new File([new Uint8Array(bytes)], "sent.png", { type: "image/png" }));
      document.dispatchEvent(event === "paste"
        ? new ClipboardEvent("paste", { clipboardData: transfer, bubbles: true })
        : new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true }));
    }"""
    for count, event in enumerate(("paste", "drop"), 1):
        page.evaluate(send, [event, list(image_bytes(seed=count))])
        wait_for_answers(page, count)


def test_an_image_of_the_clipboard_is_pasted_by_the_keyboard(visit: Open) -> None:
    page = visit()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    copy = """async (bytes) => navigator.clipboard.write([
      new ClipboardItem({ "image/png": new Blob([new Uint8Array(bytes)], { type: "image/png" }) }),
    ])"""
    page.evaluate(copy, list(image_bytes(40)))
    page.keyboard.press("Control+V")
    wait_for_answers(page, 1)
    assert page.locator("#gallery .unanswered").count() == 0


def test_a_hundred_images_are_answered_and_nothing_moves(visit: Open) -> None:
    page = visit()
    page.set_input_files("#choose", images(100))
    wait_for_answers(page, 100)
    assert page.locator("#gallery .unanswered").count() == 0
    assert sum(page.evaluate("window.shifts")) < 0.01


def test_a_slow_network_only_takes_longer_and_one_that_is_gone_is_waited_for(visit: Open) -> None:
    page = visit()
    network = page.context.new_cdp_session(page)
    network.send("Network.enable")

    def set_network(offline: bool, latency: int, rate: int) -> None:
        rates = {"downloadThroughput": rate, "uploadThroughput": rate}
        words = {"offline": offline, "latency": latency, **rates}
        network.send("Network.emulateNetworkConditions", words)

    set_network(False, 300, 50_000)  # milliseconds, bytes a second
    page.set_input_files("#choose", images(3))
    wait_for_answers(page, 3)
    assert page.locator("#gallery .unanswered").count() == 0
    set_network(True, 0, -1)
    page.set_input_files("#choose", images(1))
    page.wait_for_selector("#away", state="visible")
    set_network(False, 0, -1)
    wait_for_answers(page, 4)
    assert page.locator("#away").is_hidden()


def test_images_that_are_pasted_under_one_name_can_be_told_apart(visit: Open) -> None:
    page = visit()
    paste = """(bytes) => {
      const transfer = new DataTransfer();
      transfer.items.add(new File([new Uint8Array(bytes)], "image.png", { type: "image/png" }));
      const event = new ClipboardEvent("paste", { clipboardData: transfer, bubbles: true });
      document.dispatchEvent(event);
    }"""
    for count in range(1, 4):
        page.evaluate(paste, list(image_bytes(seed=count)))
        wait_for_answers(page, count)
    names = page.locator("#gallery .tile .hint").all_inner_texts()
    assert len({*names}) == 3
    assert all(name.startswith("image") and name.endswith(".png") for name in names)


def test_a_text_that_is_pasted_or_dropped_is_answered_in_words(visit: Open) -> None:
    page = visit(viewport={"width": 320, "height": 640})
    send = """(event) => {
      const transfer = new DataTransfer();
      transfer.setData("text/plain", "https://example.org/cat.jpg");
      document.body.dispatchEvent(event === "paste"
        ? new ClipboardEvent("paste", { clipboardData: transfer, bubbles: true })
        : new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true }));
    }"""
    for event in ("paste", "drop"):
        page.evaluate(send, event)
        page.wait_for_selector(f"#drop-note:text('{event}')")
    assert page.inner_text("#announcer") == page.inner_text("#drop-note")
    refuse_faults(page)
    page.set_input_files("#choose", images(1))
    wait_for_answers(page, 1)
    assert page.locator("#drop-note").is_hidden()


@pytest.mark.soak
def test_long_names_of_classes_are_told_in_full_and_never_cut_in_silence(
    visit: Open, untrained: Callable[..., Path], tmp_path: Path
) -> None:
    names = tuple(f"{letter}{' of a very long name' * 9}" for letter in "abc")
    live = LiveServer(tmp_path / "collected", tiny=untrained(names))
    try:
        page = visit(live.url)
        page.set_input_files("#choose", images(1))
        wait_for_answers(page, 1)
        bars = page.locator("#detail .bars li span:first-child").all()
        assert {bar.get_attribute("title") for bar in bars} == {*names}
        assert page.locator("#detail #undo").is_hidden()  # nothing is stored
        page.fill("#detail .wrong input", names[1] + " indeed")
        page.click("#detail .wrong button")
        page.wait_for_selector("#detail .wrong p:text('characters')")
        assert page.input_value("#detail .wrong input") == names[1] + " indeed"
    finally:
        live.stop()


def test_of_a_folder_that_is_dropped_the_images_are_answered(visit: Open, tmp_path: Path) -> None:
    for name in ("photos/a.png", "photos/below/b.png", "photos/.hidden.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_bytes(image_bytes(seed=len(name)))
    (tmp_path / "photos/notes.txt").write_text("none", encoding="utf-8")
    page = visit()
    drag = page.context.new_cdp_session(page)
    data = {"items": [], "files": [str(tmp_path / "photos")], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        event = {"type": kind, "x": 300, "y": 150, "data": data}
        drag.send("Input.dispatchDragEvent", event)
    wait_for_answers(page, 2)
    names = page.locator("#gallery .tile").all_inner_texts()
    assert [text.split()[-1] for text in names] == ["a.png", "b.png"]


def test_the_keyboard_is_enough(visit: Open, server: LiveServer) -> None:
    page = visit()
    choosers: list[Any] = []
    page.on("filechooser", lambda chooser: choosers.append(chooser))  # from now on, not in a race
    page.locator("body").press("Tab")  # to the tabs
    page.keyboard.press("ArrowRight")
    assert page.get_attribute("#tab-labels", "aria-selected") == "true"
    page.keyboard.press("End")
    assert page.get_attribute("#tab-model", "aria-selected") == "true"
    assert page.locator("#model .classes li").count() == 3
    page.keyboard.press("Home")
    page.keyboard.press("Tab")
    page.locator("#choose:focus").press("Enter")
    for _ in range(200):
        if choosers:
            break
        page.wait_for_timeout(50)
    choosers[0].set_files(images(3))
    wait_for_answers(page, 3)
    assert page.locator("#gallery-keys").is_visible()
    page.locator("#gallery .tile").first.focus()
    page.keyboard.press("ArrowRight")
    assert page.locator("[aria-current=true]").inner_text().endswith("1.png")
    page.keyboard.press("Tab")  # past the other images
    assert page.evaluate("document.activeElement.id") == "csv"
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Home")
    assert page.locator("[aria-current=true]").inner_text().endswith("0.png")
    page.keyboard.press("End")
    assert page.locator("[aria-current=true]").inner_text().endswith("2.png")
    page.keyboard.press("ArrowLeft")
    assert page.locator("[aria-current=true]").inner_text().endswith("1.png")
    page.keyboard.press("ArrowLeft")
    page.set_viewport_size({"width": 360, "height": 740})  # two images in a row
    page.keyboard.press("ArrowDown")
    assert page.locator("[aria-current=true]").inner_text().endswith("2.png")
    page.keyboard.press("ArrowUp")
    assert page.locator("[aria-current=true]").inner_text().endswith("0.png")


def test_labels_are_given_and_undone_by_keyboard(visit: Open, server: LiveServer) -> None:
    page = visit()
    page.set_input_files("#choose", images(2))
    wait_for_answers(page, 2)
    folder = server._collect
    page.click("#tab-labels")
    page.wait_for_selector("#labels .keys")
    page.keyboard.press("ArrowRight")  # to the other image, and to no other tab
    page.wait_for_selector("#labels .hint:text('2 of ')")
    page.keyboard.press("2")
    page.wait_for_selector("#labels .note:text('Stored as dog')")
    assert len(list(folder.glob("dog/*.png"))) == 1
    page.keyboard.press("u")
    page.wait_for_selector("#labels .note:text('No longer stored')")
    assert not list(folder.glob("dog/*.png"))
    assert page.locator("#labels .stage img").evaluate("node => node.decode().then(() => true)")
    page.keyboard.press("1")  # the server has let go of the image: the page sends it
    page.wait_for_selector("#labels .note:text('Stored as cat')")
    assert len(list(folder.glob("cat/*.png"))) == 1
    page.click("#tab-images")
    page.fill("#detail .wrong input", "a new class")
    page.click("#detail .wrong button")
    page.wait_for_selector("#detail .wrong p:text('Stored as a new class')")
    assert len(list(folder.glob("a new class/*.png"))) == 1


def test_buttons_that_were_clicked_keep_no_label_back(visit: Open, lonely: LiveServer) -> None:
    """Of a class that was typed, and of the classes; the focus stays in the panel."""
    page = visit(lonely.url)
    page.set_input_files("#choose", images(4))
    wait_for_answers(page, 4)
    page.click("#tab-labels")
    page.fill("#labels .choices input", "a new class")
    page.click("#labels .choices .wrong button")
    page.wait_for_selector("#labels .note:text('Stored as a new class')")
    for number, name in enumerate(("cat", "dog"), 2):
        page.locator("#labels .keys button", has_text=name).focus()
        page.keyboard.press("Space")
        page.wait_for_selector(f"#labels .note:text('Stored as {name}')")
        assert len((lonely._collect / "labels.jsonl").read_text().splitlines()) == number
        assert page.evaluate("document.querySelector('#labels').contains(document.activeElement)")


@pytest.mark.parametrize(("keys", "focus"), [((), "tab-labels"), (("Tab",), "labels")])
def test_enter_stores_the_predicted_class_where_arrows_and_tab_led_to(
    visit: Open, model_file: Path, tmp_path: Path, keys: tuple[str, ...], focus: str
) -> None:
    live = LiveServer(tmp_path / "collected", tiny=model_file)
    try:
        page = visit(live.url)
        page.set_input_files("#choose", images(1))
        wait_for_answers(page, 1)
        page.locator("#tab-images").press("ArrowRight")
        guess = page.locator("#labels .guess span").inner_text()
        hint = page.locator("#labels .hint", has_text="Enter").inner_text()
        assert "etters" not in hint  # of three classes each has a digit
        for key in (*keys, "Enter"):
            page.keyboard.press(key)
        page.wait_for_selector(f"#labels p:text('Stored as {guess}.')")
        assert len([*(tmp_path / "collected").glob(f"{guess}/*.png")]) == 1
        assert page.evaluate("document.activeElement.id") == focus
    finally:
        live.stop()


def test_a_label_waits_for_the_answer_and_what_is_typed_is_kept(visit: Open) -> None:
    from playwright.sync_api import expect

    page = visit()
    held: list[Any] = []
    page.route("**/predict*", lambda route: held.append(route))
    page.set_input_files("#choose", images(2))
    wait_until(page, lambda: len(held) == 2)
    assert page.locator("#label").is_disabled()
    assert page.locator("#save").is_disabled()
    for route in held:
        route.continue_()
    wait_for_answers(page, 2)
    expect(page.locator("#label")).to_be_enabled()
    page.locator("#label").press_sequentially("half a na")
    page.locator("#gallery .tile").nth(1).click()
    assert page.input_value("#label") == ""
    page.locator("#gallery .tile").nth(0).click()
    assert page.input_value("#label") == "half a na"


def test_a_label_is_shown_beside_the_prediction_and_can_be_undone(
    visit: Open, untrained: Callable[..., Path], model_file: Path, tmp_path: Path
) -> None:
    from playwright.sync_api import expect

    folder, other = tmp_path / "collected", untrained(("ant", "bee"))
    live = LiveServer(folder, tiny=model_file, other=other)
    try:
        page = visit(live.url)
        page.set_input_files("#choose", images(2))
        wait_for_answers(page, 2)
        tile = page.locator("#gallery .tile").first
        predicted = tile.locator(".tile-class").inner_text()
        page.set_viewport_size({"width": 1440, "height": 900})
        assert page.locator("#undo").is_hidden()
        page.fill("#label", "hornet")
        page.keyboard.press("Enter")
        page.wait_for_selector("#undo:visible")
        assert page.locator("#save").is_hidden()
        undo = page.locator("#undo").bounding_box()
        assert undo is not None
        assert undo["y"] + undo["height"] <= 900
        page.fill("#label", "wasp")  # not stored yet
        assert page.locator("#save").is_visible()
        assert page.locator("#undo").is_hidden()
        page.fill("#label", "hornet")
        for model, classes in (("tiny", {predicted}), ("other", {"ant", "bee"})):
            page.select_option("#which-model", model)
            wait_for_answers(page, 2)
            expect(tile.locator(".label-of-person")).to_contain_text("hornet")
            assert tile.locator(".tile-class").inner_text() in classes
            assert page.locator("#detail h2").inner_text() in classes
        for wanted in ("hornet", tile.locator(".tile-class").inner_text()):
            page.select_option("#class-filter", wanted)
            assert tile.is_visible()
        page.select_option("#class-filter", "")
        assert len(list(folder.glob("hornet/*.png"))) == 1
        page.locator("#undo").press("Enter")
        expect(tile.locator(".label-of-person")).to_have_count(0)
        assert page.locator("#undo").is_hidden()
        assert not list(folder.glob("hornet/*.png"))
        assert page.evaluate("document.activeElement.id") == "label"
        refuse_faults(page)
    finally:
        live.stop()


@pytest.mark.soak
def test_reasons_are_told_in_words_of_the_page(
    visit: Open, model_file: Path, tmp_path: Path
) -> None:
    live = LiveServer(tmp_path / "collected", collect_mb=1, tiny=model_file)
    pictures = {
        "a.tif": image_bytes(form="TIFF"),
        "b.txt": b"hallo",
        "c.png": bytes(33 << 20),
        "d.png": image_bytes()[:80],
        "e.png": b"",
        "full.png": image_bytes(640),
    }
    try:
        page = visit(live.url)
        for count, (name, data) in enumerate(pictures.items(), 1):
            (tmp_path / name).write_bytes(data)
            page.set_input_files("#choose", tmp_path / name)
            wait_for_answers(page, count)
        reasons = []
        for name in (*pictures,)[:-1]:
            page.locator("#gallery .tile", has_text=name).click()
            assert page.inner_text("#detail .says .status") == "unreadable"
            reasons.append(page.inner_text("#detail .says > p"))
        page.locator("#gallery .tile", has_text="full.png").click()
        page.fill("#label", "cat")
        page.keyboard.press("Enter")
        page.wait_for_selector("#label-note:text('server')")
        reasons.append(page.inner_text("#label-note"))
        assert "PNG" in reasons[0] == reasons[1]
        assert "32.0 MiB" in reasons[2]
        assert len({*reasons}) == len(pictures) - 1
        for text in reasons:
            assert not any(word in text for word in ("--", "b'", "HTTP", "body", "bytes", "curl"))
        assert page.input_value("#label") == "cat"
    finally:
        live.stop()


def test_every_key_of_the_labelling_does_what_the_page_says(
    visit: Open, untrained: Callable[..., Path], tmp_path: Path
) -> None:
    names = tuple(f"class {number}" for number in range(12))
    live = LiveServer(tmp_path / "collected", tiny=untrained(names))
    try:
        page = visit(live.url)
        page.set_input_files("#choose", images(4))
        wait_for_answers(page, 4)
        page.click("#tab-labels")
        page.wait_for_selector("#labels .hint:text('1 of 4')")
        for key, place in (("ArrowRight", 2), ("ArrowRight", 3), ("ArrowLeft", 2)):
            page.keyboard.press(key)
            page.wait_for_selector(f"#labels .hint:text('{place} of 4')")
        guess = page.locator("#labels .guess span").inner_text()
        assert page.inner_text("#labels .guess-line").startswith(f"Predicted: {guess}, ")
        page.keyboard.press("Enter")
        page.wait_for_selector(f"#labels .note:text('Stored as {guess}.')")
        # The eleventh and twelfth keys are a and b; another note than before is waited for.
        key, other = ("a", "class 10") if guess == "class 11" else ("b", "class 11")
        page.keyboard.press(key)
        page.wait_for_selector(f"#labels .note:text('Stored as {other}.')")
        stored = {file.parent.name for file in (tmp_path / "collected").glob("*/*.png")}
        assert stored == {guess, other}
        assert page.inner_text("#announcer") == f"Stored as {other}."
        page.keyboard.press("z")  # there are 12 classes
        page.wait_for_selector("#labels .note:text(' z')")
        assert page.inner_text("#announcer") == page.inner_text("#labels .note")
        page.fill("#label-other", "no/folder")
        page.keyboard.press("Enter")
        page.wait_for_selector("#labels .note:text('no/folder')")
        assert page.input_value("#label-other") == "no/folder"
        assert page.evaluate("document.activeElement.id") == "label-other"
    finally:
        live.stop()


def test_the_frame_shows_and_takes_images_before_the_model_is_known(
    visit: Open, server: LiveServer
) -> None:
    page = visit()
    held: list[Any] = []
    page.route("**/model", lambda route: held.append(route))
    page.reload()
    page.wait_for_selector("#drop")
    page.set_input_files("#choose", images(1))
    page.wait_for_selector("#drop-note:text('1 image waits')")
    page.set_input_files("#choose", images(2))
    page.wait_for_selector("#drop-note:text('3 images wait')")
    assert page.locator("#tab-model").is_hidden()
    held[0].continue_()
    wait_for_answers(page, 3)
    assert not page.inner_text("#drop-note")
    assert page.locator("#tab-model").is_visible()
    assert sum(page.evaluate("window.shifts")) < 0.01


def test_a_wrong_key_is_told_and_the_right_one_lets_in(visit: Open, server: LiveServer) -> None:
    page = visit()

    def answer(route: Any) -> None:
        known = route.request.headers.get("authorization") == "Bearer right"
        route.continue_() if known else route.fulfill(status=401, json={"error": "a key"})

    page.route("**/model", answer)
    page.reload()
    page.wait_for_selector("#key-dialog[open]")
    assert "key" in page.inner_text("#model-line")
    refuse_faults(page)
    assert not page.inner_text("#key-note")
    for key in ("wrong", "right\u20ac", "\u00e4\u20ac", "\u200b", " \u200bright\u200b\ufeff"):
        page.fill("#key", key)
        page.keyboard.press("Enter")  # the dialog has the focus
        if "right\u200b" not in key:
            page.wait_for_selector("#key-note:text('not accept')")
            assert page.locator("#away").is_hidden()
    page.wait_for_selector("html[data-ready]")
    assert page.locator("#key-dialog").is_hidden()
    assert page.inner_text("#model-line").endswith("3 classes")


def test_nothing_is_drawn_for_an_image_that_cannot_be_read(visit: Open) -> None:
    page = visit()
    bad = {"name": "bad.png", "mimeType": "image/png", "buffer": image_bytes()[:80]}
    page.set_input_files("#choose", [bad])
    wait_for_answers(page, 1)
    page.wait_for_selector("#detail .unreadable")
    assert page.locator("#detail .bars").count() + page.locator("#detail .wrong").count() == 0


@pytest.mark.parametrize("width", spread([320, 768, 1280]))
def test_each_status_is_shown_as_what_it_is_and_nothing_moves(
    visit: Open, packaged: LiveServer, width: int
) -> None:
    from resnets.serving.example_images import example_images

    clock = Image.open(io.BytesIO(example_images()["clock.png"])).convert("RGB")
    pictures = {}
    for contrast in (100, 70, 35):
        file = io.BytesIO()
        ImageEnhance.Contrast(clock).enhance(contrast / 100).save(file, "PNG")
        pictures[f"{contrast}.png"] = file.getvalue()
    expected = {name: asked(f"{packaged.url}predict", data) for name, data in pictures.items()}
    statuses = [answer["predictions"][0]["status"] for answer in expected.values()]
    assert statuses == ["ok", "unsure", "unfamiliar"]
    page = visit(packaged.url, viewport={"width": width, "height": 900})
    held: list[Any] = []
    page.route("**/predict*", lambda route: held.append(route))
    page.set_input_files(
        "#choose",
        [
            {"name": name, "mimeType": "image/png", "buffer": data}
            for name, data in pictures.items()
        ],
    )
    bars = page.locator("#detail .bars")
    before = bars.evaluate("node => node.offsetTop")
    wait_until(page, lambda: len(held) == len(pictures))
    for route in held:
        route.continue_()
    wait_for_answers(page, len(pictures))
    assert page.inner_text("#detail .says .status") == "ok"  # of which most is said
    assert bars.evaluate("node => node.offsetTop") == before
    assert sum(page.evaluate("window.shifts")) < 0.01
    (facts,) = asked(f"{packaged.url}model")["models"]
    for name, answer in expected.items():
        (prediction,) = answer["predictions"]
        tile = page.locator("#gallery .tile", has_text=name)
        tile.click()
        for place in (tile, page.locator("#detail .says")):
            assert place.locator(".status").inner_text() == prediction["status"]
        if prediction["status"] in ("ok", "unsure"):
            means = page.locator("#detail .says > p").inner_text()
            assert f"{100 * facts['threshold']:.1f}\u00a0%" in means
        rows = bars.locator("li")
        for place, share in zip(rows.all(), prediction["top"], strict=True):
            width_of_bar = place.locator("i").evaluate("node => parseFloat(node.style.width)")
            assert width_of_bar == pytest.approx(100 * share["probability"], abs=0.01)
        mark = rows.first.locator("b").evaluate("node => node.style.left")
        assert f"{100 * facts['threshold']:g}%" in mark


def asked(url: str, body: bytes | None = None) -> Any:
    """The JSON that a server answers."""
    with urllib.request.urlopen(url, body, timeout=60) as response:
        return json.load(response)


def test_the_model_tab_tells_what_is_known_and_how_it_does_now(visit: Open, tmp_path: Path) -> None:
    live = LiveServer(tmp_path / "collected", cifar10=PACKAGED)
    try:
        page = visit(live.url)
        page.click("#tab-model")
        page.wait_for_selector("#drift:text('first image')")
        (facts,) = asked(f"{live.url}model")["models"]
        text = page.inner_text("#model").replace("\xa0", " ")
        for part in ("calibration", "trained_on", "licences"):
            assert facts[part]
            assert all(sentence in text for sentence in facts[part])
        assert facts["unfamiliar"] in text
        assert facts["digest"] in text
        assert all(each["name"] in text for each in facts["classes"])
        for row in facts["accuracy"]:
            low, high = row["interval"]
            assert f"{100 * row['value']:.2f} %" in text
            assert f"{row['count']:,} of {row['total']:,} right" in text
            assert f"interval {100 * low:.2f} to {100 * high:.2f}" in text
        asked(f"{live.url}predict", image_bytes(40))
        page.wait_for_selector("#latency p:text('1') + p:text('request')")  # by itself
        (now,) = asked(f"{live.url}model")["models"]
        assert page.inner_text("#drift").replace("\xa0", " ") == now["drift"]["text"]
        seconds = now["latency"]["p50"]
        assert page.inner_text("#latency .figure").endswith(" s" if seconds >= 1 else " ms")
    finally:
        live.stop()


def test_a_busy_server_is_asked_again(visit: Open) -> None:
    page = visit()
    asked = []

    def answer(route: Any) -> None:
        asked.append(route.request.url)
        if len(asked) <= 2:
            route.fulfill(status=503, headers={"Retry-After": "0"}, json={"error": "busy"})
        else:
            route.continue_()

    page.route("**/predict*top=3", answer)  # not for heat maps
    page.set_input_files("#choose", images(3))
    wait_for_answers(page, 3)
    assert len(asked) == 5
    assert page.locator("#gallery .unanswered").count() == 0


def test_images_that_fail_are_not_called_answered_and_the_server_is_quoted(visit: Open) -> None:
    page = visit()
    reason, asked = "the <b>host</b> is wrong", []

    def answer(route: Any) -> None:
        asked.append(route)
        if len(asked) == 1 or "explain" in route.request.url:
            route.continue_()
        else:
            route.fulfill(status=403, json={"error": reason})

    page.route("**/predict*", answer)
    bad = {"name": "bad.png", "mimeType": "image/png", "buffer": image_bytes()[:80]}
    page.set_input_files("#choose", images(3))
    wait_for_answers(page, 3)
    assert page.inner_text("#progress-text") == "1 of 3 answered, 2 failed"
    assert page.inner_text("#announcer").startswith("1 of 3 images are answered, 2 failed")
    assert page.evaluate("document.getElementById('progress').value") == 1
    assert page.inner_text("#status-filter label:has([value=unanswered]) .count") == "2"
    page.click("#gallery .tile:has(.unanswered) >> nth=0")
    assert reason in page.inner_text("#detail .says > p")
    page.unroute("**/predict*")
    page.set_input_files("#choose", [bad])
    wait_for_answers(page, 4)
    assert page.inner_text("#progress-text") == "1 of 4 answered, 3 failed"
    page.click("#clear")
    page.set_input_files("#choose", images(2))
    wait_for_answers(page, 2)
    assert page.inner_text("#progress-text") == "2 of 2 answered"
    assert page.inner_text("#announcer") == "All 2 images are answered."


def test_no_more_than_four_images_are_under_way(visit: Open) -> None:
    page = visit()
    held: list[Any] = []
    slow = True

    def answer(route: Any) -> None:
        if slow:
            held.append(route)
        else:
            route.continue_()

    page.route("**/predict*", answer)
    page.set_input_files("#choose", images(7))
    for _ in range(100):
        if len(held) == 4:
            break
        page.wait_for_timeout(20)
    page.wait_for_timeout(100)
    assert len(held) == 4
    assert page.locator("#gallery .waiting").count() == 7
    slow = False
    for route in held:
        route.continue_()
    wait_for_answers(page, 7)


def test_images_wait_while_the_server_is_gone(visit: Open, server: LiveServer) -> None:
    page = visit()
    server.stop()
    try:
        page.set_input_files("#choose", images(1))
        page.wait_for_selector("#away", state="visible")
    finally:
        server.start()
    wait_for_answers(page, 1)
    assert page.locator("#away").is_hidden()


@pytest.mark.soak
def test_the_model_tab_says_that_its_figures_are_old_while_the_server_is_gone(
    visit: Open, server: LiveServer
) -> None:
    page = visit()
    page.click("#tab-model")
    page.wait_for_selector("#latency p")
    assert page.locator("#as-of").is_hidden()
    server.stop()
    try:
        page.wait_for_selector("#as-of:text-matches('As of [0-9]{2}:[0-9]{2}')")
    finally:
        server.start()
    page.wait_for_selector("#as-of", state="hidden")


def test_drawings_to_try_stay_and_chips_say_what_a_click_does(visit: Open) -> None:
    page = visit()
    page.route(
        "**/examples/*", lambda route: route.fulfill(body=image_bytes(40), content_type="image/png")
    )

    def with_examples(route: Any) -> None:
        facts = route.fetch().json()
        route.fulfill(json=facts | {"examples": ["ship.png", "frog.png"]})

    page.route("**/model", with_examples)
    page.reload()
    for count in (1, 2):
        page.locator("#example-list button").nth(count - 1).press("Enter")
        wait_for_answers(page, count)
    assert page.evaluate("document.activeElement.closest('#example-list') !== null")
    chip = page.locator("#status-filter label:visible").first
    assert "hides" in (chip.get_attribute("title") or "")
    chip.click()
    assert "shows" in (chip.get_attribute("title") or "")


@pytest.mark.soak
def test_labels_wait_while_the_server_is_gone_and_images_that_it_lost_are_sent(
    visit: Open, model_file: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "collected"
    live = LiveServer(folder, tiny=model_file)
    try:
        page = visit(live.url)
        page.set_input_files("#choose", images(4))
        wait_for_answers(page, 4)
        with page.expect_response("**/queue/*"), page.expect_response("**/queue/*"):
            page.click("#tab-labels")
        page.wait_for_selector("#labels .hint:text('1 of 4')")
        live.stop()
        page.keyboard.press("2")
        page.wait_for_selector("#labels .note:text('the server does not answer')")
        page.wait_for_selector("#labels .hint:text('1 of 3')")
        page.keyboard.press("2")  # of this image the page has the file, too
        page.wait_for_selector("#labels .hint:text('1 of 2')")
        page.keyboard.press("3")  # and of this one not
        page.wait_for_selector("#labels .hint:text('1 of 1')")
        assert "does not answer" in page.inner_text("#labels .note")
        assert "does not answer" in page.inner_text("#announcer")
        live.start()
        page.wait_for_selector("#labels .note:text('Not stored as owl: The server was started')")
        assert len(list(folder.glob("dog/*.png"))) == 2
        assert not list(folder.glob("owl/*"))
        page.wait_for_selector("#labels .hint:text('1 of 2, 2 labelled')")
        page.click("#tab-images")
        live.stop()
        page.fill("#label", "cat")
        page.keyboard.press("Enter")
        page.wait_for_selector("#label-note:text('the server does not answer')")
        live.start()
        page.wait_for_selector("#label-note:text('Stored as cat.')")
    finally:
        live.stop()


@pytest.mark.parametrize("tab", spread(["labels", "images"]))
def test_a_page_whose_labels_are_not_stored_yet_asks_before_it_closes(
    visit: Open, model_file: Path, tmp_path: Path, tab: str
) -> None:
    live = LiveServer(tmp_path / "collected", tiny=model_file)
    questions: list[str] = []
    try:
        page = visit(live.url)
        page.on("dialog", lambda dialog: (questions.append(dialog.type), dialog.dismiss()))
        page.set_input_files("#choose", images(2))
        wait_for_answers(page, 2)
        page.click(f"#tab-{tab}")
        live.stop()
        if tab == "labels":
            page.keyboard.press("2")
        else:
            page.fill("#label", "cat")
            page.keyboard.press("Enter")
        note = {"labels": "#labels .note", "images": "#label-note"}[tab]
        page.wait_for_selector(f"{note}:text('the server does not answer')")
        page.close(run_before_unload=True)
        wait_until(page, lambda: questions == ["beforeunload"])
        live.start()
        page.wait_for_selector(f"{note}:text('Stored as')")
        with page.expect_event("close"):
            page.close(run_before_unload=True)
        assert questions == ["beforeunload"]
    finally:
        live.stop()


@pytest.mark.soak
def test_who_types_fast_labels_one_image_after_another(
    visit: Open, model_file: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "collected"
    live = LiveServer(folder, tiny=model_file)
    held: list[Any] = []

    def hold(route: Any) -> None:
        if held or "label=owl" not in route.request.url:
            time.sleep(0.2)  # a slow server
            route.continue_()
        else:
            held.append(route)
            route.fulfill(status=507, json={"error": "full"})

    try:
        page = visit(live.url)
        page.set_input_files("#choose", images(6))
        wait_for_answers(page, 6)
        page.route("**/collect?*", hold)
        page.click("#tab-labels")
        page.wait_for_selector("#labels .hint:text('1 of 6')")
        order = [each["digest"] for each in asked(live.url + "queue")["images"]]
        for key in "12213":
            page.keyboard.press(key)
        page.wait_for_selector("#labels .hint:text('1 of 1, 5 labelled')")  # at once
        page.wait_for_selector("#labels .note:text('Not stored as owl')")
        page.wait_for_selector("#labels .hint:text('1 of 2, 4 labelled')")
        stored = {file.stem: file.parent.name for file in folder.glob("*/*.png")}
        assert stored == dict(zip(order[:4], ("cat", "dog", "dog", "cat"), strict=True))
        page.keyboard.press("3")
        page.keyboard.press("u")  # before it is stored
        page.keyboard.press("1")  # the same image
        page.wait_for_selector("#labels .hint:text('1 of 1, 5 labelled')")
        page.keyboard.press("2")  # the one that was not stored
        page.wait_for_selector("#labels p:text('Stored as dog.')")
        stored = {file.stem: file.parent.name for file in folder.glob("*/*.png")}
        assert [stored.pop(digest) for digest in (order[5], order[4])] == ["cat", "dog"]
        assert len(stored) == 4
    finally:
        live.stop()


@pytest.mark.parametrize("scheme", spread(["light", "dark"]))
def test_axe_finds_nothing_and_nothing_moves_or_overflows(visit: Open, scheme: str) -> None:
    page = visit(color_scheme=scheme, viewport={"width": 320, "height": 640})
    refuse_faults(page)
    shades = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g)")
    assert all((int(shade) < 128) == (scheme == "dark") for shade in shades)
    page.set_input_files("#choose", images(3))
    wait_for_answers(page, 3)
    for tab in ("images", "labels", "model"):
        page.click(f"#tab-{tab}")
        page.wait_for_selector(f"#{tab} h2:visible")
        assert sum(page.evaluate("window.shifts")) < 0.01
        rules = {} if scheme == "light" else {"runOnly": ["color-contrast"]}
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 640})
            refuse_faults(page, **rules)


@pytest.mark.parametrize("scheme", spread(["light", "dark"]))
def test_the_description_of_the_interface_has_no_fault_at_any_width(
    browser: "Browser", server: LiveServer, scheme: str
) -> None:
    parts = {"include": [["header"], ["section:first-of-type"], ["details:first-of-type"]]}
    with browser.new_context(color_scheme=scheme) as context:  # type: ignore[arg-type]
        page = context.new_page()
        page.goto(f"{server.url}docs")
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 640})
            refuse_faults(page, parts, **({} if width == 320 else {"runOnly": ["color-contrast"]}))


def test_the_heat_map_fades_with_the_slider(visit: Open) -> None:
    pytest.importorskip("captum", reason="the extra explain is not installed")
    page = visit()
    page.set_input_files("#choose", images(1))
    wait_for_answers(page, 1)
    page.wait_for_selector("#detail .overlay")
    for width in (320, 360, 390, 768, 1280):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.locator("#opacity").evaluate("node => node.offsetWidth") >= 120
        title, status = (page.locator(f"#detail {each}") for each in (".title", ".says .status"))
        between = [
            place.evaluate(f"node => node.getBoundingClientRect().{edge}")
            for place, edge in ((title, "bottom"), (status, "top"))
        ]
        assert 0 <= between[1] - between[0] <= 20
    page.fill("#opacity", "25")
    assert page.locator("#detail .overlay").evaluate("node => node.style.opacity") == "0.25"


def test_a_heat_map_is_asked_for_once_and_only_of_the_image_that_is_shown(visit: Open) -> None:
    pytest.importorskip("captum", reason="the extra explain is not installed")
    page = visit()
    held: list[Any] = []
    dropped: list[str] = []
    page.on("requestfailed", lambda request: dropped.append(request.url))
    page.route("**/predict*explain=1", lambda route: held.append(route))
    page.set_input_files("#choose", images(3))
    wait_for_answers(page, 3)  # though no heat map comes
    line = page.locator("#heat-map-line")
    height = line.evaluate("node => node.offsetHeight")
    wait_until(page, lambda: len(held) == 1)
    tiles = page.locator("#gallery .tile")
    tiles.nth(0).press("ArrowRight")
    wait_until(page, lambda: len(dropped) == 1)  # nobody waits for the first image any more
    wait_until(page, lambda: len(held) == 2)
    assert page.locator("#detail .overlay").count() == 0
    held[1].continue_()
    page.wait_for_selector("#detail .overlay")
    assert line.evaluate("node => node.offsetHeight") == height
    tiles.nth(1).press("ArrowRight")
    wait_until(page, lambda: len(held) == 3)
    held[2].continue_()
    page.wait_for_selector("#detail .overlay")
    tiles.nth(2).press("ArrowLeft")  # whose heat map is known
    page.wait_for_selector("#gallery li:nth-child(2) [aria-current]")
    page.wait_for_selector("#detail .overlay")
    page.wait_for_timeout(400)  # in which nothing is asked
    assert len(held) == 3
    assert sum(page.evaluate("window.shifts")) < 0.01


@pytest.mark.soak
def test_a_heat_map_that_does_not_come_is_told_and_asked_for_again(visit: Open) -> None:
    pytest.importorskip("captum", reason="the extra explain is not installed")
    page = visit()
    held: list[Any] = []
    page.route("**/predict*explain=1", lambda route: held.append(route))
    page.set_input_files("#choose", images(1))
    wait_until(page, lambda: len(held) == 1)
    held[0].fulfill(status=503, headers={"Retry-After": "0"}, json={"error": "busy"})
    page.wait_for_selector("#heat-map-line span:text('busy')")
    wait_until(page, lambda: len(held) == 2)
    held[1].fulfill(status=504, json={"error": "late"})
    page.wait_for_selector("#heat-map-line span:text('too long')")
    refuse_faults(page)
    page.set_viewport_size({"width": 320, "height": 640})
    refuse_faults(page)
    page.locator("#heat-map-line button").press("Enter")
    wait_until(page, lambda: len(held) == 3)
    held[2].continue_()
    page.wait_for_selector("#detail .overlay")


@pytest.mark.soak
def test_a_heat_map_of_a_changed_file_comes_with_its_prediction(
    visit: Open, untrained: Callable[..., Path], model_file: Path, tmp_path: Path
) -> None:
    pytest.importorskip("captum", reason="the extra explain is not installed")
    file = tmp_path / "tiny.safetensors"
    shutil.copy(model_file, file)
    shutil.copy(untrained(("ant", "bee", "fly", "gnat")), tmp_path / "new")
    live = LiveServer(tmp_path / "collected", tiny=file)
    try:
        page = visit(live.url)
        held: list[Any] = []
        page.route("**/predict*explain=1", lambda route: held.append(route))
        page.set_input_files("#choose", images(1))
        wait_until(page, lambda: len(held) == 1)
        before = page.inner_text("#detail h2")
        (tmp_path / "new").replace(file)
        wait_until(page, lambda: len(asked(f"{live.url}model")["models"][0]["classes"]) == 4)
        held[0].continue_()
        page.wait_for_selector("#detail .overlay")
        after = page.inner_text("#detail h2")
        assert before in ("cat", "dog", "owl")
        assert after in ("ant", "bee", "fly", "gnat")
        assert page.inner_text("#gallery .tile-class") == after
    finally:
        live.stop()


def test_tiles_in_which_nothing_is_seen_say_so(visit: Open) -> None:
    from playwright.sync_api import expect

    page = visit()
    icon = io.BytesIO()
    Image.new("RGBA", (16, 16)).save(icon, "ICO")
    files = {"clear.ico": icon.getvalue(), "text.png": b"hello", "tall.png": image_bytes()}
    page.set_input_files(
        "#choose",
        [{"name": name, "mimeType": "", "buffer": data} for name, data in files.items()],
    )
    wait_for_answers(page, 3)
    for name, texts in (("clear.ico", 1), ("text.png", 1), ("tall.png", 0)):
        tile = page.locator("#gallery .tile", has_text=name)
        expect(tile.get_by_text("no preview")).to_have_count(texts)


@pytest.mark.parametrize("width", spread([320, 1280]))
def test_of_the_thinnest_image_something_is_seen_and_its_size_is_told(
    visit: Open, lonely: LiveServer, width: int
) -> None:
    page = visit(lonely.url, viewport={"width": width, "height": 900})
    sizes = {"wide \N{SNOWMAN}.png": (20_000, 1), "tall.png": (1, 20_000), "dot.png": (1, 1)}
    for name, size in sizes.items():
        file = io.BytesIO()
        Image.new("RGB", size, "red").save(file, "PNG")
        page.set_input_files(
            "#choose", [{"name": name, "mimeType": "image/png", "buffer": file.getvalue()}]
        )
    wait_for_answers(page, len(sizes))
    for name in sizes:
        page.locator("#gallery .tile", has_text=name).click()
        box = page.locator("#detail .frame.loaded").bounding_box()
        assert box is not None
        assert min(box["width"], box["height"]) >= 4
    page.click("#tab-labels")
    texts = {}
    for _ in sizes:
        about = page.locator("#labels .file", has_text="pixels")
        name, _, size = about.inner_text().partition(" · ")
        texts[name] = size
        box = page.locator("#labels .stage img").bounding_box()
        assert box is not None
        assert min(box["width"], box["height"]) >= 4
        page.keyboard.press("ArrowRight")
        if len(texts) < len(sizes):
            page.wait_for_selector(f"#labels .hint:text('{len(texts) + 1} of ')")
    assert set(sizes) <= set(texts)
    assert texts["wide \N{SNOWMAN}.png"].startswith("20,000 × 1 pixels")
    assert texts["dot.png"] == "1 × 1 pixels"


@pytest.mark.soak
def test_the_confidence_filter_tells_bounds_that_make_no_sense(visit: Open) -> None:
    from playwright.sync_api import expect

    page = visit()
    page.set_input_files("#choose", images(2))
    wait_for_answers(page, 2)
    note = page.locator("#range-note")
    assert note.is_hidden()
    page.fill("#least", "150")
    expect(note).to_contain_text("100")
    page.keyboard.press("Tab")
    assert page.input_value("#least") == "100"
    page.fill("#least", "90")
    expect(note).to_be_hidden()
    page.fill("#most", "10")
    expect(note).to_contain_text("above")
    refuse_faults(page)
    page.fill("#least", "0")
    page.fill("#most", "100")
    expect(note).to_be_hidden()


@pytest.mark.soak
def test_another_image_is_shown_in_place_of_one_that_the_filter_hides(visit: Open) -> None:
    page = visit()
    bad = {"name": "bad.png", "mimeType": "image/png", "buffer": image_bytes()[:80]}
    page.set_input_files("#choose", [bad, *images(2)])
    wait_for_answers(page, 3)
    assert page.inner_text("#detail .file") == "bad.png"
    page.click("#status-filter label:has([value=unreadable])")
    assert page.inner_text("#detail .file") == "0.png"
    assert page.locator("[aria-current=true]").inner_text().endswith("0.png")


def test_the_empty_page_names_the_classes_and_leads_to_all_of_them(
    visit: Open, packaged: LiveServer, untrained: Callable[..., Path], tmp_path: Path
) -> None:
    page = visit(packaged.url)
    (facts,) = asked(f"{packaged.url}model")["models"]
    assert all(each["name"] in page.inner_text("#knows") for each in facts["classes"])
    assert page.locator("#knows button").count() == 0
    assert page.inner_text("#legend").count(f"{100 * facts['max_error']:g}\u00a0%") == 1
    assert "not promised" not in page.inner_text("#legend")
    names = tuple(f"class {number}" for number in range(1, 31))
    few = calibrate(9 * np.eye(30)[np.arange(60) % 30], np.arange(60) % 30).to_dict()
    live = LiveServer(tmp_path / "collected", tiny=untrained(names, calibration=few))
    try:
        page = visit(live.url, viewport={"width": 320, "height": 640})
        assert names[0] in page.inner_text("#knows")
        assert names[-1] not in page.inner_text("#knows")
        assert "not promised" in page.inner_text("#legend")
        rest = page.locator("#knows button")
        refuse_faults(page)
        rest.press("Enter")
        page.wait_for_selector("#model .classes")
        assert page.evaluate("document.activeElement.id") == "tab-model"
    finally:
        live.stop()


def test_a_changed_file_is_known_from_the_next_answer_on(
    visit: Open, untrained: Callable[..., Path], model_file: Path, tmp_path: Path
) -> None:
    file = tmp_path / "tiny.safetensors"
    shutil.copy(model_file, file)
    live = LiveServer(tmp_path / "collected", tiny=file)
    try:
        page = visit(live.url)
        page.set_input_files("#choose", images(1))
        wait_for_answers(page, 1)
        assert page.inner_text("#model-line").endswith("3 classes")
        shutil.copy(untrained(("cat", "dog", "owl", "fox")), tmp_path / "new")
        (tmp_path / "new").replace(file)
        for _ in range(100):
            page.wait_for_timeout(200)
            page.set_input_files("#choose", images(1))
            if page.inner_text("#model-line").endswith("4 classes"):
                break
        wait_for_answers(page, page.locator("#gallery .tile").count())
        assert page.inner_text("#model-line").endswith("4 classes")
        assert page.locator("#detail .bars li").count() == 4
        assert page.locator("#class-names option").count() == 4
    finally:
        live.stop()


@pytest.mark.soak
def test_one_answer_tells_of_a_change_just_after_the_page_has_asked_for_the_facts(
    visit: Open, untrained: Callable[..., Path], model_file: Path, tmp_path: Path
) -> None:
    file = tmp_path / "tiny.safetensors"
    shutil.copy(model_file, file)
    shutil.copy(untrained(("cat", "dog", "owl", "fox")), tmp_path / "new")
    live = LiveServer(tmp_path / "collected", tiny=file)

    def classes() -> int:
        (model,) = page.request.get(f"{live.url}model").json()["models"]
        return len(model["classes"])

    try:
        page = visit(live.url)
        with page.expect_response("**/model"):
            page.click("#tab-labels")
        (tmp_path / "new").replace(file)
        wait_until(page, lambda: classes() == 4)
        page.set_input_files("#choose", images(1))
        wait_for_answers(page, 1)
        wait_until(page, lambda: page.inner_text("#model-line").endswith("4 classes"))
        assert page.locator("#detail .bars li").count() == 4
        assert page.locator("#class-names option").count() == 4
    finally:
        live.stop()


@pytest.mark.soak
def test_a_model_that_cannot_be_explained_leaves_the_others_their_heat_maps(
    visit: Open, model_file: Path, tmp_path: Path
) -> None:
    pytest.importorskip("captum", reason="the extra explain is not installed")
    pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    live = LiveServer(tmp_path / "collected", digits=EXPORTED, tiny=model_file)
    try:
        page = visit(live.url)
        page.set_input_files("#choose", images(1))
        wait_for_answers(page, 1)
        page.wait_for_selector("#detail .hint:text('No Grad-CAM: digits is an exported file')")
        page.select_option("#which-model", "tiny")
        page.wait_for_selector("#detail .overlay")
        page.select_option("#which-model", "digits")
        page.wait_for_selector("#detail .hint:text('No Grad-CAM: digits is an exported file')")
    finally:
        live.stop()


def test_on_a_phone_the_answer_of_the_latest_photo_is_in_view(visit: Open) -> None:
    page = visit(viewport={"width": 360, "height": 740}, reduced_motion="reduce")
    for count in (1, 2):
        page.evaluate("scrollTo(0, 0)")
        page.set_input_files("#photograph", images(count)[-1:])
        wait_for_answers(page, count)
        assert page.locator("#detail .file").inner_text() == f"{count - 1}.png"
        bottom = page.locator("#detail .bars").evaluate(
            "node => node.getBoundingClientRect().bottom"
        )
        assert 0 < bottom <= 740
