"""Images of none of the classes, shown to a network; and statuses counted."""

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from resnets import evaluate, load, predict
from resnets.data.sources.opening import open_data
from resnets.errors import UsageError
from resnets.evaluation import other_images as module
from resnets.evaluation.calibration import calibrate
from resnets.evaluation.eager import Eager
from resnets.evaluation.explain import explain
from resnets.evaluation.familiarity import Familiarity, class_directions
from resnets.evaluation.other_images import Others, open_others
from resnets.evaluation.proportion import Proportion
from resnets.evaluation.source import Source
from resnets.evaluation.statuses import Statuses
from resnets.model_file import Model

DARK, BRIGHT = 40, 215


def flat(shade: int, count: int, seed: int = 0) -> np.ndarray:
    """Images of about one shade."""
    noise = np.random.default_rng(seed).normal(0, 8, (count, 16, 16, 3))
    return (shade + noise).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def model(untrained: Callable[..., Path]) -> Model:
    """A network to which dark images are familiar and bright ones are not."""
    made = load(untrained(("ant", "bee"), 16, 16))
    features = Eager(made).features(flat(DARK, 20))
    own = class_directions(features, np.zeros(20))
    known = Familiarity(own, 0.0, 20, Proportion(0, 20))
    low = known.scores(features).min()
    high = known.scores(Eager(made).features(flat(BRIGHT, 20))).max()
    assert high < low
    familiarity = replace(known, threshold=float(low + high) / 2).to_dict()
    calibration = replace(calibrate(np.eye(2), [0, 1]), threshold=0.0).to_dict()  # all are ok
    about = replace(made.description, familiarity=familiarity, calibration=calibration)
    return Model(made.network, about)


def test_every_way_to_a_result_knows_the_unfamiliar_ones(model: Model, tmp_path: Path) -> None:
    images = np.concatenate([flat(DARK, 3, 1), flat(BRIGHT, 2, 1)])
    wanted = ["ok"] * 3 + ["unfamiliar"] * 2
    assert [each.status for each in predict(model, images)] == wanted
    assert [each.status for each in predict(model, list(images))] == wanted
    assert all(each.prediction in ("ant", "bee") for each in predict(model, images))
    explanations = explain(
        model, [Source(str(i), image) for i, image in enumerate(images)], side=32
    )
    assert [each.prediction.status for each in explanations] == wanted
    statuses = evaluate(model, images, [0, 1, 0, 1, 0]).statuses
    assert (statuses.ok.count, statuses.unfamiliar.count, statuses.unsure.count) == (3, 2, 0)
    predicted = [each.prediction == "ant" for each in predict(model, images[:3])]
    assert statuses.wrong == Proportion(np.not_equal(predicted, [True, False, True]).sum(), 3)


def test_unfamiliar_goes_before_unsure(model: Model) -> None:
    never = calibrate(np.eye(2)[[0, 1] * 10], [1, 0] * 10).to_dict()
    assert never["threshold"] is None
    silent = Model(model.network, replace(model.description, calibration=never))
    statuses = [each.status for each in predict(silent, np.r_[flat(DARK, 1), flat(BRIGHT, 1)])]
    assert statuses == ["unsure", "unfamiliar"]


def test_statuses_are_counted_and_only_the_ok_ones_are_judged() -> None:
    statuses: list[Any] = ["ok", "unsure", "ok", "unfamiliar", "ok", "unsure"]
    counted = Statuses.of(statuses, [True, False, False, False, True, True])
    assert (counted.ok, counted.unsure) == (Proportion(3, 6), Proportion(2, 6))
    assert (counted.unfamiliar, counted.wrong) == (Proportion(1, 6), Proportion(1, 3))
    assert Statuses.of(["unsure"], [True]).wrong is None
    assert Statuses.of(["unsure"], [True]).to_dict()["wrong"] is None


def test_others_are_counted_by_status_and_broken_ones_apart(
    model: Model, draw_noise: Callable[..., None], tmp_path: Path
) -> None:
    for name, image in zip("abc", flat(BRIGHT, 3), strict=True):
        (tmp_path / "deep").mkdir(exist_ok=True)
        Image.fromarray(image).save(tmp_path / "deep" / f"{name}.png")
    Image.fromarray(flat(DARK, 1)[0]).save(tmp_path / "d.png")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG broken")
    sources = open_others(str(tmp_path))
    assert len(sources) == 5
    others = Others.of(Eager(model), sources, "things")
    assert (others.ok, others.unfamiliar) == (Proportion(1, 4), Proportion(3, 4))
    assert others.unreadable == 1
    assert others.to_dict()["unfamiliar"]["count"] == 3
    assert "1 more cannot be read" in others.in_words()
    with pytest.raises(UsageError, match="none of the 1 other image "):
        Others.of(Eager(model), [Source("a", b"no image")], "things")


def test_without_a_threshold_no_image_is_called_ok_or_unsure_even_if_all_are_unfamiliar(
    model: Model,
) -> None:
    bare = Model(model.network, replace(model.description, calibration={}))
    sources = [Source(str(number), image) for number, image in enumerate(flat(BRIGHT, 2))]
    others = Others.of(Eager(bare), sources, "things")
    assert (others.unfamiliar, others.not_calibrated) == (Proportion(2, 2), Proportion(0, 2))
    assert "not calibrated" in others.in_words()
    assert "status ok" not in others.in_words()
    counted = evaluate(bare, flat(BRIGHT, 2), [0, 1]).statuses
    assert (counted.unfamiliar, counted.calibrated) == (Proportion(2, 2), False)
    assert evaluate(model, flat(BRIGHT, 2), [0, 1]).statuses.calibrated


def test_labelled_images_may_be_the_others_and_many_are_drawn_from(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert len(open_others("digits")) == 1797
    monkeypatch.setattr(module, "_MOST", 100)
    some = [source.name for source in open_others("digits")]
    assert len(set(some)) == 100
    assert some == [source.name for source in open_others("digits")]
    assert some != [source.name for source in open_others("digits", seed=1)]
    with pytest.raises(UsageError, match="nothing"):
        open_others(str(tmp_path / "nothing"))
    with pytest.raises(UsageError, match="no images in this folder"):
        open_others(str(tmp_path))


def test_near_duplicates_of_training_images_are_none_of_the_others(model: Model) -> None:
    """Another size, another quality: by the rule of `doctor`, not by exact bytes."""

    def picture(seed: int) -> Image.Image:
        coarse = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), np.uint8)
        return Image.fromarray(coarse).resize((64, 64), Image.Resampling.BICUBIC)

    def as_jpeg(image: Image.Image) -> bytes:
        file = io.BytesIO()
        image.resize((50, 50)).save(file, "JPEG", quality=40)
        return file.getvalue()

    pictures = np.stack([np.asarray(picture(seed)) for seed in range(20)])
    train = open_data((pictures, [0, 1] * 10), validation=0, test=0).train
    same = [Source(str(seed), as_jpeg(picture(seed))) for seed in range(3)]
    new = [Source(str(seed), as_jpeg(picture(seed))) for seed in range(100, 105)]
    unreadable = Source("broken", b"no image")
    others = Others.of(Eager(model), [*same, *new, unreadable], "things", [None, train])
    assert (others.ok.total, others.seen, others.unreadable) == (5, 3, 1)
    assert "3 more are left out" in others.in_words()
    assert Others.of(Eager(model), [*same, *new], "things", [train], compared=0).seen == 0
    with pytest.raises(UsageError, match="each of the 3 images looks like an image"):
        Others.of(Eager(model), same, "things", [train])
