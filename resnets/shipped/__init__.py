"""The trained networks that come with the package: any MODEL may be one of their names.

They were trained by the recipe `quick` but with `validation = 0.02`, as their headers say.
"""

from pathlib import Path

from resnets.errors import UsageError

__all__ = ["FOLDER", "names", "shipped"]

FOLDER = Path(__file__).parent  # an exported .onnx may lie beside a model file
_DEFAULT = "resnet20_cifar10"


def names() -> list[str]:
    """Their names, such as resnet20_cifar10: the network and what it was trained on."""
    return sorted(path.stem for path in FOLDER.glob("*.safetensors"))


def shipped(name: str = _DEFAULT) -> Path:
    """The model file of a network that comes with the package.

    Raises:
        UsageError: this installation has none of that name.
    """
    if name not in names():
        raise UsageError(
            f"{name} does not come with this installation of resnets; there is "
            f"{', '.join(names()) or 'no network'}"
        )
    return FOLDER / f"{name}.safetensors"
