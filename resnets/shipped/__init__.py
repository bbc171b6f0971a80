"""The trained network that comes with the package."""

from importlib.resources import files
from pathlib import Path

from resnets.errors import UsageError

NAME = "resnet20_cifar10.safetensors"  # an .onnx exported from it may lie beside it


def shipped() -> Path:
    """The model file of the network that comes with the package.

    Raises:
        UsageError: this installation holds none.
    """
    path = Path(str(files(__name__) / NAME))
    if not path.is_file():
        raise UsageError(
            f"no MODEL was given, and this installation holds no trained network ({NAME} is "
            "missing): resnets predict MODEL IMAGE ..., where MODEL is a model file"
        )
    return path
