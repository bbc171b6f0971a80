"""Runs that log to services: these draw what happens, and neither stop a run nor delay it."""

import _thread
import json
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import resnets
from resnets.commands import train
from resnets.errors import UsageError
from resnets.runs import background
from resnets.runs.background import Background
from resnets.runs.loggers import _curves

NOISE = np.random.default_rng(0).integers(0, 256, (60, 8, 8, 3), np.uint8)
DATA = (NOISE, np.arange(60) % 2)
QUICK: dict[str, Any] = {
    **{"network": "resnet14", "image_size": 8, "epochs": 2, "batch_size": 16, "report": False},
    **{"progress": False, "log_every": 2, "checkpoint_every": "1"},
}


class Server:
    """What an MLflow server and its client would do, in this process."""

    def __init__(self) -> None:
        self.metrics: list[tuple[str, float, int]] = []
        self.params: dict[str, str] = {}
        self.files: list[str] = []
        self.status: list[str] = []
        self.away: Exception | None = None
        self.hangs: threading.Event | None = None

    def create_run(self, experiment: str, run_name: str) -> Any:
        self.status.append("RUNNING")
        return SimpleNamespace(info=SimpleNamespace(run_id="1"))

    def update_run(self, run: str, status: str) -> None:
        if self.away:
            raise self.away
        self.status.append(status)

    def log_param(self, run: str, name: str, value: str) -> None:
        self.params[name] = value

    def log_metric(self, run: str, name: str, value: float, step: int) -> None:
        if self.hangs:
            self.hangs.wait(300)
        if self.away:
            raise self.away
        self.metrics.append((name, value, step))

    def log_artifact(self, run: str, path: str) -> None:
        if self.away:
            raise self.away
        self.files.append(Path(path).name)

    def set_terminated(self, run: str, status: str = "FINISHED") -> None:
        if self.away:
            raise self.away
        self.status.append(status)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    made = Server()
    module = SimpleNamespace(
        MlflowClient=lambda: made,
        set_experiment=lambda _: SimpleNamespace(experiment_id="0"),
    )
    monkeypatch.setitem(sys.modules, "mlflow", module)  # type: ignore[arg-type]
    monkeypatch.setattr(background, "_PATIENCE", dict.fromkeys(background._PATIENCE, 0.3))
    yield made
    if made.hangs:
        made.hangs.set()


class Wandb:
    """What Weights & Biases would do, in this process."""

    def __init__(self) -> None:
        self.logged: list[dict[str, float]] = []
        self.files: list[str] = []
        self.exit_codes: list[int] = []
        self.config: dict[str, Any] = {}

    def setup(self) -> Any:
        return SimpleNamespace(settings=SimpleNamespace(mode="online", api_key=None))

    def init(self, config: dict[str, Any], **_: Any) -> "Wandb":
        self.config = config
        return self

    def log(self, figures: dict[str, float], step: int) -> None:
        self.logged.append(figures)

    def Artifact(self, name: str, type: str) -> Any:  # noqa: A002, N802  (its own names)
        return SimpleNamespace(add_file=lambda path: self.files.append(Path(path).name))

    def log_artifact(self, artifact: Any) -> None:
        """They are taken already."""

    def finish(self, exit_code: int) -> None:
        self.exit_codes.append(exit_code)


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Wandb:
    made = Wandb()
    monkeypatch.setitem(sys.modules, "wandb", made)  # type: ignore[arg-type]
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    return made


def run(tmp_path: Path, service: str, *callbacks: Callable[[Any], object]) -> resnets.Run:
    return resnets.train(
        DATA, output=tmp_path / "run", callbacks=callbacks, log_to=(service,), **QUICK
    )


def at_step(step: int, action: Callable[[], object]) -> Callable[[Any], None]:
    def callback(record: Any) -> None:
        if isinstance(record, resnets.Step) and record.step == step:
            action()

    return callback


def test_an_outage_in_mid_training_is_told_and_ends_nothing(tmp_path: Path, server: Server) -> None:
    notices: list[str] = []

    def outage() -> None:
        server.away = ConnectionResetError("connection reset by peer")

    def listen(record: Any) -> None:
        if isinstance(record, resnets.Notice):
            notices.append(record.text)

    trained = run(tmp_path, "mlflow", at_step(3, outage), listen)
    assert trained.stopped is None
    assert trained.history.finished
    assert trained.history.step == 6
    about_mlflow = [text for text in notices if "mlflow" in text]
    assert len(about_mlflow) == 2  # once when it begins, once at the end
    assert "connection reset by peer" in about_mlflow[0]
    assert "log.jsonl" in about_mlflow[1]


def test_a_service_that_hangs_delays_no_step_and_not_the_end(
    tmp_path: Path, server: Server
) -> None:
    server.hangs = threading.Event()
    trained = run(tmp_path, "mlflow")
    assert trained.history.finished
    assert server.metrics == []
    assert server.status == ["RUNNING"]


def test_what_does_not_fit_into_the_queue_is_left_out_and_counted() -> None:
    free = threading.Event()
    taken: list[int] = []

    def write(record: Any) -> None:
        free.wait(300)
        taken.append(record["step"])

    sink = SimpleNamespace(write=write, close=lambda _: None)
    logger = Background("slow", sink, pending=2)  # type: ignore[arg-type]
    logger.write({"step": 0})
    while logger.queue.qsize():  # until the thread has it
        time.sleep(0.001)
    for step in range(1, 10):
        logger.write({"step": step})
    free.set()
    logger.close()
    assert taken == [0, 1, 2]
    messages = logger.messages()
    assert "does not keep up" in messages[0]
    assert "7 records" in messages[1]


@pytest.mark.soak
@pytest.mark.own_process
@pytest.mark.parametrize("ending", ["finished", "crash", "stop button"])
def test_services_learn_how_a_run_ended(
    tmp_path: Path, server: Server, wandb: Wandb, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    actions: dict[str, Callable[[], object]] = {
        "finished": lambda: None,
        "crash": lambda: 1 / 0,
        "stop button": _thread.interrupt_main,  # no real signal: one has ended a test process
    }
    words: dict[str, Any] = QUICK | {"log_to": ("mlflow", "wandb")}
    try:
        resnets.train(
            DATA, output=tmp_path / "run", callbacks=[at_step(3, actions[ending])], **words
        )
    except ZeroDivisionError:
        assert ending == "crash"
    status = {"finished": "FINISHED", "crash": "FAILED", "stop button": "KILLED"}[ending]
    assert server.status == ["RUNNING", status]
    assert (wandb.exit_codes == [0]) == (ending == "finished")
    assert len(wandb.exit_codes) == 1


@pytest.mark.own_process
def test_ctrl_c_of_the_command_is_no_finished_run_and_resume_goes_on_in_the_same(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    words = ["digits", "--network", "resnet14", "--image-size", "8", "--epochs", "1"]
    words += ["--workers", "0", "--no-report", "--log-to", "mlflow", "--checkpoint-every", "1"]
    original = server.log_metric

    def interrupt(*arguments: Any, **keywords: Any) -> None:
        monkeypatch.setattr(server, "log_metric", original)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(server, "log_metric", interrupt)
    assert train.main([*words, "--log-every", "1", "--output", str(folder)]) == 130
    assert server.status == ["RUNNING", "KILLED"]
    assert train.main(["--resume", str(folder)]) == 0
    assert server.status == ["RUNNING", "KILLED", "RUNNING", "FINISHED"]


def test_figures_over_epochs_and_over_intervals_are_not_one_curve_and_constants_are_none(
    tmp_path: Path, server: Server
) -> None:
    trained = run(tmp_path, "mlflow")
    values: dict[str, list[float]] = {}
    for name, value, _ in server.metrics:
        values.setdefault(name, []).append(value)
    intervals, epochs = trained.history.of("interval"), trained.history.epochs
    assert values["interval/training/loss"] == [each["training"]["loss"] for each in intervals]
    assert values["training/loss"] == [each["training"]["loss"] for each in epochs]
    assert values["epoch"] == [each["epoch"] for each in trained.history if "epoch" in each]
    assert not [name for name in values if name.endswith(("images", "steps", "threads"))]
    assert server.params["recipe/network"] == "resnet14"
    assert server.params["beginning/fingerprint"] == trained.history.start["fingerprint"]
    assert _curves({"kind": "start", "step": 0, "threads": 4}) == {}


@pytest.mark.parametrize("service", ["mlflow", "wandb"])
def test_model_and_report_are_stored(
    tmp_path: Path,
    server: Server,
    wandb: Wandb,
    monkeypatch: pytest.MonkeyPatch,
    service: str,
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    words: dict[str, Any] = QUICK | {"log_to": (service,), "report": True}
    resnets.train(DATA, output=tmp_path / "run", **words)
    assert (server.files or wandb.files) == ["model.safetensors", "report.html"]


def test_resume_goes_on_without_a_service_that_is_away_or_not_installed(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ZeroDivisionError):
        run(tmp_path, "mlflow", at_step(3, lambda: 1 / 0))
    config = tmp_path / "run" / "config.toml"
    text = config.read_text(encoding="utf-8").replace('["mlflow"]', '["mlflow", "wandb"]')
    config.write_text(text, encoding="utf-8")
    monkeypatch.setitem(sys.modules, "wandb", None)  # as if it were not installed
    server.away = ConnectionError("no route to host")
    notices: list[str] = []

    def listen(record: Any) -> None:
        if isinstance(record, resnets.Notice):
            notices.append(record.text)

    resumed = resnets.resume(tmp_path / "run", data=DATA, callbacks=[listen], progress=False)
    assert resumed.history.finished
    text = "\n".join(text for text in notices if "without" in text)
    assert "without mlflow: no route to host" in text
    assert "without wandb" in text


@pytest.mark.parametrize("mode", ["online", "offline"])
def test_a_missing_key_is_found_before_there_is_a_folder(
    tmp_path: Path, wandb: Wandb, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    monkeypatch.setenv("WANDB_MODE", mode)
    if mode == "offline":
        run(tmp_path, "wandb")
        assert wandb.exit_codes == [0]
        return
    with pytest.raises(UsageError, match="WANDB_API_KEY"):
        run(tmp_path, "wandb")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "none").write_text(
        "machine api.wandb.ai login user password " + "0" * 40, encoding="utf-8"
    )
    (tmp_path / "none").chmod(0o600)
    run(tmp_path, "wandb")


def test_a_server_that_is_away_is_found_before_there_is_a_folder(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as taken:  # bound, but nobody listens
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
        with pytest.raises(ConnectionError, match=rf"127\.0\.0\.1:{port}.*MLFLOW_TRACKING_URI"):
            run(tmp_path, "mlflow")
    assert list(tmp_path.iterdir()) == []


def test_a_service_that_refuses_is_found_before_there_is_a_folder(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: str) -> None:
        raise ModuleNotFoundError("No module named 'alembic'")  # as MLflow without its database

    monkeypatch.setattr(sys.modules["mlflow"], "set_experiment", refuse)
    with pytest.raises(
        ConnectionError, match=r"mlflow: .*alembic.* MLFLOW_TRACKING_URI .*pip install"
    ):
        run(tmp_path, "mlflow")
    assert list(tmp_path.iterdir()) == []


def test_tensorboard_shows_the_configuration(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    resnets.train(DATA, output=tmp_path / "run", **QUICK)
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    (config,) = events.Tensors("config/text_summary")
    text = config.tensor_proto.string_val[0].decode()
    assert "| recipe/network | resnet14 |" in text
    lines = (tmp_path / "run" / "log.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(lines[0])["fingerprint"] in text
    assert {"training/loss", "interval/training/loss"} <= set(events.Tags()["scalars"])
