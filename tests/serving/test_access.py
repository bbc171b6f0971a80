"""Who may ask: other sites' pages may not, nor names that lead here, nor callers without a key."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("starlette", reason="the extra serve is not installed")

from starlette.datastructures import Headers
from starlette.testclient import TestClient

from resnets.commands.serve import _warn_of_others
from resnets.errors import UsageError
from resnets.serving.access import (
    Access,
    Keys,
    Rate,
    Refused,
    check_hosts,
    check_origins,
    parse_rate,
)
from resnets.serving.settings import Settings
from tests.serving.conftest import image_bytes

Serving = Callable[..., Any]
KEY, OTHER = "a-key-of-enough-length", "another-key-of-enough-length"
SENT = {"Authorization": f"Bearer {KEY}"}
LOGGER = "resnets.serving"


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    file = tmp_path / "keys.txt"
    file.write_text(f"# of the tests\n{KEY}\n\n{OTHER}\n", encoding="utf-8")
    return Keys.of_file(file)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8000", 200),
        ("localhost", 200),
        ("[::1]:8000", 200),
        ("192.168.1.5:8000", 200),  # an address cannot be bound anew
        ("rebound.example.org", 403),
        ("127.0.0.1.example.org", 403),
        ("", 403),
        ("[", 403),
    ],
)
def test_names_that_were_bound_to_this_machine_are_refused(
    serving: Serving, host: str, status: int
) -> None:
    response = serving().post("/predict", content=image_bytes(), headers={"Host": host})
    assert response.status_code == status
    if host in ("", "["):  # no name that could be allowed
        assert "--allow-host" not in response.text


def test_a_host_name_can_be_allowed_and_a_key_allows_any(serving: Serving, keys: Keys) -> None:
    headers = {"Host": "photos.example.org"}
    client = serving(access=Access(hosts=("photos.example.org",)))
    assert client.get("/metrics", headers=headers).status_code == 200
    client = serving(access=Access(keys=keys))
    headers |= {"Authorization": f"Bearer {KEY}"}
    assert client.get("/metrics", headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "http://127.0.0.1"}, 200),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://["}, 403),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),  # another port of this machine
        ({"Origin": "https://photos.example"}, 200),
    ],
)
def test_pages_of_other_sites_cannot_post(
    serving: Serving, headers: dict[str, str], status: int
) -> None:
    client = serving(access=Access(origins=("https://photos.example",)))
    assert client.post("/predict", content=image_bytes(), headers=headers).status_code == status


def test_listed_origins_may_read_the_answer(serving: Serving) -> None:
    client = serving(access=Access(origins=check_origins(["https://photos.example/"])))
    headers = {"Origin": "https://photos.example", "Access-Control-Request-Method": "POST"}
    preflight = client.options("/predict", headers=headers)
    assert preflight.headers["access-control-allow-origin"] == "https://photos.example"
    other = client.options("/predict", headers=headers | {"Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in other.headers
    for wrong in ("photos.example", "https://photos.example/path", "https://", "http://["):
        with pytest.raises(UsageError, match="--cors"):
            check_origins([wrong])


@pytest.mark.parametrize(
    "host",
    ["http://x.example", "x.example:8116", "[::1]", "x.example/", "*.x.example", "b\u00fc", ""],
)
def test_a_host_that_no_request_could_name_is_refused(host: str) -> None:
    with pytest.raises(UsageError, match="--allow-host"):
        check_hosts([host])


def test_hosts_are_names_and_addresses(serving: Serving) -> None:
    names = ("X.example", "a-b_c.example.", "xn--b-xba.example", "10.0.0.1", "::1", "*")
    assert check_hosts(names) == names
    client = serving(access=Access(hosts=check_hosts(names[:3])))
    for name in names[:3]:
        headers = {"Host": f"{name}:8000"}
        assert client.get("/metrics", headers=headers).status_code == 200


@pytest.mark.parametrize("path", ["/a/../b", "/..", "/a//b", "/./a", "/%2e%2e/a", "/a?b", "/a#b"])
def test_a_root_path_that_browsers_change_is_refused(path: str) -> None:
    with pytest.raises(UsageError, match="--root-path"):
        Settings(root_path=path)


def test_without_a_key_only_probes_and_plain_pages_are_answered(
    serving: Serving, keys: Keys
) -> None:
    client = serving(access=Access(keys=keys))
    for path in ("/v2/health/live", "/v2/health/ready", "/", "/docs", "/openapi.json"):
        assert client.get(path).status_code == 200
    under = TestClient(client.app, base_url="http://127.0.0.1/r", root_path="/r")
    assert [under.get(path).status_code for path in ("/v2/health/ready", "/v2")] == [200, 401]
    for headers in ({}, {"Authorization": "Bearer nonsense"}, {"X-API-Key": KEY + "x"}):
        response = client.post("/predict", content=image_bytes(), headers=headers)
        assert response.status_code == 401
        assert ("none of" in response.json()["error"]) == bool(headers)
        assert client.get("/metrics", headers=headers).status_code == 401
    for headers in ({"Authorization": f"Bearer {KEY}"}, {"X-API-Key": OTHER}):
        response = client.post("/predict", content=image_bytes(), headers=headers)
        assert response.status_code == 200


def test_one_right_key_is_enough_and_other_kinds_are_told_how_to_send_it(
    serving: Serving, keys: Keys
) -> None:
    client = serving(access=Access(keys=keys))
    for other in ("Bearer nonsense", f"Basic {KEY}", KEY, ""):
        headers = {"Authorization": other, "X-API-Key": KEY}
        assert client.get("/model", headers=headers).status_code == 200
    for other in (f"Basic {KEY}", KEY, "Bearer"):
        refused = client.get("/model", headers={"Authorization": other})
        assert refused.status_code == 401
        assert "none of" not in refused.json()["error"]
        assert "Bearer" in refused.json()["error"]


def test_wrong_keys_are_limited_by_address_and_keep_nobody_else_out(
    serving: Serving, keys: Keys
) -> None:
    now = 0.0
    client = serving(access=Access(keys=keys, rate=Rate(2.0, clock=lambda: now)))

    def status(path: str = "/model", **headers: str) -> int:
        return int(client.get(path, headers=headers).status_code)

    wrong = [{"X-API-Key": "wrong"}, {"Authorization": "Bearer wrong"}, {"X-API-Key": "x"}]
    assert [status(**headers) for headers in wrong] == [401, 401, 429]
    assert status() == 401  # no key is tried: the page asks so before it knows that one is needed
    assert [status(path) for path in ("/", "/static/app.js", "/v2/health/ready")] == [200] * 3
    assert [status(**{"X-API-Key": key}) for key in (KEY, KEY, OTHER, KEY)] == [200, 200, 200, 429]
    now = 1.0
    assert status(**wrong[0]) == 401


def test_who_is_refused_is_in_the_log_by_address(
    serving: Serving, keys: Keys, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "resnets.serving")
    client = serving(access=Access(keys=keys, rate=Rate(1 / 3600)))
    statuses = [client.get("/model", headers=headers).status_code for headers in (SENT, SENT, {})]
    assert statuses == [200, 429, 401]
    client.app.state.server.responses.count()
    lines = [json.loads(record.message) for record in caplog.records if record.name == LOGGER]
    assert [line["status"] for line in lines] == statuses
    assert [line["caller"] for line in lines[1:]] == ["testclient"] * 2


def test_the_log_says_why_but_nothing_of_the_content(
    serving: Serving, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", LOGGER)
    client = serving(max_body=1000)
    origin = {"Origin": "https://photos.example:8443"}
    as_form = {"Content-Type": "application/x-www-form-urlencoded"}
    for body, headers in ((b"", origin), (b"secret", as_form), (b"x" * 1001, {}), (b"", {})):
        client.post("/predict?secret=1" if not body else "/predict", content=body, headers=headers)
    client.app.state.server.responses.count()
    lines = [json.loads(record.message) for record in caplog.records if record.name == LOGGER]
    assert [line["status"] for line in lines] == [403, 415, 413, 400]
    assert ["reason" in line for line in lines] == [True, False, True, False]
    assert origin["Origin"] in lines[0]["reason"]
    assert "127.0.0.1" in lines[0]["reason"]
    assert "secret" not in json.dumps(lines)


def test_who_is_refused_counts_as_a_request_to_the_path(serving: Serving, keys: Keys) -> None:
    client = serving(access=Access(keys=keys, rate=Rate(1 / 3600)))
    for path in ("/predict", "/v2/models/tiny/infer", "/nothing-here"):
        assert client.post(path, content=image_bytes()).status_code == 401
    assert client.get("/model", headers=SENT).status_code == 200
    assert client.post("/predict", content=image_bytes(), headers=SENT).status_code == 429
    client.app.state.server.responses.count()
    text = client.app.state.server.metrics.text().decode()
    counts = dict(line.rsplit(" ", 1) for line in text.splitlines() if "requests_total{" in line)
    for path, status in (
        ("/predict", 401),
        ("/predict", 429),
        ("/v2/models/{name}/infer", 401),
        ("other", 401),
    ):
        assert float(counts[f'resnets_requests_total{{path="{path}",status="{status}"}}']) == 1


def test_files_without_a_sound_key_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    with pytest.raises(UsageError):
        Keys.of_file(file)
    for text in ("", "# only a comment\n", "short\n", "with spaces in the middle of it\n"):
        file.write_text(text, encoding="utf-8")
        with pytest.raises(UsageError):
            Keys.of_file(file)
    file.write_bytes(b"\x91" * 32)
    with pytest.raises(UsageError, match="keys"):
        Keys.of_file(file)
    file.write_text("# two\na-key-of-enough-length\n\nshort\n", encoding="utf-8")
    with pytest.raises(UsageError, match="line 4"):
        Keys.of_file(file)


def test_a_rate_holds_for_each_caller_and_recovers() -> None:
    now = 0.0
    rate = Rate(parse_rate("2/s"), clock=lambda: now)
    rate.take("a")
    rate.take("a")
    with pytest.raises(Refused) as refused:
        rate.take("a")
    assert refused.value.status == 429
    assert int(refused.value.headers["Retry-After"]) >= 1
    rate.take("b")
    now = 0.5
    rate.take("a")
    with pytest.raises(Refused):
        rate.take("a")
    now = 1000.0
    for _ in range(2):  # no more is saved up than a second's worth
        rate.take("a")
    with pytest.raises(Refused):
        rate.take("a")


def test_a_rate_is_kept_by_the_server(serving: Serving) -> None:
    client = serving(access=Access(rate=Rate(parse_rate("1/h"))))
    assert client.post("/predict", content=image_bytes()).status_code == 200
    response = client.post("/predict", content=image_bytes())
    assert response.status_code == 429
    assert int(response.headers["Retry-After"]) > 60
    assert client.get("/v2/health/ready").status_code == 200


@pytest.mark.parametrize("text", ["", "x", "0/s", "-1/s", "nan/s", "inf/s", "10/day", "10/"])
def test_what_is_no_rate_is_refused(text: str) -> None:
    if text == "10/":
        assert parse_rate(text) == 10
        return
    with pytest.raises(UsageError, match="--rate"):
        parse_rate(text)


def test_models_are_controlled_with_a_key_or_from_this_machine(keys: Keys) -> None:
    assert Access().may_control(Headers({}), "127.0.0.1")
    assert not Access().may_control(Headers({}), "10.0.0.7")
    assert not Access().may_control(Headers({}), "")
    for header in ("X-Forwarded-For", "Forwarded", "Via", "X-Real-IP", "X-Forwarded-Proto"):
        assert not Access().may_control(Headers({header: "10.0.0.7"}), "127.0.0.1")
    assert not Access(keys=keys).may_control(Headers({}), "127.0.0.1")
    assert Access(keys=keys).may_control(Headers({"X-API-Key": KEY}), "10.0.0.7")


@pytest.mark.parametrize(
    ("host", "key", "warned"),
    [
        ("0.0.0.0", None, True),
        ("::", None, True),
        ("192.168.1.5", None, True),
        ("0.0.0.0", Path("keys"), False),
        ("127.0.0.1", None, False),
        ("::1", None, False),
    ],
)
def test_a_server_that_others_reach_without_a_key_is_warned_of(
    host: str, key: Path | None, warned: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    _warn_of_others(host, key)
    assert ("--api-key" in capsys.readouterr().err) == warned
