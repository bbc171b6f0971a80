"""Residual networks, exact to the papers: trained, evaluated, explained and exported.

    import resnets

    run = resnets.train("photos", epochs=10)    # a folder with a folder of images for each class
    print(run.metrics)
    for prediction in resnets.predict(run.model, "new/*.jpg"):
        print(prediction.image, prediction.prediction, prediction.probability, prediction.status)

See `help(resnets.train)` and so on. The names are loaded on use, so that `import resnets`
takes no time.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from resnets.api import (
        calibrate,
        compare,
        convert,
        doctor,
        evaluate,
        explain,
        export,
        fetch,
        inspect,
        load,
        predict,
        resume,
        train,
    )
    from resnets.networks.blocks import BottleneckBlock, ResidualBlock
    from resnets.networks.checkpoints.foreign import load_checkpoint
    from resnets.networks.printed.reading import from_printed
    from resnets.networks.resnet import ResNet, ResNetBottleneck, build
    from resnets.runs.callbacks import (
        End,
        Epoch,
        FeaturePass,
        Interval,
        Notice,
        Plan,
        Step,
        StopTraining,
        Validating,
    )
    from resnets.runs.run import Run

    __version__: str

__all__ = [
    "BottleneckBlock",
    "End",
    "Epoch",
    "FeaturePass",
    "Interval",
    "Notice",
    "Plan",
    "ResNet",
    "ResNetBottleneck",
    "ResidualBlock",
    "Run",
    "Step",
    "StopTraining",
    "Validating",
    "__version__",
    "build",
    "calibrate",
    "compare",
    "convert",
    "doctor",
    "evaluate",
    "explain",
    "export",
    "fetch",
    "from_printed",
    "inspect",
    "load",
    "load_checkpoint",
    "predict",
    "resume",
    "train",
]

_NAMES = {  # by module
    "api": (
        "calibrate compare convert doctor evaluate explain export fetch inspect load predict "
        "resume train"
    ),
    "networks.blocks": "BottleneckBlock ResidualBlock",
    "networks.checkpoints.foreign": "load_checkpoint",
    "networks.printed.reading": "from_printed",
    "networks.resnet": "ResNet ResNetBottleneck build",
    "runs.callbacks": "End Epoch FeaturePass Interval Notice Plan Step StopTraining Validating",
    "runs.run": "Run",
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        value: Any = version("resnets")
    elif name in _HOMES:
        value = getattr(importlib.import_module(f"resnets.{_HOMES[name]}"), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value  # found without this function from now on
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
