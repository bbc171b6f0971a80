"""What --print writes is what its reader accepts, and runs the server that was asked for."""

import gzip
import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from resnets.cli import main
from resnets.serving.deployment_files import _place_of
from resnets.serving.served_model import name_of

yaml = pytest.importorskip("yaml", reason="the extra serve is not installed")

SCHEMAS = Path(__file__).parents[1] / "fixtures" / "schemas"
Printed = Callable[..., str]


@pytest.fixture
def printed(model_file: Path, capsys: pytest.CaptureFixture[str]) -> Printed:
    """What `resnets serve --print` prints for a model and flags."""

    def run(target: str, *flags: str, model: str = str(model_file)) -> str:
        assert main(["serve", model, "--print", target, *flags]) == 0
        return capsys.readouterr().out

    return run


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    file = tmp_path / "100% my keys"
    file.write_text("a-key-of-enough-length\n", encoding="utf-8")
    return file


def schema_of(file: str) -> Any:
    """A schema of the fixtures."""
    return json.loads(gzip.decompress((SCHEMAS / file).read_bytes()))


def check(kind: str, document: Any) -> None:
    """Validate a document by Kubernetes' own schema."""
    schema = schema_of("kubernetes-1.37.json.gz") | {"$ref": f"#/$defs/io.k8s.api.{kind}"}
    jsonschema.Draft202012Validator(schema).validate(document)


def containers(document: Any) -> Iterator[Any]:
    """The containers in a document, wherever they are."""
    if isinstance(document, dict):
        yield from document.get("containers", ())
        for value in document.values():
            yield from containers(value)


def test_the_schema_refuses_what_kubernetes_would() -> None:
    with pytest.raises(jsonschema.ValidationError):
        check("core.v1.PodSpec", {"containers": [{"name": "a", "imagee": "b"}]})


def test_kubernetes_takes_the_deployment_and_the_service(printed: Printed, keys: Path) -> None:
    for flags in ((), ("--api-key", str(keys), "--rate", "10/s", "--grace", "7")):
        runs, service = yaml.safe_load_all(printed("kubernetes", *flags))
        check("apps.v1.Deployment", runs)
        check("core.v1.Service", service)
        pod = runs["spec"]["template"]
        assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
        (container,) = containers(runs)
        assert container["securityContext"]["readOnlyRootFilesystem"]
        assert pod["spec"]["securityContext"]["runAsNonRoot"]
    assert pod["spec"]["terminationGracePeriodSeconds"] > 7
    assert "--rate" in container["args"]
    mounted = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert str(Path(container["args"][container["args"].index("--api-key") + 1]).parent) in mounted


@pytest.mark.parametrize("target", ["kubernetes", "kserve"])
def test_a_file_of_keys_and_a_shadow_are_where_the_command_looks_for_them(
    printed: Printed, keys: Path, target: str, model_file: Path, tmp_path: Path
) -> None:
    other = shutil.copy(model_file, tmp_path / "other one.safetensors")
    text = printed(target, "--api-key", str(keys), "--shadow", str(other))
    document = next(yaml.safe_load_all(text))
    (container,) = containers(document)
    args, mounts = container["args"], container["volumeMounts"]
    place = Path(args[args.index("--api-key") + 1]).parent
    (mount,) = [each for each in mounts if each["mountPath"] == str(place)]
    if target == "kserve":
        pod = document["spec"]["predictor"]
    else:
        pod = document["spec"]["template"]["spec"]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    secret = volumes[mount["name"]]["secret"]["secretName"]
    assert f"create secret generic {secret} --from-file keys='{keys}'" in text
    assert "prometheus.io/scrape" not in text
    assert "prometheus.io/scrape" in printed("kubernetes")
    models = {str(Path(args[1]).parent), str(Path(args[args.index("--shadow") + 1]).parent)}
    assert len(models) == 1
    assert "other one.safetensors" in text.partition("apiVersion")[0]


def test_kserve_takes_the_predictor(printed: Printed) -> None:
    service = yaml.safe_load(printed("kserve"))
    assert service["apiVersion"] == "serving.kserve.io/v1beta1"
    assert service["kind"] == "InferenceService"
    mode = service["metadata"]["annotations"]["serving.kserve.io/deploymentMode"]
    assert mode == "RawDeployment"  # Knative refuses fsGroup
    schema = jsonschema.Draft202012Validator(schema_of("kserve-0.20.json.gz"))
    schema.validate(service)
    with pytest.raises(jsonschema.ValidationError):
        schema.validate(service | {"spec": {"predictor": {"minReplica": 1}}})
    predictor = service["spec"]["predictor"]
    assert predictor.pop("minReplicas") == 1  # of KServe; the others are those of a pod
    check("core.v1.PodSpec", predictor)


def test_compose_takes_the_service(printed: Printed, keys: Path, tmp_path: Path) -> None:
    file = tmp_path / "compose.yaml"
    file.write_text(printed("compose", "--api-key", str(keys)), encoding="utf-8")
    words = ["-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(file)]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    (service,) = yaml.safe_load(file.read_text(encoding="utf-8"))["services"].values()
    for volume in service["volumes"]:
        assert Path(volume["source"]).exists()
    assert service["read_only"]


READY, LIVE = "/v2/health/ready", "/v2/health/live"


@pytest.mark.parametrize("target", ["kubernetes", "kserve"])
def test_a_pod_has_probes_limits_and_few_rights(printed: Printed, target: str) -> None:
    document = next(yaml.safe_load_all(printed(target)))
    spec = document["spec"]
    pod = spec["predictor"] if target == "kserve" else spec["template"]["spec"]
    (container,) = containers(document)
    probes = {"startupProbe": READY, "readinessProbe": READY, "livenessProbe": LIVE}
    for probe, path in probes.items():
        assert container[probe]["httpGet"]["path"] == path
        assert container[probe]["httpGet"]["port"] == container["ports"][0]["containerPort"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["runAsUser"] > 0
    rights = container["securityContext"]
    assert rights["readOnlyRootFilesystem"]
    assert not rights["allowPrivilegeEscalation"]
    assert rights["capabilities"] == {"drop": ["ALL"]}
    assert container["resources"]["limits"]["memory"]


def test_a_container_of_compose_has_a_probe_limits_and_few_rights(printed: Printed) -> None:
    (service,) = yaml.safe_load(printed("compose"))["services"].values()
    assert READY in " ".join(service["healthcheck"]["test"])
    assert int(str(service["user"]).partition(":")[0]) > 0
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert service["mem_limit"]


def test_a_unit_of_systemd_tells_when_it_is_ready_and_has_limits_and_few_rights(
    printed: Printed,
) -> None:
    lines = printed("systemd").splitlines()
    assert {
        *("Type=notify", "DynamicUser=yes", "ProtectSystem=strict", "NoNewPrivileges=yes"),
        *("CapabilityBoundingSet=", "Restart=on-failure"),
    } <= {*lines}
    assert any(line.startswith("MemoryMax=") for line in lines)


def test_systemd_takes_the_unit(printed: Printed, keys: Path, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    text = printed("systemd", "--api-key", str(keys), "--cors", "https://a.example")
    path = str(keys).replace("%", "%%")
    assert f"LoadCredential=api-key:{path}\n" in text
    assert "%d/api-key" in text
    assert "ReadWritePaths=" in printed("systemd", "--collect", "labels of ours")
    unit = tmp_path / "resnets-test.service"
    unit.write_text(text, encoding="utf-8")
    command = ["systemd-analyze", "verify", "--man=no", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = [line for line in done.stderr.splitlines() if unit.name in line]
    assert not lines


def test_a_unit_of_systemd_runs_the_command_that_printed_it(printed: Printed) -> None:
    place = ("--host", "0.0.0.0", "--allow-host", "a.example", "b.example")
    more = ("--shadow", "resnet14_cifar10", "--no-access-log", "--max-body", "20MB")
    text = printed("systemd", *place, *more, model="resnet20_cifar10")
    for word in (*place, *more):
        assert word in text
    line = next(each for each in text.splitlines() if each.startswith("ExecStart="))
    words = shlex.split(line.removeprefix("ExecStart="))
    assert Path(words[0]).is_absolute()
    done = subprocess.run(
        [*words, "--print", "systemd"], capture_output=True, text=True, check=False
    )
    assert done.stdout == text


def test_a_unit_of_systemd_reads_files_of_tls_as_root_and_may_listen_on_the_port_of_https(
    printed: Printed, tmp_path: Path
) -> None:
    for name in ("chain.pem", "key.pem"):
        (tmp_path / name).touch()
    flags = ("--tls-certificate", str(tmp_path / "chain.pem"), "--tls-key")
    text = printed("systemd", *flags, str(tmp_path / "key.pem"), "--port", "443")
    command = next(line for line in text.splitlines() if line.startswith("ExecStart="))
    for flag, name in (("tls-certificate", "chain.pem"), ("tls-key", "key.pem")):
        assert f"LoadCredential={flag}:{tmp_path / name}" in text
        assert f"--{flag} %d/{flag}" in command
    assert str(tmp_path / "key.pem") not in command
    assert "AmbientCapabilities=CAP_NET_BIND_SERVICE" in text
    assert "CAP_NET_BIND_SERVICE" not in printed("systemd")


@pytest.mark.parametrize("target", ["compose", "kubernetes", "kserve"])
def test_a_comment_says_how_to_ask_for_keys_where_none_is_needed(
    printed: Printed, keys: Path, target: str
) -> None:
    for flags, is_open in (((), True), (("--api-key", str(keys)), False)):
        comments = [x for x in printed(target, *flags).splitlines() if x.startswith("#")]
        assert any("--api-key" in line for line in comments) == is_open
        assert any(keys.name in line for line in comments) != is_open


@pytest.mark.parametrize("target", ["compose", "kubernetes", "kserve"])
def test_a_model_has_the_name_in_a_container_that_it_has_here(
    printed: Printed, model_file: Path, tmp_path: Path, target: str
) -> None:
    """By which requests name it, also that of a run and of a file that is called model."""
    for folder in ("ants", "bees"):
        (tmp_path / folder).mkdir()
        shutil.copy(model_file, tmp_path / folder / "model.safetensors")
    names = [name_of(Path("ants/model.safetensors")), name_of(Path("model.safetensors"))]
    assert names == ["ants", "model"]
    for word, name in (("ants", "ants"), ("ants/model.safetensors", "ants")):
        (words,) = _commands(printed(target, model=str(tmp_path / word)))
        assert name_of(Path(words[1])) == name
    assert name_of(Path("/models") / _place_of(Path("model.safetensors"))) == "model"
    more = () if target == "kserve" else (str(tmp_path / "bees"),)
    (words,) = _commands(printed(target, *more, model=str(tmp_path / "ants")))
    assert [name_of(Path(each)) for each in words[1 : 2 + len(more)]] == ["ants", "bees"][
        : 1 + len(more)
    ]


def _commands(text: str) -> list[list[str]]:
    """The words of the containers that a file runs."""
    documents = [*yaml.safe_load_all(text)]
    services = [each.get("services", {}).values() for each in documents]
    compose = [service["command"] for group in services for service in group]
    return compose + [each["args"] for document in documents for each in containers(document)]


@pytest.mark.parametrize("target", ["compose", "kubernetes", "kserve"])
def test_host_names_that_are_allowed_are_those_that_were_given(
    printed: Printed, keys: Path, target: str
) -> None:
    def hosts(*flags: str) -> list[str]:
        (words,) = _commands(printed(target, *flags, model="resnet20_cifar10"))
        place = words.index("--allow-host") + 1 if "--allow-host" in words else len(words)
        return words[place : place + 2]

    assert hosts("--allow-host", "a.example", "b.example") == ["a.example", "b.example"]
    assert hosts()[:1] == ["*"]
    assert hosts("--api-key", str(keys)) == []


@pytest.mark.parametrize("target", ["systemd", "compose", "kubernetes", "kserve"])
@pytest.mark.parametrize("line_break", ["\n", "\u2028"])
def test_a_name_that_would_go_on_as_a_line_of_the_file_is_refused(
    model_file: Path, tmp_path: Path, target: str, line_break: str
) -> None:
    file = tmp_path / f"nl{line_break}  evil: yes.safetensors"
    shutil.copy(model_file, file)
    assert main(["serve", str(file), "--print", target]) == 2
    words = ["serve", str(model_file), "--print", target, "--cors", f"https://a{line_break}b"]
    assert main(words) == 2


def test_a_unit_of_systemd_says_where_whoever_reaches_it_may_ask(
    printed: Printed, keys: Path
) -> None:
    for flags, is_open in (
        (("--host", "0.0.0.0"), True),
        ((), False),
        (("--host", "0.0.0.0", "--api-key", str(keys)), False),
    ):
        assert ("# Whoever reaches it may ask" in printed("systemd", *flags)) == is_open


def test_a_unit_of_systemd_names_files_by_their_whole_path(
    printed: Printed, model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(model_file.parent)
    flags = ("--tls-certificate", model_file.name)
    text = printed("systemd", *flags, model=model_file.name)
    assert text.count(str(Path.cwd() / model_file.name)) == 2


def test_the_words_in_a_container_are_a_command_that_is_understood(
    printed: Printed, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = (
        "--max-batch",
        "4",
        "--timeout",
        "2.5",
        "--cors",
        "https://a.example",
        "https://b.example",
    )
    public = yaml.safe_load(printed("compose", "--host", "::", model="resnet20_cifar10"))
    assert public["services"]["resnets"]["ports"] == ["[::]:8000:8000"]
    service = yaml.safe_load(printed("compose", *flags, model="resnet20_cifar10"))
    words = service["services"]["resnets"]["command"]
    assert main([*words, "--print", "compose"]) == 0
    again = yaml.safe_load(capsys.readouterr().out)["services"]["resnets"]
    assert again["command"] == words
    assert not again["volumes"]


def test_what_cannot_be_written_is_refused(
    model_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    certificate = tmp_path / "chain.pem"
    certificate.touch()
    wrong = (
        ["resnet20_cifar10", str(model_file), "--print", "kserve"],
        ["resnet20_cifar10", "--print", "compose", "--tls-certificate", str(certificate)],
        ["nothing-here", "--print", "compose"],
        ["resnet20_cifar10", "--print", "kubernetes", "--collect", str(tmp_path / "labels")],
        *(
            ["resnet20_cifar10", "--print", target, "--port", "0"]
            for target in ("systemd", "compose", "kubernetes", "kserve")
        ),
    )
    for words in wrong:
        assert main(["serve", *words]) == 2
        assert "\n" not in capsys.readouterr().err.strip()


@pytest.mark.parametrize("target", ["compose", "kubernetes", "kserve"])
def test_dollars_in_names_stay_themselves(
    printed: Printed, model_file: Path, tmp_path: Path, target: str
) -> None:
    odd = tmp_path / "cats for $5 $(HOME) ${HOME}.safetensors"
    shutil.copy(model_file, odd)
    for document in yaml.safe_load_all(printed(target, model=str(odd))):
        services = document.get("services", {}).values()
        words = [word for each in containers(document) for word in each["args"]]
        words += [word for each in services for word in each["command"]]
        words += [volume["source"] for each in services for volume in each["volumes"]]
        for word in words:
            assert "$" not in word.replace("$$", "")
        if words:
            assert any(word.replace("$$", "$").endswith(f"/{odd.name}") for word in words)
