"""Whatever is sent, the server has no fault, and answers the next one."""

import base64
import contextlib
import json
import socket
import struct
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.serving.conftest import image_bytes
from tests.serving.running import running

Serving = Callable[..., Any]
PATHS = st.sampled_from(
    [
        *("/", "/collect", "/collect/0", "/docs", "/examples/x", "/metrics", "/model", "/nothing"),
        *("/openapi.json", "/predict", "/predict", "/queue", "/queue/0", "/static/page.js", "/v2"),
        *("/v2/health/live", "/v2/health/ready", "/v2/models/stats", "/v2/models/tiny"),
        *("/v2/models/tiny/config", "/v2/models/tiny/infer", "/v2/models/tiny/infer"),
        *("/v2/models/tiny/stats", "/v2/models/tiny/versions/1", "/v2/repository/index"),
        *("/v2/repository/models/tiny/load", "/v2/repository/models/tiny/unload"),
    ]
)
METHODS = st.sampled_from(["POST", "POST", "GET", "PUT", "DELETE", "OPTIONS"])
NAMES = st.sampled_from(
    [
        *("accept", "authorization", "content-length", "content-type", "host", "origin"),
        *("inference-header-content-length", "sec-fetch-site", "traceparent", "x-api-key"),
        *("x-forwarded-for", "x-request-id", "x-request-timeout"),
    ]
)
VALUES = st.one_of(
    st.sampled_from(
        [
            "multipart/form-data; boundary=x",
            "application/json",
            "application/octet-stream",
            "http://127.0.0.1",
            "http://[",
            "null",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "-1",
            "5",
        ]
    ),
    st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=30),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                [
                    "id",
                    "inputs",
                    "outputs",
                    "name",
                    "shape",
                    "datatype",
                    "data",
                    "parameters",
                    "b64",
                ]
            )
            | st.text(max_size=5),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)
INFER = st.fixed_dictionaries(
    {
        "inputs": st.lists(
            st.fixed_dictionaries(
                {
                    "name": st.sampled_from(["images", "files", "x"]),
                    "datatype": st.sampled_from(["UINT8", "BYTES", "FP32", "x"]),
                    "shape": st.lists(st.integers(-2, 1 << 62), max_size=5),
                    "data": JSON,
                }
            ),
            max_size=2,
        )
    }
)
BODIES = st.one_of(
    st.binary(max_size=200),
    st.builds(lambda value: json.dumps(value).encode(), JSON | INFER),
    st.builds(lambda head, tail: image_bytes()[:head] + tail, st.integers(0, 400), st.binary()),
    st.builds(
        lambda inner: b'--x\r\nContent-Disposition: form-data; name="a"; filename="b"\r\n' + inner,
        st.binary(max_size=100),
    ),
)


@pytest.fixture
def client(serving: Serving) -> Any:
    return serving(max_body=100_000, max_pixels=10_000, timeout=10.0)


@given(
    path=PATHS,
    method=METHODS,
    headers=st.dictionaries(NAMES, VALUES, max_size=3),
    body=BODIES,
    query=st.text(
        st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="#"), max_size=12
    ),
)
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_no_request_is_a_fault(
    client: Any, path: str, method: str, headers: dict[str, str], body: bytes, query: str
) -> None:
    response = client.request(method, f"{path}?{query}", headers=headers, content=body)
    assert response.status_code < 500 or response.status_code in (501, 503, 504)
    assert client.app.state.server.answering.places.taken == 0


KEY = "a-key-of-enough-length"
WRONG_KEYS = st.one_of(
    st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=40),
    st.builds(lambda end: KEY[:end], st.integers(0, len(KEY) - 1)),
    st.builds(lambda more: KEY + more, st.sampled_from([".", "\u00e9", ",x", "\0"])),
    st.sampled_from([KEY.upper(), KEY[::-1], f"Bearer {KEY}", f'"{KEY}"']),
).filter(lambda text: text != KEY)
NAMES_OF_OTHERS = st.from_regex(r"[a-z0-9.-]{0,20}\.[a-z]{2,9}(:[0-9]{1,5})?", fullmatch=True)
OF_KEYS = ("x-api-key", "authorization")
OPEN = (  # without a key
    *("/", "/docs", "/openapi.json", "/static/page.js"),
    *("/v2/health/live", "/v2/health/ready"),
)


@pytest.fixture
def locked(serving: Serving, tmp_path: Path) -> Any:
    from resnets.serving.access import Access, Keys

    file = tmp_path / "keys"
    file.write_text(KEY, encoding="utf-8")
    return serving(access=Access(keys=Keys.of_file(file)))


@given(
    path=PATHS.filter(lambda path: path not in OPEN),
    method=METHODS,
    header=st.sampled_from([("x-api-key", ""), ("authorization", "Bearer "), ("cookie", "key=")]),
    key=WRONG_KEYS,
    others=st.dictionaries(NAMES.filter(lambda name: name not in OF_KEYS), VALUES, max_size=2),
)
@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_no_wrong_key_is_let_in(
    locked: Any, path: str, method: str, header: tuple[str, str], key: str, others: dict[str, str]
) -> None:
    headers = others | {header[0]: (header[1] + key).encode()}
    assert locked.request(method, path, headers=headers).status_code in (401, 403)


@given(path=PATHS, method=METHODS, host=NAMES_OF_OTHERS, body=BODIES)
@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_no_other_host_name_is_let_in(
    client: Any, path: str, method: str, host: str, body: bytes
) -> None:
    response = client.request(method, path, headers={"host": host}, content=body)
    assert response.status_code == 403


@given(
    path=PATHS,
    method=st.sampled_from(["POST", "PUT", "DELETE"]),
    origin=st.one_of(
        st.builds(lambda name: f"https://{name}", NAMES_OF_OTHERS),
        st.sampled_from(
            ["null", "", "http://127.0.0.1:1", "http://127.0.0.1@evil.example", "file:"]
        ),
    ),
    body=BODIES,
)
@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_no_page_of_another_site_is_let_in(
    client: Any, path: str, method: str, origin: str, body: bytes
) -> None:
    response = client.request(method, path, headers={"origin": origin}, content=body)
    assert response.status_code == 403


def test_numbers_of_thousands_of_digits_are_refused(client: Any) -> None:
    for top in ("000000001" + "9" * 5000, "00000000019"):
        assert client.post(f"/predict?top={top}", content=image_bytes()).status_code == 400
    sizes = [1, 10**4000, 10**4000, 3]
    tensor = {"name": "images", "datatype": "UINT8", "shape": sizes, "data": [0]}
    response = client.post("/v2/models/tiny/infer", json={"inputs": [tensor]})
    assert response.status_code == 400


NO_OBJECTS = (b"5", b"null", b"true", b'"x"', b"[]", b"[{}]", b"NaN", b"-Infinity", b"1e999")
NO_OBJECTS += (b"9" * 5000, b"[" * 50_000, b"[" * 500 + b"]" * 500, b"\xff", b'{"a":', b"{} {}")
ODD_OBJECTS = tuple(
    b'{"inputs": %b, "outputs": %b, "parameters": %b, "id": %b}' % (4 * (value,))
    for value in (*NO_OBJECTS[:9], b"[[]]", b"[5]", b"[null]", b"{}", b"9" * 4000)
)


@pytest.mark.parametrize("path", ["/v2/models/tiny/infer", "/v2/repository/index"])
def test_json_that_is_no_object_is_refused(client: Any, path: str) -> None:
    headers = {"content-type": "application/json"}
    for body in (*NO_OBJECTS, *ODD_OBJECTS):
        status = client.post(path, content=body, headers=headers).status_code
        assert status in (400, 422) or (status == 200 and body in ODD_OBJECTS), (body[:50], status)
    for body in ODD_OBJECTS if path.endswith("infer") else ():
        assert client.post(path, content=body, headers=headers).status_code in (400, 422), body
    for body in (b"5", b"null"):  # these paths take images, and read no JSON
        for other in ("/predict", "/collect?label=cat"):
            status = client.post(other, content=body, headers=headers).status_code
            assert 400 <= status < 500


@pytest.mark.parametrize(
    ("shape", "count"), [([3], 3), ([1, 4, 4, 7], 112), ([1, 4, 4, 3], 5), ([0, 4, 4, 3], 0)]
)
def test_a_tensor_of_a_wrong_shape_is_refused_in_words(
    client: Any, shape: list[int], count: int
) -> None:
    tensor = {"name": "images", "datatype": "UINT8", "shape": shape, "data": [0] * count}
    response = client.post("/v2/models/tiny/infer", json={"inputs": [tensor]})
    assert response.status_code == 400
    reason = response.json()["error"]
    assert reason.startswith("images: ")
    assert str(shape) in reason


@pytest.mark.slow
def test_bad_images_are_no_fault(serving: Serving, shared: Callable[[str], Path]) -> None:
    client = serving()
    files = [file for file in sorted(shared("badimages").rglob("*")) if file.is_file()]
    assert len(files) >= 150
    for file in files:
        if file.stat().st_size > 32 << 20:
            continue
        response = client.post("/predict", content=file.read_bytes())
        assert response.status_code in (200, 400, 413, 415, 422), (file, response.text)
    assert client.post("/predict", content=image_bytes()).status_code == 200


POST = b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\n"
RAW = (
    b"",
    b"\0" * 100,
    b"GET\r\n\r\n",
    b"GET / HTTP/9.9\r\n\r\n",
    POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
    POST + b"Content-Length: x\r\n\r\n",
    POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
    b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 20_000 + b"\r\n",
)


@pytest.fixture(scope="module")
def app(model_file: Path) -> Any:
    """The application, with little patience."""
    pytest.importorskip("uvicorn", reason="the extra serve is not installed")
    from resnets.serving.app import create_app
    from resnets.serving.served_model import open_served
    from resnets.serving.settings import Settings

    model = open_served(model_file, name="tiny", engine="torch", max_batch=4)
    return create_app({"tiny": model}, Settings(timeout=3.0, queue=16))


@pytest.fixture(scope="module")
def address(app: Any) -> Iterator[str]:
    """A server on a port of this machine."""
    with running(app) as address:
        yield address


def connected(address: str) -> socket.socket:
    """A connection to the server."""
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=20)


def answered(address: str, image: bytes | None = None) -> bool:
    """Whether an image is answered."""
    request = urllib.request.Request(f"http://{address}/predict", image or image_bytes())
    with urllib.request.urlopen(request, timeout=20) as response:
        return bool(response.status == 200)


def until(condition: Callable[[], bool]) -> None:
    """Wait until something holds, much less than the minute that a request has."""
    for _ in range(400):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("it does not come to hold")


def reply_to(address: str, raw: bytes) -> bytes:
    """All that the server says to some bytes, after which nothing comes."""
    reply = b""
    with connected(address) as connection, contextlib.suppress(ConnectionError):
        connection.sendall(raw)
        connection.shutdown(socket.SHUT_WR)
        while part := connection.recv(4096):
            reply += part
    return reply


def test_what_is_not_http_is_refused_and_others_are_answered(address: str) -> None:
    for raw in RAW:
        assert not reply_to(address, raw).startswith(b"HTTP/1.1 5"), raw[:60]
        assert answered(address)


WHOLE = POST + b"Content-Type: image/png\r\nContent-Length: 9\r\n\r\n\x89PNG\r\n\x1a\n\0"


@given(
    st.binary(max_size=200)
    | st.builds(
        lambda at, cut, more: WHOLE[:at] + more + WHOLE[at + cut :],
        st.integers(0, len(WHOLE)),
        st.integers(0, 9),
        st.binary(max_size=9) | st.sampled_from([b"\r\n", b"\r\n\r\n", b": ", b"0\r\n"]),
    )
)
@settings(max_examples=50, deadline=None)
def test_damaged_requests_are_no_fault(address: str, raw: bytes) -> None:
    assert b"HTTP/1.1 500" not in reply_to(address, raw)
    assert (
        reply_to(address, b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")[9:12]
        == b"200"
    )


@pytest.mark.parametrize(
    ("start", "endless"),
    [
        (b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\na: ", b"a" * 10_000),
        (b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n", b"a: b\r\n" * 2_000),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n", b"a: b\r\n" * 2_000),
    ],
    ids=["header", "headers", "trailers"],
)
def test_endless_headers_are_refused(address: str, start: bytes, endless: bytes) -> None:
    with connected(address) as connection:
        connection.settimeout(1)
        connection.sendall(start + 10 * endless)
        assert connection.recv(100).startswith(b"HTTP/1.1 431")
    assert answered(address)


@pytest.mark.parametrize("size", [70_000, 120_000, 200_000])
def test_large_headers_that_come_at_once_are_refused(address: str, size: int) -> None:
    request = b"GET /v2/health/live HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    with connected(address) as connection:
        for more, status, body in ((60_000, b"200", b'{"live": '), (size, b"431", b'{"error": ')):
            connection.sendall(request + b"a: " + b"a" * more + b"\r\n\r\n")
            reply = b""
            while body not in reply or not reply.endswith(b"}\n"):  # it may come in pieces
                reply += connection.recv(4096) or pytest.fail(f"{reply!r} is all")
            assert reply.startswith(b"HTTP/1.1 " + status)
        with contextlib.suppress(ConnectionError):  # the server may not have read all
            assert connection.recv(100) == b""


def test_a_connection_without_a_request_is_closed(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resnets.serving.connections._PATIENCE", 0.1)
    for start in (b"", POST):
        with connected(address) as connection:
            connection.settimeout(2)
            connection.sendall(start)
            assert connection.recv(100) == b""


def test_slow_clients_do_not_keep_others_waiting(address: str) -> None:
    head = POST + b"Content-Length: 1000\r\n"
    slow = [connected(address) for _ in range(40)]  # half of them send a body: 16 have a place
    try:
        for place, connection in enumerate(slow):
            connection.sendall(head if place % 2 else head + b"\r\n\x89PNG")
        assert answered(address)
        with slow[0] as patient:  # whose headers are whole, and whose body never comes
            assert patient.recv(100).startswith(b"HTTP/1.1 408")
        assert answered(address)
    finally:
        for connection in slow:
            connection.close()


@pytest.mark.parametrize("body", [b"", image_bytes()[:90], image_bytes()])
def test_a_deadline_that_the_client_sets_is_answered_504_however_much_has_arrived(
    address: str, body: bytes
) -> None:
    head = POST + f"Content-Length: {len(image_bytes())}\r\n".encode()
    for timeout in (b"0.0001", b"0.1")[: 1 if body == image_bytes() else 2]:
        with connected(address) as connection:
            connection.sendall(head + b"X-Request-Timeout: " + timeout + b"\r\n\r\n")
            connection.sendall(body)
            answer = connection.recv(1000)
            assert answer.startswith(b"HTTP/1.1 504")
            if body != image_bytes():
                assert b"body" in answer


def test_clients_that_stop_in_large_bodies_do_not_keep_the_room(
    model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resnets.serving.requests._LOOK", 0.3)
    pytest.importorskip("uvicorn", reason="the extra serve is not installed")
    from resnets.serving.app import create_app
    from resnets.serving.served_model import open_served
    from resnets.serving.settings import Settings

    model = open_served(model_file, name="tiny", engine="torch", max_batch=4)
    app = create_app({"tiny": model}, Settings(max_body=1_000_000, timeout=60.0))
    bodies = app.state.server.bodies
    with running(app) as address:
        for length in (b"Content-Length: 990000", b"Transfer-Encoding: chunked"):
            start = POST + length + b"\r\n\r\n" + (b"f1000\r\n" if b"chunk" in length else b"")
            with contextlib.ExitStack() as stack:
                slow = [stack.enter_context(connected(address)) for _ in range(8)]
                for connection in slow:
                    connection.sendall(start + bytes(980_000))
                until(lambda: bodies.taken > 0.9 * bodies.total)
                until(lambda: bodies.taken <= bodies.total // 2)
                assert answered(address, image_bytes(500, "BMP"))
                slow[0].settimeout(1)
                assert slow[0].recv(100).startswith(b"HTTP/1.1 408")
            until(lambda: bodies.taken == 0)


def test_a_slow_client_is_waited_for_while_nobody_needs_the_room(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resnets.serving.requests._LOOK", 0.05)
    with connected(address) as connection:
        connection.sendall(POST + b"Content-Length: 1000\r\n\r\n" + bytes(900))
        time.sleep(0.5)
        connection.sendall(bytes(100))
        assert connection.recv(100).startswith(b"HTTP/1.1 415")


@pytest.mark.parametrize("side", [0, 200])
def test_the_image_of_a_client_that_has_gone_is_not_computed(
    app: Any, address: str, side: int
) -> None:
    """Also where its body was so large that reading from the connection was paused."""
    model = app.state.server.models["tiny"]
    places, computed = app.state.server.answering.places, model.statistics.images
    body = image_bytes(side, "BMP") if side else image_bytes()
    head = POST + b"Content-Length: %d\r\n\r\n" % len(body)
    busy = threading.Event()
    model.threads.submit(busy.wait)  # the thread that computes
    try:
        with connected(address) as stays:
            stays.sendall(head + body)
            with connected(address) as goes:
                goes.sendall(head)
                time.sleep(0.2)  # so that the body comes by itself
                goes.sendall(body)
                until(lambda: places.taken == 2)
            for _ in range(40):  # two seconds, less than the three until a request is given up
                if places.taken == 1:
                    break
                time.sleep(0.05)
            assert places.taken == 1
            busy.set()
            assert stays.recv(100).startswith(b"HTTP/1.1 200")
    finally:
        busy.set()
    until(lambda: places.taken == 0)
    assert model.statistics.images == computed + 1


def test_beyond_its_queue_a_server_refuses_at_once_and_loses_nothing(
    app: Any, address: str
) -> None:
    """Twice as many requests as it takes come while it cannot compute."""
    server = app.state.server
    total = server.answering.places.total
    busy, answers = threading.Event(), list[tuple[int, str | None]]()

    def ask() -> None:
        request = urllib.request.Request(f"http://{address}/predict", image_bytes())
        try:
            with urllib.request.urlopen(request, timeout=20) as response:
                answers.append((response.status, None))
        except urllib.error.HTTPError as error:
            with error:
                answers.append((error.code, error.headers["Retry-After"]))

    clients = [threading.Thread(target=ask) for _ in range(2 * total)]
    server.models["tiny"].threads.put(busy.wait, 20)
    try:
        for client in clients:
            client.start()
        until(lambda: len(answers) == total)
        assert answers == [(503, "1")] * total
    finally:
        busy.set()
        for client in clients:
            client.join()
    assert answers[total:] == [(200, None)] * total
    assert server.in_flight == 0


def test_bodies_together_are_limited(serving: Serving) -> None:
    client = serving(max_body=10_000)
    held = client.app.state.server.bodies
    others = held.total - 5_000  # of requests that are being answered
    held.take(others)
    refused = client.post("/predict", content=bytes(6_000))
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    assert client.post("/predict", content=image_bytes()).status_code == 200
    assert held.taken == others


def test_clients_that_vanish_leave_nothing_behind(app: Any, address: str) -> None:
    server = app.state.server
    body = image_bytes(200)
    whole = POST + b"Content-Length: %d\r\n\r\n" % len(body)

    def vanish(place: int) -> None:
        with connected(address) as connection:
            connection.sendall((whole + body)[: place * 5000 + 10])

    threads = [threading.Thread(target=vanish, args=(place,)) for place in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for _ in range(5):
        assert answered(address)
    pause = threading.Event()
    for _ in range(400):
        if not server.in_flight:
            break
        pause.wait(0.05)
    assert server.in_flight == 0
    assert all(model.batcher.waiting == 0 for model in server.models.values())


def test_no_address_or_path_of_a_client_is_opened(
    serving: Serving, model_file: Path, tmp_path: Path
) -> None:
    image = tmp_path / "image.png"
    image.write_bytes(image_bytes())
    client = serving(control=True, collect=tmp_path / "labels")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = "http://{}:{}/image.png".format(*listener.getsockname())
        for word in (url, str(image), image.as_uri(), f"@{image}"):
            text = word.encode()
            inputs = [{"b64": base64.b64encode(text).decode()}, base64.b64encode(text).decode()]
            tensor = {"name": "files", "datatype": "BYTES", "shape": [1]}
            binary = struct.pack("<I", len(text)) + text
            head = json.dumps(
                {"inputs": [tensor | {"parameters": {"binary_data_size": len(binary)}}]}
            ).encode()
            length = {"Inference-Header-Content-Length": str(len(head))}
            infer = "/v2/models/tiny/infer"
            responses = [
                client.post("/predict", content=text),
                client.post("/predict", json={"url": word, "image": word}),
                client.post("/predict", data={"file": word, "url": word}),
                client.post("/predict", files={"file": (word, text)}),
                client.post(infer, content=head + binary, headers=length),
                *(client.post(infer, json={"inputs": [tensor | {"data": [x]}]}) for x in inputs),
                client.post(infer, json={"inputs": [tensor | {"data": [word]}]}),
                client.post("/predict", params={"image": word}),
                client.post("/collect", params={"label": "cat", "image": word}),
                client.post("/collect", params={"label": "cat"}, content=text),
                client.post(f"/v2/repository/models/{quote(word, safe='')}/load"),
            ]
            assert [x.status_code for x in responses if not 400 <= x.status_code < 500] == []
            # what comes under such a name is what was sent
            sent = client.post("/predict", files={"file": (word, image_bytes(seed=1))})
            alone = client.post("/predict", content=image_bytes(seed=1))
            (under_name,), (plain,) = (x.json()["predictions"] for x in (sent, alone))
            assert under_name["probability"] == pytest.approx(plain["probability"], abs=1e-6)
        for name in (str(model_file), url):
            asked = client.post("/predict", params={"model": name}, content=image_bytes())
            assert asked.status_code == 404
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()
