"""Data, networks, losses and augmentations that Python programs hold, from start to resume."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn
from torch.nn import functional as F
from torch.utils.data import Dataset, TensorDataset

import resnets
from resnets.cli import main
from resnets.errors import ContentError, UsageError
from resnets.runs.callbacks import StopTraining
from resnets.training.trainer import Step

NAMES = ("dark", "mid", "pale")
TINY = {
    "recipe": "quick",
    "epochs": 1,
    "batch_size": 8,
    "image_size": 8,
    "report": False,
    "progress": False,
}


def shades(count: int = 60, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 8, 8, 3) of three shades, and which (N,)."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    noise = random.integers(0, 60, (count, 8, 8, 3))
    return (noise + 90 * labels[:, None, None, None]).astype(np.uint8), labels


class Net(nn.Module):
    """A network of somebody's own."""

    def __init__(self, classes: int = 3, channels: int = 3) -> None:
        super().__init__()
        self.body = nn.Conv2d(channels, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.drop = nn.Dropout(0.1)
        self.head = nn.Linear(8, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = F.relu(self.norm(self.body(images))).mean((2, 3))
        return self.head(self.drop(features))


def seeded(**options: Any) -> Net:
    torch.manual_seed(1)
    return Net(**options)


def weights(run: Any) -> dict[str, torch.Tensor]:
    return run.model.network.state_dict()


def assert_same_weights(one: Any, other: Any) -> None:
    ours, theirs = weights(one), weights(other)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]), name


class Items(Dataset):
    def __init__(self, images: Any, labels: Any) -> None:
        self.images, self.labels, self.classes = images, labels, NAMES

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.images[index], int(self.labels[index])


def written(root: Path, images: np.ndarray, labels: np.ndarray) -> list[tuple[Path, str]]:
    """The images as files in class folders."""
    pairs = []
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        file = root / NAMES[label] / f"{number:03}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(file)
        pairs.append((file, NAMES[label]))
    return pairs


@settings(max_examples=2, deadline=None)
@given(seed=st.integers(0, 100))
def test_every_form_of_the_same_images_trains_the_same_weights(
    seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    pandas = pytest.importorskip("pandas")
    images, labels = shades(36, seed)
    words = [NAMES[label] for label in labels]
    root = tmp_path_factory.mktemp("images")
    pairs = written(root, images, labels)
    frame = pandas.DataFrame(pairs[::-1], columns=["path", "label"])
    by_content = [
        [root, pairs, frame],  # files are dealt by their bytes, in the order of their paths
        [(images, words), (torch.from_numpy(images).movedim(3, 1), words), Items(images, labels)],
    ]
    for forms in by_content:
        first, *others = [
            resnets.train(form, network=seeded(), output=False, seed=seed, **TINY) for form in forms
        ]
        for other in others:
            assert_same_weights(other, first)
            counts = first.description.data["counts"]
            assert other.description.data["counts"] == counts
            assert other.description.data["fingerprint"] == first.description.data["fingerprint"]


def test_files_and_arrays_in_given_splits_train_the_same_weights(tmp_path: Path) -> None:
    images, labels = shades(48)
    parts = {"train": slice(0, 30), "val": slice(30, 39), "test": slice(39, 48)}
    order = np.argsort(labels, kind="stable")
    sets = {
        name: [index for index in order if index in range(48)[part]] for name, part in parts.items()
    }
    held = {
        name: (images[own], [NAMES[label] for label in labels[own]]) for name, own in sets.items()
    }
    for name, own in sets.items():
        written(tmp_path / "data" / name, images[own], labels[own])
    runs = [
        resnets.train(data, network=seeded(), output=False, **TINY)
        for data in (tmp_path / "data", held)
    ]
    assert_same_weights(*runs)


def test_a_run_on_arrays_says_so_and_goes_on_with_the_same_arrays_alone(tmp_path: Path) -> None:
    data, folder = shades(), tmp_path / "run"
    whole = resnets.train(data, network="resnet14", output=tmp_path / "whole", **TINY)
    assert whole.description.data["source"] == "python: array of 60 images"
    config = (tmp_path / "whole" / "config.toml").read_text(encoding="utf-8")
    assert 'data = "python: array of 60 images"' in config
    part = resnets.train(data, network="resnet14", output=folder, callbacks=[stop(3)], **TINY)
    assert part.stopped
    with pytest.raises(UsageError, match=r"from Python.*data="):
        resnets.resume(folder, progress=False)
    with pytest.raises(ContentError, match="not the images"):
        resnets.resume(folder, data=shades(seed=1), progress=False)
    assert_same_weights(resnets.resume(folder, data=data, progress=False), whole)


def stop(step: int) -> Any:
    """Ends a run after so many steps."""

    def look(record: Any) -> None:
        if isinstance(record, Step) and record.step == step:
            raise StopTraining("enough")

    return look


def test_groups_of_ones_own_keep_together_what_belongs_together(tmp_path: Path) -> None:
    data, groups = shades(), np.arange(60) // 6
    run = resnets.train(data, network="resnet14", output=tmp_path / "run", group_by=groups, **TINY)
    assert sum(run.description.data["groups"].values()) == 10
    with pytest.raises(UsageError, match="group_by="):
        resnets.resume(tmp_path / "run", data=data, progress=False)
    again = resnets.resume(tmp_path / "run", data=data, group_by=groups, progress=False)
    assert_same_weights(again, run)


def focal(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The focal loss (Lin et al. 2017, arXiv:1708.02002, eq. 4), one value for each image."""
    probabilities = logits.softmax(1)[torch.arange(len(logits)), targets]
    return -((1 - probabilities) ** 2) * probabilities.log()


def shaken(pixels: torch.Tensor) -> torch.Tensor:
    """Random noise from each of the generators that a program may draw from."""
    offset = int(torch.randint(0, 20, ())) + np.random.randint(20)  # noqa: NPY002
    return (pixels.int() + offset).clamp(max=255).to(torch.uint8)


OWN = {"loss": focal, "augmentation": shaken}


@pytest.mark.parametrize("at", [2, 7])
def test_own_network_loss_and_augmentation_resume_bit_for_bit(at: int, tmp_path: Path) -> None:
    data, options = shades(), TINY | {"epochs": 2}
    whole = resnets.train(data, network=seeded(), output=False, **OWN, **options)
    folder = tmp_path / "run"
    resnets.train(data, network=seeded(), output=folder, callbacks=[stop(at)], **OWN, **options)
    text = (folder / "config.toml").read_text(encoding="utf-8")
    assert 'own = "network Net, loss focal, augmentation shaken"' in text
    for missing in ("network", "loss", "augmentation"):
        kept = {name: part for name, part in (OWN | {"network": Net()}).items() if name != missing}
        with pytest.raises(UsageError, match=f"{missing}=..."):
            resnets.resume(folder, data=data, progress=False, **kept)
    again = resnets.resume(folder, data=data, network=Net(), progress=False, **OWN)
    assert_same_weights(again, whole)
    assert again.metrics == whole.metrics


def test_own_loss_and_augmentation_are_what_trains() -> None:
    def trained(**own: Any) -> Any:
        return resnets.train(shades(), network=seeded(), output=False, **own, **TINY)

    plain, nothing = {"augmentation": lambda pixels: pixels}, trained(augmentation=torch.clone)
    assert_same_weights(trained(**plain), nothing)
    assert_same_weights(trained(loss=nn.CrossEntropyLoss(), **plain), nothing)
    for changed in ({"augmentation": shaken}, {"loss": focal, **plain}):
        assert not torch.equal(
            weights(trained(**changed))["head.weight"], weights(nothing)["head.weight"]
        )


def test_the_command_says_that_python_goes_on_with_such_a_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    written(tmp_path / "data", *shades())
    data = tmp_path / "data"
    resnets.train(data, network=seeded(), output=folder, callbacks=[stop(2)], loss=focal, **TINY)
    assert main(["train", "--resume", str(folder)]) == 2
    stderr = capsys.readouterr().err
    assert all(word in stderr for word in ("Net", "focal", "network=...", "loss=...", "Python"))
    assert main(["predict", str(folder), str(data)]) == 1
    assert "network=" in capsys.readouterr().err


def test_an_own_network_is_used_in_memory_and_from_its_folder(tmp_path: Path) -> None:
    data, network = shades(90), seeded()
    lines: list[str] = []
    run = resnets.train(
        data,
        network=network,
        output=tmp_path / "run",
        callbacks=[lambda record: lines.append(getattr(record, "text", ""))],
        **(TINY | {"epochs": 6, "report": True, "learning_rate": 0.02}),
    )
    assert any("Net" in line and "network=" in line for line in lines)
    assert not any(line.startswith("no report") for line in lines)
    assert "Net" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert run.metrics["test_accuracy"] > 0.6
    assert resnets.evaluate(run.model, data).metrics.top1.count == round(
        run.metrics["test_accuracy"] * 9
    )
    predictions = resnets.predict(run.model, data[0][:9])
    assert {each.status for each in predictions} <= {"ok", "unsure"}
    assert resnets.calibrate(run.model, shades(30, seed=5)).description.calibration
    again = resnets.load(tmp_path / "run", network=Net())
    for one, other in zip(resnets.predict(again, data[0][:9]), predictions, strict=True):
        assert one.prediction == other.prediction
        assert one.probability == pytest.approx(other.probability, abs=1e-6)  # other memory format
    with pytest.raises(ContentError, match=r"Net.*network="):
        resnets.load(tmp_path / "run")
    from_folder = type(run).open(tmp_path / "run", network=Net())
    assert_same_weights(from_folder, run)


@pytest.mark.parametrize("patience", [0, 1])
def test_the_mean_or_the_best_of_an_own_network_is_kept(patience: int, tmp_path: Path) -> None:
    options = TINY | {"epochs": 3, "patience": patience, "average_decay": 0.5}
    runs = [
        resnets.train(shades(), network=seeded(), output=output, **options)
        for output in (False, tmp_path / "run")
    ]
    assert_same_weights(*runs)
    assert all(not each.requires_grad or each.is_leaf for each in weights(runs[0]).values())


def test_a_network_of_one_channel_sees_grey_images() -> None:
    images, labels = shades()
    grey = TensorDataset(torch.from_numpy(images[..., :1]).movedim(3, 1), torch.from_numpy(labels))
    run = resnets.train(grey, network=seeded(channels=1), output=False, **TINY)
    assert run.description.preprocessing.channels == 1
    assert len(resnets.predict(run.model, images[:2])) == 2


def test_own_augmentation_takes_the_place_of_the_recipe_s() -> None:
    run = resnets.train(
        shades(), network=seeded(), output=False, augmentation=lambda pixels: pixels, **TINY
    )
    plain = resnets.train(
        shades(), network=seeded(), output=False, flip="none", crop_padding=0, **TINY
    )
    assert_same_weights(run, plain)
    mixed = resnets.train(
        shades(), network=seeded(), output=False, augmentation=shaken, mixup=0.2, **TINY
    )
    assert mixed.description.recipe["augmentation"]["mixup"] == 0.2


class Wrong(Net):
    def forward(self, images: torch.Tensor) -> Any:
        return {"logits": super().forward(images)}


@pytest.mark.parametrize(
    ("network", "changes", "words"),
    [
        (Net(classes=5), {}, r"Net gives a tensor \(2, 5\).*3 classes.*\(2, 3\)"),
        (Wrong(), {}, r"Wrong gives .*dict"),
        (Net(channels=2), {}, r"cannot take images \(2, 3, 8, 8\)"),
        (Net().requires_grad_(False), {}, "no parameter"),
        (Net(), {"freeze": 1}, "freeze.*requires_grad"),
        (Net(), {"dropout": 0.1}, "dropout"),
        (Net(), {"start": "resnet20_cifar10"}, "start"),
        (Net(), {"loss": 5}, "loss is 5"),
        (Net(), {"loss": lambda logits, _: logits}, "mean"),
        (Net(), {"augmentation": lambda pixels: pixels.float()}, "uint8"),
        (5, {}, "network is 5"),
    ],
)
def test_what_does_not_fit_is_refused_before_the_first_step(
    network: Any, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(UsageError, match=f"(?s){words}"):
        resnets.train(shades(), network=copy.deepcopy(network), output=False, **(TINY | changes))


def test_an_own_part_that_is_given_to_a_run_without_it_is_refused(tmp_path: Path) -> None:
    data = shades()
    resnets.train(data, network="resnet14", output=tmp_path / "run", **TINY)
    with pytest.raises(UsageError, match="without loss focal"):
        resnets.resume(tmp_path / "run", data=data, loss=focal, progress=False)
    with pytest.raises(TypeError):
        resnets.train(data, network="resnet14", output=False, losses=focal, **TINY)


def test_the_global_generators_are_as_they_were_before() -> None:
    network = seeded()
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    resnets.train(shades(), network=network, output=False, **OWN, **TINY)
    assert torch.equal(torch.rand(3), expected)
