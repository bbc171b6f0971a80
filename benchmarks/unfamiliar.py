"""Which score best detects that an image belongs to none of a network's classes.

Each network gets images of its own classes that it was not trained on ("in"), and images of other
classes ("out"). A good score ranks out images above in images: AUROC is the probability that it
does so for a random pair (0.5 is chance), FPR95 the share of out images that are accepted at the
threshold that accepts 95 % of the in images (FPR99: 99 %). The parameters of a score are fitted on
training images only.

    python benchmarks/unfamiliar.py SHARED --json-file results/unfamiliar.json

SHARED is a folder with data/cifar10 and data/imagenette128 (parquet), data/hymenoptera (ants and
bees) and photos (300 photos, one of each of 300 classes of ImageNet). Two networks come with the
package; four small ones are trained first into WORK, in some minutes on two cores, and kept.
`results/table.py` makes a section of its page from the JSON file.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from numpy.typing import NDArray
from PIL import Image
from scipy.special import logsumexp, softmax
from sklearn.metrics import roc_auc_score

from resnets.data.labelled import LabelledImages
from resnets.data.sources.opening import open_data
from resnets.images import Pixels, decode
from resnets.machine import machine
from resnets.model_file import Model, load
from resnets.model_path import find_model
from resnets.run_files import MODEL

Array = NDArray[np.float64]

FITTED = 5000  # training images, drawn at random, on which a score is fitted
MOST = 2000  # images of a set, drawn at random
NEIGHBOUR = 50  # as in Sun et al. 2022, section 4, for CIFAR-10

# classes of the photos that are in CIFAR-10, or easily confused with its classes
LIKE_CIFAR10 = set(
    """
    airship amphibian cab container_ship fire_engine go-kart gondola jeep limousine minibus
    missile mobile_home moving_van passenger_car pickup projectile schooner tow_truck
    trailer_truck plane sorrel horse_cart hartebeest ox oxcart ram bullfrog eft tiger_cat
    Egyptian_cat leopard lion dogsled white_wolf dingo hyena Arctic_fox ostrich house_finch
    robin magpie kite great_grey_owl ptarmigan peacock African_grey lorikeet hornbill toucan
    goose spoonbill American_egret limpkin bustard redshank pelican Maltese_dog
    Blenheim_spaniel Rhodesian_ridgeback beagle black-and-tan_coonhound redbone
    Italian_greyhound Norwegian_elkhound Scottish_deerhound American_Staffordshire_terrier
    Kerry_blue_terrier Norwich_terrier Lakeland_terrier cairn Boston_bull standard_schnauzer
    silky_terrier Lhasa golden_retriever German_short-haired_pointer Irish_setter clumber
    cocker_spaniel kuvasz malinois komondor collie Rottweiler miniature_pinscher Appenzeller
    bull_mastiff Great_Dane malamute affenpinscher Leonberg Samoyed keeshond Cardigan
    standard_poodle
    """.split()  # noqa: SIM905  (a list of 100 names is shorter so)
)
LIKE_IMAGENETTE = {
    *("tench", "trailer_truck", "tow_truck", "moving_van", "monastery", "castle"),
    *("cinema", "tennis_ball", "baseball", "cornet"),
}
LIKE_CIFAR10_IN_IMAGENETTE = ("English springer", "garbage truck", "parachute")
FIVE = ("tench", "cassette player", "church", "garbage truck", "golf ball")


@dataclass(frozen=True)
class Outputs:
    """Outputs of a network for N images: features (N, F) and logits (N, K)."""

    features: Array
    logits: Array


@dataclass(frozen=True)
class Classifier:
    """The last layer (K, F), (K,), and the training images: their outputs and labels (N,)."""

    weight: Array
    bias: Array
    train: Outputs
    labels: NDArray[np.int64]


Score = Callable[[Classifier], Callable[[Outputs], Array]]  # high scores: unfamiliar


def probability(_: Classifier) -> Callable[[Outputs], Array]:
    """Hendrycks and Gimpel 2017, arXiv:1610.02136: the probability of the predicted class."""
    return lambda output: -softmax(output.logits, axis=1).max(1)


def logit(_: Classifier) -> Callable[[Outputs], Array]:
    """Hendrycks et al. 2022, arXiv:1911.11132: the largest logit."""
    return lambda output: -output.logits.max(1)


def energy(_: Classifier) -> Callable[[Outputs], Array]:
    """Liu et al. 2020, arXiv:2010.03759, equation 4 at temperature 1."""
    return lambda output: -logsumexp(output.logits, axis=1)


def mahalanobis(classifier: Classifier) -> Callable[[Outputs], Array]:
    """Lee et al. 2018, arXiv:1807.03888, equation 2, of the features alone: to the nearest mean."""
    means, whiten = class_gaussians(classifier)
    return lambda output: nearest(output.features @ whiten, means @ whiten)


def relative_mahalanobis(classifier: Classifier) -> Callable[[Outputs], Array]:
    """Ren et al. 2021, arXiv:2106.09022: less the distance to the mean of all images."""
    means, whiten = class_gaussians(classifier)
    features = classifier.train.features
    middle, whole = features.mean(0, keepdims=True), whitening(features - features.mean(0))
    return lambda output: (
        nearest(output.features @ whiten, means @ whiten)
        - nearest(output.features @ whole, middle @ whole)
    )


def cosine(classifier: Classifier) -> Callable[[Outputs], Array]:
    """The angle to the nearest class mean."""
    means = unit(class_means(classifier))
    return lambda output: -(unit(output.features) @ means.T).max(1)


def centred_cosine(classifier: Classifier) -> Callable[[Outputs], Array]:
    """The same, relative to the mean of all images."""
    origin = classifier.train.features.mean(0)
    means = unit(class_means(classifier) - origin)
    return lambda output: -(unit(output.features - origin) @ means.T).max(1)


def cosine_and_energy(classifier: Classifier) -> Callable[[Outputs], Array]:
    """The sum of both scores, each in standard deviations over the training images."""
    both = [each(classifier) for each in (cosine, energy)]
    spread = [score(classifier.train).std() for score in both]
    return lambda output: sum(score(output) / s for score, s in zip(both, spread, strict=True))


def neighbour(classifier: Classifier) -> Callable[[Outputs], Array]:
    """Sun et al. 2022, arXiv:2204.06507: distance of unit features to the k-th nearest."""
    bank = unit(classifier.train.features)
    k = min(NEIGHBOUR, max(1, len(bank) // 20))
    return lambda output: -np.partition(unit(output.features) @ bank.T, -k, axis=1)[:, -k]


def residual(classifier: Classifier) -> Callable[[Outputs], Array]:
    """Wang et al. 2022, arXiv:2203.10807: the part of the features outside the main subspace."""
    origin, basis = outside(classifier)
    return lambda output: np.linalg.norm((output.features - origin) @ basis, axis=1)


def virtual_logit(classifier: Classifier) -> Callable[[Outputs], Array]:
    """ViM (Wang et al. 2022, equation 9): the residual against the energy."""
    away = residual(classifier)
    scale = classifier.train.logits.max(1).mean() / away(classifier.train).mean()
    return lambda output: scale * away(output) - logsumexp(output.logits, axis=1)


def class_means(classifier: Classifier) -> Array:
    """(K, F)."""
    count = classifier.train.logits.shape[1]
    return np.stack(
        [classifier.train.features[classifier.labels == k].mean(0) for k in range(count)]
    )


def class_gaussians(classifier: Classifier) -> tuple[Array, Array]:
    """The classes' means (K, F) and the matrix (F, F) that whitens the spread about them."""
    means = class_means(classifier)
    return means, whitening(classifier.train.features - means[classifier.labels])


def whitening(centred: Array) -> Array:
    """(F, F), with a thousandth of the mean variance added to each direction."""
    covariance = centred.T @ centred / len(centred)
    values, vectors = np.linalg.eigh(covariance)
    return vectors / np.sqrt(values + 1e-3 * values.mean())


def nearest(points: Array, means: Array) -> Array:
    """The squared distance of each point (N, F) to the nearest mean (K, F)."""
    return np.stack([((points - mean) ** 2).sum(1) for mean in means]).min(0)


def unit(features: Array) -> Array:
    """Rows of length 1."""
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)


def outside(classifier: Classifier) -> tuple[Array, Array]:
    """ViM's origin (F,) and a basis (F, D) of the half of directions with the least spread."""
    origin = -np.linalg.pinv(classifier.weight) @ classifier.bias
    centred = classifier.train.features - origin
    _, vectors = np.linalg.eigh(centred.T @ centred)
    return origin, vectors[:, : len(origin) // 2]


SCORES: dict[str, Score] = {
    "probability": probability,
    "largest logit": logit,
    "energy": energy,
    "Mahalanobis": mahalanobis,
    "relative Mahalanobis": relative_mahalanobis,
    "cosine": cosine,
    "centred cosine": centred_cosine,
    "cosine and energy": cosine_and_energy,
    "nearest neighbours": neighbour,
    "residual": residual,
    "ViM": virtual_logit,
}


@dataclass(frozen=True)
class Shared:
    """Where the images are, and where the small networks are kept."""

    folder: Path
    work: Path

    def data(self, name: str) -> LabelledImages:
        """The held-out images of a data set."""
        splits = open_data(self.folder / "data" / name, to_learn=False)
        images = splits.validation if name != "cifar10" else splits.test
        assert images is not None
        return images

    def photos(self, without: Collection[str] = ()) -> list[Pixels]:
        """The photos, without those of some classes."""
        files = sorted((self.folder / "photos").glob("*.JPEG"))
        return [decode(file) for file in files if file.stem.partition("_")[2] not in without]


def train(name: str, words: Sequence[str], work: Path) -> Path:
    """Train a network, unless it exists already."""
    run = work / name
    if not (run / MODEL).is_file():
        command = [sys.executable, "-m", "resnets", "train", *words, "--output", str(run)]
        subprocess.run([*command, "--overwrite", "--no-report"], check=True)
    return run


def part(images: LabelledImages, names: Sequence[str], folder: Path) -> Path:
    """Some classes of a data set, at most 1,000 images each, as a folder of class folders."""
    if not folder.is_dir():
        for number, name in enumerate(images.class_names):
            for index in np.flatnonzero(images.labels == number)[:1000] if name in names else ():
                file = folder / name / f"{index}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(images.image(int(index)).squeeze()).save(file)
    return folder


def of_classes(images: LabelledImages, names: Sequence[str], negate: bool = False) -> list[Pixels]:
    """Images of some classes, or of all others; at most `MOST`."""
    chosen = [
        index
        for index, label in enumerate(images.labels)
        if (images.class_names[label] in names) != negate
    ]
    return [images.image(index) for index in sampled(chosen, MOST)]


def sampled(items: Sequence[int], most: int) -> list[int]:
    """At most `most` of the items, drawn at random."""
    order = np.random.default_rng(0).permutation(len(items))[:most]
    return [int(items[place]) for place in sorted(order)]


@dataclass(frozen=True)
class Case:
    """A network, images of its classes that it was not trained on, and sets of other images."""

    name: str
    model: Path
    source: str | Path
    inside: list[Pixels]
    outside: dict[str, list[Pixels]]


def cases(shared: Shared) -> Iterator[Case]:
    """The pairs: far ones of another data set, and near ones of the same."""
    cifar, nette = shared.data("cifar10"), shared.data("imagenette128")
    insects, work = shared.data("hymenoptera"), shared.work
    cifar_data = shared.folder / "data" / "cifar10"
    ten = of_classes(cifar, cifar.class_names)
    far = {
        "photos": shared.photos(LIKE_CIFAR10),
        "Imagenette": of_classes(nette, LIKE_CIFAR10_IN_IMAGENETTE, negate=True),
        "ants and bees": of_classes(insects, insects.class_names),
        "digits": digits(),
    }
    for name in ("resnet20_cifar10", "resnet14_cifar10"):
        yield Case(name, find_model(name), cifar_data, ten, far)
    small = ["--epochs", "15", "--batch-size", "32", "--image-size", "64"]
    start = ["--from", "resnet20_cifar10", *small]
    source = shared.folder / "data" / "hymenoptera"
    run = train("insects", [str(source), *start], work)
    others = {
        "photos": shared.photos(("bee",)),
        "Imagenette": of_classes(nette, nette.class_names),
        "CIFAR-10": ten,
    }
    names = insects.class_names
    yield Case("resnet20 on ants and bees", run, source, of_classes(insects, names), others)
    run = train("digits", ["digits", "--network", "resnet14"], work)
    held_out = open_data("digits").test
    assert held_out is not None
    others = {"photos": shared.photos(), "CIFAR-10": ten, "noise": noise()}
    yield Case(
        "resnet14 on digits", run, "digits", of_classes(held_out, held_out.class_names), others
    )
    data = part(open_data("digits").train, tuple("01234"), work / "low-data")
    run = train("low", [str(data), "--network", "resnet14"], work)
    low, high = (of_classes(held_out, names) for names in ("01234", "56789"))
    yield Case("resnet14 on digits 0 to 4", run, data, low, {"digits 5 to 9": high})
    data = part(open_data(shared.folder / "data/imagenette128").train, FIVE, work / "five-data")
    size = ["--network", "resnet14", "--epochs", "5", "--image-size", "48"]
    run = train("five", [str(data), *size], work)
    near = {
        "the other five classes": of_classes(nette, FIVE, negate=True),
        "photos": shared.photos(LIKE_IMAGENETTE),
        "CIFAR-10": of_classes(cifar, ("truck", "automobile"), negate=True),
        "ants and bees": of_classes(insects, insects.class_names),
    }
    yield Case("resnet14 on 5 classes of Imagenette", run, data, of_classes(nette, FIVE), near)


def digits() -> list[Pixels]:
    """All test images of the digits, on which no network here was trained."""
    images = open_data("digits").test
    assert images is not None
    return [images.image(index) for index in range(len(images))]


def noise() -> list[Pixels]:
    """500 images of 32 x 32 random values."""
    random = np.random.default_rng(0)
    return list(random.integers(0, 256, (500, 32, 32, 3), np.uint8))


def outputs(model: Model, images: Sequence[Pixels]) -> Outputs:
    """The outputs of a network for images of any size."""
    preprocessing = model.description.preprocessing
    parts: list[tuple[Any, Any]] = []
    with torch.inference_mode():
        for start in range(0, len(images), 200):
            seen = np.stack([preprocessing.pixels(image) for image in images[start : start + 200]])
            features = model.network.embed(torch.from_numpy(preprocessing.normalise(seen)))
            parts.append((features.numpy(), model.network.fc(features).numpy()))
    features, logits = (
        np.concatenate(arrays).astype(np.float64) for arrays in zip(*parts, strict=True)
    )
    return Outputs(features, logits)


def classifier_of(model: Model, source: str | Path) -> Classifier:
    """The classifier, with training images of the source split as for its training."""
    recipe = model.description.recipe
    images = open_data(source, validation=recipe["validation"], seed=recipe["seed"]).train
    chosen = sampled(range(len(images)), FITTED)
    names = model.description.class_names
    labels = np.array([names.index(images.class_names[images.labels[i]]) for i in chosen])
    weight, bias = (each.detach().double().numpy() for each in model.network.fc.parameters())
    return Classifier(weight, bias, outputs(model, [images.image(i) for i in chosen]), labels)


def measured(case: Case) -> dict[str, Any]:
    """AUROC and FPR95 of each score on each pair."""
    model = load(find_model(case.model))
    classifier = classifier_of(model, case.source)
    fitted = {name: fit(classifier) for name, fit in SCORES.items()}
    inside = outputs(model, case.inside)
    accepted = {name: score(inside) for name, score in fitted.items()}
    pairs = []
    for name, images in case.outside.items():
        outside = outputs(model, images)
        rows = {key: figures(accepted[key], score(outside)) for key, score in fitted.items()}
        pairs.append({"out": name, "count": len(images), "scores": rows})
    return {"network": case.name, "in": len(case.inside), "pairs": pairs}


def figures(inside: Array, outside: Array) -> dict[str, float]:
    """How well a score separates images of the classes (N,) from others (M,)."""
    truth = np.r_[np.zeros(len(inside)), np.ones(len(outside))]
    limits = {percent: np.quantile(inside, percent / 100, method="higher") for percent in (95, 99)}
    return {
        "auroc": float(roc_auc_score(truth, np.r_[inside, outside])),
        **{f"fpr{percent}": float((outside <= limit).mean()) for percent, limit in limits.items()},
    }


def main(
    shared: tyro.conf.Positional[Path],
    /,
    work: Path = Path("runs/unfamiliar"),
    json_file: Path | None = None,
) -> None:
    """Measure every score on every pair.

    Args:
        shared: folder of the images.
        work: where the small networks are trained and kept.
        json_file: where to write all figures.
    """
    results = []
    for case in cases(Shared(shared, work)):
        results.append(measured(case))
        for pair in results[-1]["pairs"]:
            print(f"{case.name} | {pair['out']} ({pair['count']})")
            for name, row in pair["scores"].items():
                print(f"  {name:22} AUROC {row['auroc']:.3f}  FPR95 {row['fpr95']:.3f}", flush=True)
    if json_file is not None:
        text = json.dumps({"machine": machine(), "cases": results}, indent=1) + "\n"
        json_file.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    tyro.cli(main)
