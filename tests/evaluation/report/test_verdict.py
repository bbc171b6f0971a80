import numpy as np
import pytest

from resnets.evaluation.calibration import calibrate
from resnets.evaluation.doctor.duplicates import Duplicates, Pair
from resnets.evaluation.evaluate import evaluate_logits
from resnets.evaluation.exposure import Exposure
from resnets.evaluation.label_errors import find_label_errors
from resnets.evaluation.proportion import Proportion
from resnets.evaluation.report.verdict import Evidence, remarks, verdict
from resnets.images import Preprocessing
from resnets.model_file import Description


def logits_of(right: int, wrong: int, sure: float, unsure: float) -> tuple:
    """Predictions of three classes, the right ones more confident; labels in turn."""
    labels = np.arange(right + wrong) % 3
    scores = np.zeros((len(labels), 3))
    answers = np.where(np.arange(len(labels)) < right, labels, (labels + 1) % 3)
    scores[np.arange(len(labels)), answers] = np.where(answers == labels, sure, unsure)
    return scores, labels


def evidence(scores, labels, *, max_error=0.02, fitted=True, **changes) -> Evidence:
    calibration = calibrate(scores, labels, max_error) if fitted else None
    description = Description(
        {},
        ("cat", "dog", "owl"),
        Preprocessing(8, 8, (0.5,), (0.5,)),
        calibration=calibration.to_dict() if calibration else {},
    )
    known = {"exposure": Exposure(0, 0, unknown=""), "duplicates": None, "without_duplicates": None}
    return Evidence(
        evaluation=evaluate_logits(description, scores, labels, "some images"),
        calibration=calibration,
        labels=find_label_errors(scores, labels),
        **(known | changes),
    )


def test_few_mistakes_in_enough_images_are_reliable():
    judgement = verdict(evidence(*logits_of(2990, 10, 5, 1)))
    assert (judgement.level, judgement.headline.startswith("Reliable")) == ("yes", True)


def test_where_mistakes_are_marked_unsure_the_other_predictions_are_reliable():
    judgement = verdict(evidence(*logits_of(2700, 300, 5, 1)))
    assert judgement.level == "yes"
    assert "status is ok" in judgement.headline
    assert "90.0 % (2,700/3,000)" in judgement.reasons[0]


def test_the_same_shares_in_few_images_need_a_review():
    judgement = verdict(evidence(*logits_of(90, 10, 5, 1)))
    assert judgement.level == "care"
    high = Proportion(0, 90).interval[1]
    assert f"may be up to {100 * high:.1f} %" in judgement.reasons[-1]


@pytest.mark.parametrize(
    ("right", "wrong", "ok"),
    [
        (361, 125, 40),
        (350, 150, 45),
        (850, 150, 150),
        (4000, 1000, 600),
    ],  # the last meets the target
)
def test_a_network_that_leaves_nearly_everything_to_a_person_is_not_good_enough(right, wrong, ok):
    scores, labels = logits_of(right, wrong, 1, 1)
    scores[:ok] *= 9  # these alone are confident, and right
    judgement = verdict(evidence(scores, labels))
    assert judgement.headline == "Probably not ready to rely on"
    most = np.bincount(labels).max()
    assert f"({most:,}/{len(labels):,})" in judgement.reasons[1]  # what guessing would do


def test_few_confident_predictions_say_little_however_many_they_are_of_all():
    judgement = verdict(evidence(*logits_of(20, 5, 5, 1)))  # 0 of 20 wrong: up to 16 %
    assert judgement.headline == "Probably not ready to rely on"
    assert verdict(evidence(*logits_of(90, 10, 5, 1))).headline == "Good enough with review"


def test_a_network_as_confident_of_its_mistakes_is_not_ready():
    judgement = verdict(evidence(*logits_of(2700, 300, 5, 5)))
    assert (judgement.level, judgement.headline.startswith("Not ready")) == ("no", True)


def test_one_that_predicts_only_the_most_frequent_class_is_not_ready():
    labels = np.r_[np.zeros(80, int), np.ones(10, int), np.full(10, 2)]
    judgement = verdict(evidence(np.tile([3.0, 0, 0], (100, 1)), labels))
    assert (judgement.level, judgement.headline.startswith("Not ready")) == ("no", True)
    assert "80.0 % (80/100)" in judgement.reasons[0]


def test_images_that_it_was_trained_on_give_no_verdict():
    judgement = verdict(evidence(*logits_of(2990, 10, 5, 1), exposure=Exposure(7, 2, unknown="")))
    assert (judgement.level, judgement.headline.startswith("No verdict")) == ("no", True)


def test_without_a_target_error_rate_there_is_no_verdict():
    judgement = verdict(evidence(*logits_of(2990, 10, 5, 1), fitted=False))
    assert (judgement.level, judgement.headline.startswith("No verdict")) == ("care", True)


@pytest.mark.parametrize(("count", "level"), [(3, "yes"), (300, "care")])
def test_many_duplicates_of_training_images_need_a_review(count, level):
    duplicates = Duplicates(
        tuple(Pair(0, i, 1.0, exact=True) for i in range(count)), 3000, 3000, 9, 9
    )
    known = evidence(
        *logits_of(2990, 10, 5, 1),
        duplicates=duplicates,
        without_duplicates=Proportion(2, 3000 - count),
    )
    assert verdict(known).level == level
    first = next(iter(remarks(known)))
    assert first.section == "duplicates"
    assert f"without these {100 * 2 / (3000 - count):.1f} %" in first.text


def test_what_stands_out_is_remarked_on_and_nothing_else():
    scores, labels = logits_of(3000, 0, 9, 9)
    assert not list(remarks(evidence(scores, labels)))
    scores[labels == 1] = [9, 0, 0]  # no dog is known
    texts = {
        remark.section: remark.text for remark in remarks(evidence(scores, labels, fitted=False))
    }
    assert "dog" in texts["classes"]
    assert "0.0 % (0/1,000)" in texts["classes"]
    assert "dog predicted as cat, 1,000 times" in texts["confusion"]
    assert "off by" in texts["calibration"]


def test_the_doubts_of_a_weak_network_are_called_its_own_mistakes():
    for right, whose in ((700, "most of them are the network's"), (970, "may be the label's")):
        scores, labels = logits_of(right, 1000 - right, 3, 3)
        texts = [remark.text for remark in remarks(evidence(scores, labels))]
        assert any(whose in text for text in texts if "suspicious" in text), texts


def test_a_handful_of_images_is_called_so():
    texts = [remark.text for remark in remarks(evidence(*logits_of(9, 0, 9, 9)))]
    assert any("Fewer than 20 images" in text and "every class" in text for text in texts)
    assert any("9 images" in text and "uncertain" in text for text in texts)


def test_nothing_is_concluded_from_the_mistakes_of_a_network_at_chance():
    generator = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], [150, 120, 30])
    scores = generator.normal(size=(300, 3)) * 5 + [2, 0, 0]
    at_chance = list(remarks(evidence(scores, labels)))
    assert {remark.section for remark in at_chance} <= {"calibration", "figures"}
    better = scores + 6 * np.eye(3)[labels] * (labels[:, None] < 2)  # the third is never found
    concluded = {remark.section for remark in remarks(evidence(better, labels))}
    assert {"classes", "confusion"} <= concluded


def test_a_class_never_recognised_is_named_also_of_a_network_at_chance():
    """Of 17 images 12 are right, which 10 of one class would be, too; of another, none of 4."""
    labels = np.repeat([0, 1, 2], [3, 4, 10])
    answers = np.concatenate([[0, 0, 2], np.full(14, 2)])
    texts = [remark.text for remark in remarks(evidence(np.eye(3)[answers] * 3, labels))]
    assert any("0.0 % (0/4)" in text for text in texts)
    answers[3] = 1
    texts = [remark.text for remark in remarks(evidence(np.eye(3)[answers] * 3, labels))]
    assert not any("weakest" in text for text in texts)
