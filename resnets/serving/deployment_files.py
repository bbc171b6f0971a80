"""Files that run a server elsewhere: a systemd unit, and Compose, Kubernetes and KServe's YAML.

Each runs as no root, with a root file system that cannot be written to, limits and probes.
"""

import json
import re
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from resnets import shipped
from resnets.errors import UsageError
from resnets.json_text import to_json
from resnets.serving.access import is_loopback
from resnets.serving.memory_limit import memory_limit, usual_memory
from resnets.serving.served_model import name_of
from resnets.serving.settings import Settings
from resnets.templates import filled_in

Target = Literal["systemd", "compose", "kubernetes", "kserve"]

_UNIT = Path(__file__).parent / "systemd.service.jinja"
_PORT = 8000  # in containers
_FIRST_PORT = 1024  # that any user may listen on
_USER = 1000  # that of the Dockerfile
_STOP_AFTER = 10  # seconds beyond the grace period
_KEYS, _MODELS, _CACHE = "/keys/keys", "/models", "/tmp"


@dataclass(frozen=True)
class Deployment:
    """What is to be run elsewhere.

    Attributes:
        models: MODEL arguments: names of networks of the package, or existing files.
        flags: further words of the command, without those of host, port, keys and shadow.
        settings: the limits, and where it is reached.
        keys: file of keys; None: no key is needed.
        image: of the container.
        allowed_hosts: further host names by which it may be called.
        shadow: another model, as in `models`; None: there is none.
    """

    models: Sequence[Path]
    flags: Sequence[str]
    settings: Settings
    keys: Path | None = None
    image: str = "resnets"
    allowed_hosts: Sequence[str] = ()
    shadow: Path | None = None

    @property
    def name(self) -> str:
        """A name for the service, of small letters, digits and dashes (RFC 1123)."""
        word = re.sub("[^a-z0-9]+", "-", self.models[0].stem.lower()).strip("-")
        return f"resnets-{word}"[:50].rstrip("-")

    @property
    def files(self) -> list[Path]:
        """The files of the models that are not in the package."""
        return [path for path in self._every_file if not _is_shipped(path)]

    @property
    def _every_file(self) -> list[Path]:
        """The files of all models."""
        every = [*self.models, *filter(None, [self.shadow])]
        files = [path for path in dict.fromkeys(every) if path.is_file()]
        weights = [path.with_suffix(".bin") for path in files if path.suffix == ".xml"]
        return [*files, *weights]

    @property
    def memory_mib(self) -> int:
        """A limit for the memory, in MiB."""
        return memory_limit(self.settings, self._weights) >> 20

    @property
    def usual_mib(self) -> int:
        """The memory that it takes beside large images, in MiB."""
        return usual_memory(self.settings, self._weights) >> 20

    @property
    def _weights(self) -> int:
        """Bytes of the files of all models."""
        return sum(path.stat().st_size for path in self._every_file)

    @property
    def stop_seconds(self) -> int:
        """How long the service manager waits before it kills the process."""
        return round(self.settings.grace) + _STOP_AFTER

    def arguments(self, folder: str, keys: str = _KEYS, port: int = _PORT) -> list[str]:
        """The words after `resnets` in a container whose models are in a folder."""
        words = self.model_words(lambda path: f"{folder}/{_place_of(path)}")
        hosts = self.allowed_hosts
        if not hosts and not self.keys:
            hosts = ["*"]  # in a cluster a server is called by names that are not known here
        needed = ["--api-key", keys] if self.keys else []
        needed += ["--allow-host", *hosts] if hosts else []
        address = ["--host", "0.0.0.0", "--port", str(port)]
        return ["serve", *words, *address, *needed, *self.flags]

    @property
    def claim(self) -> str:
        """What the volume with the models holds, in words."""
        names = [(_place_of(path), path) for path in self.files]
        return ", ".join(to if to == path.name else f"{to} ({path})" for to, path in names)

    @property
    def _words(self) -> list[str]:
        """All that comes from the command line and stands in the file."""
        paths = [*self.files, *filter(None, [self.keys])]
        return [*map(str, paths), *self.flags, self.image, *self.allowed_hosts]

    def model_words(self, place: Callable[[Path], str]) -> list[str]:
        """The words for the models, by name or, of those not in the package, by their place."""
        every = [*self.models, *filter(None, [self.shadow])]
        words = [path.stem if _is_shipped(path) else place(path) for path in every]
        return [*words[:-1], "--shadow", words[-1]] if self.shadow else words


def deployment_file(target: Target, deployment: Deployment) -> str:
    """The text of a file for a target, with comments that say where it goes.

    Raises:
        UsageError: two models have one file name, KServe is to run several, or a flag is given that
            does not work there.
    """
    for word in deployment._words:
        if len(word.splitlines()) > 1:  # it would go on as a line of the file
            raise UsageError(f"{word!r}: a line break cannot be printed; rename the file")
    names = [_place_of(path) for path in deployment.files]
    if len(set(names)) < len(names):
        raise UsageError("two models have the same name; rename one of the files")
    if target != "systemd" and any(word.startswith("--tls-") for word in deployment.flags):
        raise UsageError(f"--print {target}: https ends before the container; leave out --tls-...")
    if target != "systemd" and "--collect" in deployment.flags:
        raise UsageError(
            f"--print {target}: leave out --collect: what a container writes goes with it; mount a "
            "volume in the file, and name it there"
        )
    if target == "kserve" and len(deployment.models) > 1:
        raise UsageError("KServe runs one model in each service; give one")
    return _WRITERS[target](deployment)


def _place_of(path: Path) -> str:
    """Where a file of a model lies in the folder of a container: there it has the name that it has.

    >>> [_place_of(Path(path)) for path in ("cats/model.safetensors", "cats.onnx", "model.xml")]
    ['cats.safetensors', 'cats.onnx', 'model/model.xml']
    """
    name = name_of(path.with_suffix(".xml") if path.suffix == ".bin" else path)
    file = name if name.endswith(path.suffix) else f"{name}{path.suffix}"
    return f"model/{file}" if name == "model" else file


def _is_shipped(path: Path) -> bool:
    """Whether a file is of the package, so that every installation has it."""
    return path.parent == shipped.FOLDER


def _systemd(deployment: Deployment) -> str:
    """A unit of systemd (systemd.exec(5), systemd.service(5))."""
    flags, collect = list(deployment.flags), ""
    if "--collect" in flags:
        place = flags.index("--collect") + 1
        collect = flags[place] = str(Path(flags[place]).resolve())
    words = [*_this_command(), "serve", *deployment.model_words(lambda path: str(path.resolve()))]
    settings = deployment.settings
    if settings.host != Settings.host:
        words += ["--host", settings.host]
    words += ["--port", str(settings.port)]
    if deployment.allowed_hosts:
        words += ["--allow-host", *deployment.allowed_hosts]
    words += flags
    credentials = {
        "--api-key": deployment.keys,
        "--tls-certificate": settings.tls_certificate,
        "--tls-key": settings.tls_key,
    }
    secret = {flag: path.resolve() for flag, path in credentials.items() if path is not None}
    for flag in secret:
        if flag in words:
            del words[words.index(flag) : words.index(flag) + 2]
    command = " ".join(_systemd_word(word) for word in words)
    for flag in secret:  # %d is the folder where systemd puts credentials
        command += f" {flag} %d/{flag.removeprefix('--')}"
    return filled_in(
        _UNIT,
        deployment=deployment,
        command=command,
        credentials={
            flag.removeprefix("--"): str(path).replace("%", "%%") for flag, path in secret.items()
        },
        is_open=deployment.keys is None and not is_loopback(settings.host),
        is_privileged=0 < settings.port < _FIRST_PORT,
        collect=_systemd_word(collect) if collect else "",
    )


def _this_command() -> list[str]:
    """The words that run `resnets` on this machine, by their whole path as systemd wants it."""
    script = Path(sys.executable).absolute().with_name("resnets")
    return [str(script)] if script.is_file() else [sys.executable, "-m", "resnets"]


def _systemd_word(word: str) -> str:
    """A word of ExecStart, in which % and $ stand for something and quotes are its own."""
    plain = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return plain if re.fullmatch(r"[\w./:=%$@,+-]+", plain) else f'"{plain}"'


def _compose(deployment: Deployment) -> str:
    """A file of Docker Compose (the Compose Specification)."""
    settings = deployment.settings
    host = settings.host if settings.host != "localhost" else Settings.host
    address = f"[{host}]" if ":" in host else host
    mounts = [(path, f"{_MODELS}/{_place_of(path)}") for path in deployment.files]
    mounts += [(deployment.keys, _KEYS)] if deployment.keys else []
    service = {
        "image": deployment.image,
        "command": deployment.arguments(_MODELS),
        "ports": [f"{address}:{settings.port}:{_PORT}"],
        "volumes": [
            {"type": "bind", "source": str(path.absolute()), "target": to, "read_only": True}
            for path, to in mounts
        ],
        "user": f"{_USER}:{_USER}",
        "read_only": True,
        "tmpfs": [_CACHE],
        "environment": {"XDG_CACHE_HOME": _CACHE},
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "mem_limit": f"{deployment.memory_mib}m",
        "restart": "unless-stopped",
        "stop_grace_period": f"{deployment.stop_seconds}s",
        "healthcheck": {
            "test": ["CMD", "python", "-c", _PROBE],
            "interval": "10s",
            "timeout": "5s",
            "retries": 3,
            "start_period": "60s",
        },
    }
    head = [
        f"# As compose.yaml: docker compose up. The image: docker build --tag {deployment.image} .",
        "# in a copy of the project.",
    ]
    if mounts:
        files = ", ".join(str(path) for path, _ in mounts)
        head += [
            f"# The user {_USER} of the container must be able to read {files}.",
            "# A file that takes the place of one of them is read after: docker compose restart",
        ]
    head += [] if deployment.keys else _OPEN
    return _yaml(head, {"services": {"resnets": _with_dollars(service)}})


def _with_dollars(value: Any) -> Any:
    """A value in whose texts each $ is doubled, as Compose and Kubernetes put values in its place.

    >>> _with_dollars({"command": ["serve", "my $x.onnx"], "ports": 1})
    {'command': ['serve', 'my $$x.onnx'], 'ports': 1}
    """
    match value:
        case str():
            return value.replace("$", "$$")
        case list():
            return [_with_dollars(each) for each in value]
        case dict():
            return {name: _with_dollars(each) for name, each in value.items()}
    return value


_PROBE = f"import urllib.request as r; r.urlopen('http://127.0.0.1:{_PORT}/v2/health/ready')"


def _kubernetes(deployment: Deployment) -> str:
    """A Deployment and a Service of Kubernetes (apps/v1, v1)."""
    labels = {"app.kubernetes.io/name": deployment.name}
    scraped = {"prometheus.io/scrape": "true", "prometheus.io/port": str(_PORT)}
    metadata: dict[str, Any] = {"labels": labels}
    if not deployment.keys:  # what the annotations ask for has no key
        metadata["annotations"] = scraped
    pod = _pod(deployment) | _with_volumes(deployment)
    runs = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": deployment.name, "labels": labels},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": labels},
            "template": {"metadata": metadata, "spec": pod},
        },
    }
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": deployment.name},
        "spec": {
            "selector": labels,
            "ports": [{"name": "http", "port": 80, "targetPort": _PORT}],
        },
    }
    head = [
        "# kubectl apply --filename FILE, with the image of the Dockerfile in a registry of yours."
    ]
    if deployment.files:
        head.append(f"# The volume claim resnets-models holds {deployment.claim}.")
    return _yaml([*head, *_about_keys(deployment)], runs, service)


_OPEN = [
    "# Whoever reaches it may ask: no key is needed. With --api-key FILE the same command prints",
    "# a file whose server asks for one.",
]


def _about_keys(deployment: Deployment) -> list[str]:
    """Comments on the secret that holds the keys, in a cluster."""
    if deployment.keys is None:
        return _OPEN
    path = shlex.quote(str(deployment.keys))
    return [
        f"# kubectl create secret generic resnets-keys --from-file keys={path}",
        "# /metrics needs a key, too: set it as the credentials in Prometheus' configuration.",
    ]


def _mount_keys(
    container: dict[str, Any], volumes: list[dict[str, Any]], deployment: Deployment
) -> None:
    """Add the secret that holds the keys to the container and volumes of a pod."""
    if deployment.keys:
        volumes.append({"name": "keys", "secret": {"secretName": "resnets-keys"}})
        mount = {"name": "keys", "mountPath": str(Path(_KEYS).parent), "readOnly": True}
        container["volumeMounts"].append(mount)


def _with_volumes(deployment: Deployment) -> dict[str, Any]:
    """The container of a pod of Kubernetes, and the volumes that are mounted in it."""
    container = _container("resnets", deployment, _MODELS, "http")
    volumes: list[dict[str, Any]] = [{"name": "temporary", "emptyDir": {}}]
    if deployment.files:
        claim = {"claimName": "resnets-models", "readOnly": True}
        volumes.append({"name": "models", "persistentVolumeClaim": claim})
        mount = {"name": "models", "mountPath": _MODELS, "readOnly": True}
        container["volumeMounts"].append(mount)
    _mount_keys(container, volumes, deployment)
    return {"containers": [container], "volumes": volumes}


def _kserve(deployment: Deployment) -> str:
    """An InferenceService of KServe (serving.kserve.io/v1beta1) with a container of one's own."""
    container = _container("kserve-container", deployment, "/mnt/models", "http1")
    head = [
        "# kubectl apply --filename FILE, with the image of the Dockerfile in a registry of yours."
    ]
    if deployment.files:
        head.append(
            f"# The volume claim resnets-models holds {deployment.claim}; KServe mounts it."
        )
        uri = {"name": "STORAGE_URI", "value": "pvc://resnets-models/"}
        container["env"].append(uri)
    volumes: list[dict[str, Any]] = [{"name": "temporary", "emptyDir": {}}]
    _mount_keys(container, volumes, deployment)
    pod = _pod(deployment) | {"containers": [container], "volumes": volumes}
    service = {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": deployment.name, "annotations": _RAW},
        "spec": {"predictor": {"minReplicas": 1} | pod},
    }
    return _yaml([*head, *_about_keys(deployment)], service)


# Knative, which older versions of KServe take by default, refuses much of what a pod has here, such
# as `fsGroup`. Versions that call this mode Standard know it by this name, too.
_RAW = {"serving.kserve.io/deploymentMode": "RawDeployment"}


def _pod(deployment: Deployment) -> dict[str, Any]:
    """What every pod has."""
    return {
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": deployment.stop_seconds,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _USER,
            "runAsGroup": _USER,
            "fsGroup": _USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }


def _container(name: str, deployment: Deployment, folder: str, port: str) -> dict[str, Any]:
    """The container of a pod, with its probes and limits."""
    ready = {"httpGet": {"path": "/v2/health/ready", "port": _PORT}}
    live = {"httpGet": {"path": "/v2/health/live", "port": _PORT}}
    return {
        "name": name,
        "image": deployment.image,
        "args": _with_dollars(deployment.arguments(folder)),
        "env": [{"name": "XDG_CACHE_HOME", "value": _CACHE}],
        "ports": [{"name": port, "containerPort": _PORT, "protocol": "TCP"}],
        "startupProbe": ready | {"periodSeconds": 2, "failureThreshold": 60},
        "readinessProbe": ready | {"periodSeconds": 5},
        "livenessProbe": live | {"periodSeconds": 10, "failureThreshold": 6},
        "resources": {
            "requests": {"cpu": "1", "memory": f"{deployment.usual_mib}Mi"},
            "limits": {"memory": f"{deployment.memory_mib}Mi"},
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "temporary", "mountPath": _CACHE}],
    }


def _yaml(head: Sequence[str], *documents: Mapping[str, Any]) -> str:
    """Comments, and documents as YAML."""
    whole = (json.loads(to_json(each)) for each in documents)  # in full, without YAML's aliases
    texts = (yaml.safe_dump(each, sort_keys=False, width=1000) for each in whole)
    return "\n".join([*head, "---\n".join(texts)])


_WRITERS: Mapping[Target, Callable[[Deployment], str]] = {
    "systemd": _systemd,
    "compose": _compose,
    "kubernetes": _kubernetes,
    "kserve": _kserve,
}
