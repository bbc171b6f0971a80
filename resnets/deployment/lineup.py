"""Who takes part in a measurement of speed: models times engines times numbers of threads."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from resnets import model_file
from resnets.deployment.contenders import Contender
from resnets.deployment.engine import RUNS, installed, open_engine
from resnets.deployment.exported import is_exported
from resnets.errors import MissingExtra, UsageError
from resnets.model_file import Description
from resnets.networks import CATALOG, Architecture

PLAIN = ("eager", "compiled", "torch")  # run a model file as it is
FORMATS: dict[str, str] = {"onnxruntime": "onnx", "openvino": "openvino"}
CHECKED_ON = 4  # images on which an export for this purpose is checked


def lineup(
    models: Sequence[Path],
    engines: Sequence[str],
    threads: Sequence[int],
    against: str | None,
    folder: Path,
) -> tuple[list[Contender], int]:
    """The contenders, and the multiply-adds of one image.

    Args:
        models: model files, folders of runs, or exported files.
        engines: which runtimes; none for eager PyTorch and every engine that is installed.
        threads: numbers of threads; none for 1 and all cores.
        against: "torchvision" or "timm", whose network of the same name takes part.
        folder: where model files are exported to, as engines need it.

    Raises:
        UsageError: the models differ in what they see, or nothing can run them.
        MissingExtra: an engine or the other project is not installed.
        ContentError: a model is damaged.
    """
    if not models:
        raise UsageError("nothing to measure: name a model file or an exported file")
    for name in (*(name for name in engines if name in FORMATS), *filter(None, [against])):
        require_installed(name)
    found: list[Contender] = []
    seen: list[Description] = []
    for path in models:
        prefix = f"{path.stem if path.is_file() else path.name} " if len(models) > 1 else ""
        files, description = files_of(path, engines, folder / str(len(seen)))
        seen.append(description)
        found += [contender(prefix, name, file, description) for name, file in files]
        if against:
            found += peers(against, path, description)
    if not found:
        raise UsageError(f"none of {', '.join(engines)} runs {', '.join(map(str, models))}")
    if len({(each.preprocessing.resize, each.preprocessing.channels) for each in seen}) > 1:
        raise UsageError("the models see images of different sizes: measure them one by one")
    numbers = sorted(set(threads or default_threads()))
    everyone = [replace(who, threads=number) for number in numbers for who in found]
    return everyone, multiply_adds(seen[0])


def default_threads() -> list[int]:
    """1 and all cores."""
    from resnets.training.cpu import cores

    return [1, cores()]


def require_installed(name: str) -> None:
    """Say what to install where it is missing."""
    if not installed(name):
        extra = f'"resnets[{FORMATS[name]}]"' if name in FORMATS else name
        raise MissingExtra(f"{name} is not installed: pip install {extra}")


def files_of(
    path: Path, engines: Sequence[str], folder: Path
) -> tuple[list[tuple[str, Path]], Description]:
    """Runtimes with the file that each runs, and what the model says of itself."""
    if is_exported(path):
        able = [name for name in RUNS[path.suffix.lower()] if installed(name)]
        chosen = [name for name in able if name in engines or not engines]
        description = open_engine(path, able[0]).description  # type: ignore[arg-type]
        return [(name, path) for name in chosen], description
    file = model_file.find_model(path)
    from resnets.deployment.checking import images_for
    from resnets.deployment.export import ENDINGS, export

    model = model_file.load(file)
    wanted = engines or ["eager", *(name for name in FORMATS if installed(name))]
    files = []
    for name in wanted:
        if name in PLAIN:
            files.append((name, file))
            continue
        kind = FORMATS[name]
        folder.mkdir(exist_ok=True)
        target = folder / f"model{ENDINGS[kind]}"  # type: ignore[index]
        export(model, target, kind, *images_for(model, None, CHECKED_ON))  # type: ignore[arg-type]
        files.append((name, target))
    return files, model.description


def contender(prefix: str, runtime: str, file: Path, description: Description) -> Contender:
    """Who runs a file."""
    side = description.preprocessing.resize
    shape = (side, side, description.preprocessing.channels)
    return Contender(f"{prefix}{runtime}", runtime, str(file), 1, shape)


def peers(project: str, path: Path, description: Description) -> list[Contender]:
    """Another project's network of the same name, eager and compiled."""
    if is_exported(path):
        raise UsageError(f"--against {project}: give a model file, not {path}")
    file = model_file.find_model(path)
    name = catalog_name(description)
    if name is None:
        raise UsageError(f"--against {project}: the network of {path} has no name of its own")
    return [
        replace(contender("", project, file, description), name=f"{project} {way}", network=name)
        for way in ("eager", "compiled")
    ]


def catalog_name(description: Description) -> str | None:
    """What the network is called, whatever its classes."""
    architecture = Architecture.from_dict(description.architecture)
    for name, entry in CATALOG.items():
        if replace(entry.architecture, num_classes=architecture.num_classes) == architecture:
            return name
    return None


def multiply_adds(description: Description) -> int:
    """Of convolutions and fully connected layers, for one image."""
    from resnets.networks.profile import profile

    architecture = Architecture.from_dict(description.architecture)
    return profile(architecture, description.preprocessing.size).multiply_adds
