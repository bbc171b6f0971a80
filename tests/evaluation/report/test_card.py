"""Model cards: what they say is true of the network, and nothing in them is somebody's path."""

from dataclasses import replace
from typing import Any

import pytest

from resnets.data.membership import Generation, TrainedOn
from resnets.evaluation.calibration import Calibration
from resnets.evaluation.familiarity import Familiarity, class_directions
from resnets.evaluation.proportion import Proportion
from resnets.evaluation.report.card import CardSubject, make_card
from resnets.images import Preprocessing
from resnets.model_file import Description
from resnets.networks import build

pytest.importorskip("huggingface_hub")

KEPT = "the classifier is that of {}, trained on other images before"
PATH = "/home/ann/my photos <b>"
SCORES = {"top1": {"count": 9, "total": 10}, "classes": [(4, 5), (5, 5)]}
FOLDS = {"top1": {"count": 60, "total": 75}, "folds": 3, "classes": [(20, 30), (40, 45)]}
CALIBRATION = Calibration(1.5, 0.8, 0.02, False, Proportion(0, 8), 10, 0.1, 0.05)


def described(**changes: Any) -> Description:
    preprocessing = Preprocessing(32, 32, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    about = Description(
        build("resnet14", num_classes=2).architecture.to_dict(), ("ant", "bee"), preprocessing
    )
    return replace(about, **changes)


def card_of(**changes: Any) -> str:
    return make_card(CardSubject(described(**changes), "ann/pets", 100, onnx=True, timm=True))


def familiarity(others: str) -> dict[str, Any]:
    directions = class_directions([[1.0, 0.0], [0.0, 1.0]], [0, 1])
    share = Proportion(1, 4)
    return Familiarity(directions, 0.5, 4, share, share, share, others).to_dict()


@pytest.mark.parametrize(
    "changes",
    [
        {"calibration": {"images": f"10 images, those of {PATH} that are new"}},
        {
            "calibration": {
                "withheld": f"the classifier is that of {PATH}, trained on other images before"
            }
        },
        {"calibration": {"withheld": f"{PATH} was validated on some of the validation images"}},
        {"familiarity": familiarity(f"1,234 of {PATH}; 3 more cannot be read")},
        {"familiarity": familiarity(f"1,234 of {PATH}")},
        {"data": {"source": PATH}},
        {"trained_on": TrainedOn((Generation(PATH, 20, unknown="not kept"),)).to_dict()},
    ],
)
def test_a_card_has_no_path_and_a_name_is_shown_as_it_is(changes: dict[str, Any]) -> None:
    if fitted := changes.get("calibration"):
        changes = {"calibration": replace(CALIBRATION, **fitted).to_dict()}
    assert CardSubject(described(**changes), "ann/pets", 1).names_folders
    card = card_of(metrics={"test": SCORES}, **changes)
    assert "/home" not in card
    assert "<b>" not in card.split("---\n", 2)[2]
    if "familiarity" in changes:
        assert r"1,234 of my photos \<b\>" in card


@pytest.mark.parametrize("source", ["digits", "hub:ann/ants@v1"])
def test_a_data_set_without_a_folder_is_no_path(source: str) -> None:
    assert not CardSubject(described(data={"source": source}), "ann/pets", 1).names_folders


@pytest.mark.parametrize("classes", [[(20, 30), (40, 45)], "as earlier files hold them"])
def test_a_cross_validation_is_a_measurement_of_other_networks(classes: Any) -> None:
    if isinstance(classes, str):
        classes = {
            "bee": {"recall": 40 / 45, "images": 45},
            "ant": {"recall": 20 / 30, "images": 30},
        }
    metrics = {"cross_validation": FOLDS | {"classes": classes}}
    card = card_of(metrics=metrics, calibration=CALIBRATION.to_dict())
    assert "| cross-validation (3 networks, not this one) | 80.00 % |" in card
    assert "60/75" in card
    assert "20/30" in card
    assert "40/45" in card
    assert "not measured" not in card
    assert "Validation images chose" not in card
    assert "Test images" not in card
    both = card_of(metrics=metrics | {"test": SCORES})
    assert "5/5" in both  # the classes on the images that measured this network itself
    assert "40/45" not in both


def test_only_what_the_validation_images_chose_is_said_of_them() -> None:
    measured = {"validation": SCORES, "test": SCORES}
    fitted = CALIBRATION.to_dict()
    elsewhere = replace(CALIBRATION, images="10 images of others").to_dict()

    def sentence(recipe: dict[str, Any], calibration: dict[str, Any]) -> str:
        card = card_of(metrics=measured, recipe=recipe, calibration=calibration)
        return card.partition("Validation images chose")[2].partition(".")[0]

    assert "epoch" not in sentence({"patience": 0}, fitted)
    assert "temperature" in sentence({"patience": 0}, fitted)
    assert "epoch" in sentence({"patience": 3}, fitted)
    assert "temperature" not in sentence({"patience": 3}, elsewhere)
    assert "penalty" in sentence({"freeze": "all"}, {})
    assert sentence({}, {}) == ""
    assert "Test images" not in card_of(metrics={"validation": SCORES})


def test_the_publishers_accuracy_is_that_of_its_own_weights_only() -> None:
    origin = {"id": "timm/resnet50.a1_in1k", "top1": "80.0 %", "top1_source": "timm"}
    published = Generation("ImageNet-1k", unknown="no list", origin=origin)
    assert "names 80.0 %" in card_of(trained_on=TrainedOn((published,)).to_dict())
    tuned = TrainedOn((Generation("photos", 20, unknown="not kept"), published))
    assert "names 80.0 %" not in card_of(trained_on=tuned.to_dict())


def test_what_is_known_of_unfamiliar_images_is_told_calibrated_or_not() -> None:
    for calibration in ({}, CALIBRATION.to_dict()):
        card = card_of(familiarity=familiarity("4 of x"), calibration=calibration)
        assert "Status unfamiliar" in card.split("## Limits")[1]
    known = Familiarity.from_dict(familiarity("4 of /home/x"))
    features = [[1.0, 0.5]] * 30  # of `resnets calibrate`, on images of another place
    card = card_of(familiarity=known.refitted(features).to_dict())
    assert "validation images" not in card.split("## Limits")[1]


def test_the_code_of_a_branch_reads_that_branch() -> None:
    subject = CardSubject(described(), "ann/pets", 1, onnx=True, timm=True, revision="v2")
    card = make_card(subject)
    assert card.count('"hf-hub:ann/pets@v2"') == 2  # resnets and timm
    assert 'revision="v2"' in card
    assert "v2" not in card_of()
