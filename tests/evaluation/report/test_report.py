"""The page of a report, made in this process of a small network; see also tests/commands."""

import re
import sys
from dataclasses import replace
from importlib.resources import files

import numpy as np
import pytest
import torch
from tinyhtml5.parser import HTMLParser

from resnets.data.labelled import LabelledImages
from resnets.data.storage import PixelStorage
from resnets.errors import ContentError
from resnets.evaluation.exposure import Exposure
from resnets.evaluation.familiarity import OtherImages, class_directions, fit_familiarity
from resnets.evaluation.report.page import Subject, _page, make_report
from resnets.images import Preprocessing
from resnets.model_file import Description, Model
from resnets.networks import build

NAMES = ('"><img src=x onerror=alert(1)>', "<script>alert(2)</script>", "{{ 7 * 7 }}\x00\u202e&")


def subject(names=NAMES, total=60, **changes) -> Subject:
    """A network with random weights, and images of noise under names that mean harm."""
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    network = build("resnet14", width=4, num_classes=len(names)).eval()
    description = Description(
        network.architecture.to_dict(), tuple(names), Preprocessing(8, 8, (0.5,) * 3, (0.5,) * 3),
        data={"source": "<b>source</b>"},
    )  # fmt: skip
    pixels = random.integers(0, 256, (total, 8, 8, 3), np.uint8)
    storage = PixelStorage(pixels, lambda index: f"<i>{index}</i>.png\udcff")
    labels = np.arange(total) % len(names)
    images = LabelledImages(storage, labels, names)
    known = {"what": "<u>images</u>", "seen_images": images.subset(range(0, total, 2))}
    return Subject(
        model=Model(network, description),
        images=images,
        logits=random.normal(size=(total, len(names))) * 3,
        **(known | changes),
    )


def parsed(text):
    parser = HTMLParser(namespace_html_elements=False)
    root = parser.parse(text)
    assert not parser.errors
    return [element for element in root.iter() if isinstance(element.tag, str)]


def test_no_name_becomes_markup():
    text = _page(make_report(subject(repeat="<s>resnets train</s>")))
    text.encode()  # no lone surrogate is left
    elements = parsed(text)
    tags = {element.tag for element in elements}
    assert not tags & {"script", "i", "u", "s", "iframe", "object"}
    for element in elements:
        assert not any(name.lower().startswith("on") for name in element.attrib)
        link = element.get("src") or element.get("href") or ""
        assert not link or re.match("data:|#", link)
    words = "".join(text for element in elements for text in element.itertext())
    assert "<script>alert(2)</script>" in words
    assert r"{{ 7 * 7 }}\x00\u202e&" in words


def test_those_who_do_not_see_are_told_as_much():
    elements = parsed(_page(make_report(subject())))
    pictures = [element for element in elements if element.tag == "img"]
    assert len(pictures) > 20
    assert all(element.get("alt") for element in pictures)
    charts = [element for element in elements if element.tag.endswith("svg")]
    assert all(element.get("aria-label") and element.get("role") == "img" for element in charts)
    heads = [element for element in elements if element.tag == "th"]
    assert all(element.get("scope") in ("row", "col") for element in heads)
    assert all(table.find("caption") is not None for table in elements if table.tag == "table")
    ids = [element.get("id") for element in elements if element.get("id")]
    assert len(ids) == len(set(ids))
    links = [element.get("href")[1:] for element in elements if element.tag == "a"]
    label_ids = [element.get("aria-labelledby") for element in elements]
    assert {*links, *(name for name in label_ids if name)} <= set(ids)
    levels = [int(element.tag[1]) for element in elements if re.fullmatch("h[1-6]", element.tag)]
    assert levels[0] == 1
    assert set(levels[1:]) == {2}


def test_without_captum_the_mistakes_are_shown_without_heat(monkeypatch):
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    report = make_report(subject())
    assert all(mistake.heat is None for mistake in report.mistakes)
    assert 'Without heat maps: captum is not installed: pip install ".[explain]"' in (
        _page(report).replace("&#34;", '"')
    )


def test_the_worst_mistakes_come_first_and_are_what_the_logits_say():
    about = subject()
    report = make_report(about)
    shown = [mistake.label_probability for mistake in report.mistakes]
    assert shown == sorted(shown)
    shares = np.exp(about.logits) / np.exp(about.logits).sum(axis=1, keepdims=True)
    own = shares[np.arange(60), about.images.labels]
    wrong = about.logits.argmax(axis=1) != about.images.labels
    assert shown == pytest.approx(np.sort(own[wrong])[:12])


def test_the_accuracy_without_duplicates_leaves_out_just_these():
    about = subject()
    report = make_report(about)
    right = about.logits.argmax(axis=1) == about.images.labels
    rest = report.evidence.without_duplicates  # the training images are every second image
    assert (rest.count, rest.total) == (right[1::2].sum(), 30)


def test_hundreds_of_classes_still_make_a_page_that_can_be_read():
    names = [f"class {number}" for number in range(300)]
    text = _page(make_report(subject(names, total=600)))
    parsed(text)
    assert len(text) < 600_000
    assert "Only the 20 classes with the most mistakes are shown." in text
    assert "All 300 classes" in text


def test_a_network_without_mistakes_and_without_training_images_is_no_fault():
    about = subject(seen_images=None)
    flawless = replace(about, logits=np.eye(3)[about.images.labels] * 9)
    text = _page(make_report(flawless))
    parsed(text)
    assert "No prediction was wrong" in text
    assert "no training images to compare with" in text


@pytest.mark.parametrize("data", [{"counts": 3}, {"counts": {"test": 1}}, {"test": "all"}])
def test_a_damaged_header_is_called_so(data):
    about = subject()
    description = replace(about.model.description, data=data)
    with pytest.raises(ContentError, match="account of its data is damaged"):
        _page(make_report(replace(about, model=replace(about.model, description=description))))


def luminance(colour: str) -> float:
    """Relative luminance (WCAG 2.2) of #rrggbb."""
    values = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize("ink", ["ink", "quiet", "link", "yes", "care", "no"])
@pytest.mark.parametrize("ground", ["ground", "raised"])
def test_text_can_be_told_from_its_ground(scheme, ink, ground):
    """At least 4.5 to 1, as WCAG 2.2 asks for in level AA (criterion 1.4.3)."""
    css = (files("resnets.evaluation.report") / "page.css").read_text(encoding="utf-8")
    colours = dict(re.findall(r"--(\w+): (#\w{6});", css.split("@media")[scheme]))
    light, dark = sorted([luminance(colours[ink]), luminance(colours[ground])], reverse=True)
    assert (light + 0.05) / (dark + 0.05) >= 4.5


@pytest.mark.parametrize("trained", [0, 1])
def test_labels_of_images_that_were_trained_on_are_not_suspected(trained):
    about = subject(("a", "b", "c"), seen_images=None)
    logits = 9 * np.eye(3)[about.images.labels]
    logits[7] = np.roll(logits[7], 1)  # sure of another class than the label
    report = make_report(replace(about, logits=logits, exposure=Exposure(trained, 0, unknown="")))
    assert [each.name for each in report.suspects] == ([] if trained else [about.images.names[7]])
    assert (report.evidence.labels.error_rate is None) == bool(trained)
    assert ("knows their labels by heart" in _page(report)) == bool(trained)


def test_a_suspicious_image_is_shown_with_the_same_prediction_as_among_the_mistakes():
    about = subject(("a", "b", "c"), seen_images=None)
    shares = np.array([[0.98, 0.01, 0.01], [0.01, 0.98, 0.01], [0.8, 0.05, 0.15]])
    probabilities = shares[about.images.labels]
    probabilities[0] = (0.02, 0.7, 0.28)  # b, which has 0.98 of others; c has 0.15 of others
    probabilities[3] = (0.004, 0.99, 0.006)
    report = make_report(replace(about, logits=np.log(probabilities)))
    suspects = {each.name: each for each in report.suspects}
    mistakes = {each.name: each for each in report.mistakes}
    first, second = (about.images.names[number] for number in (0, 3))
    for name in (first, second):
        assert suspects[name].prediction == mistakes[name].prediction == "b"
        assert suspects[name].confidence == pytest.approx(mistakes[name].confidence)
    assert (suspects[first].suggested, suspects[second].suggested) == ("c", "")
    assert suspects[first].suggested_probability == pytest.approx(0.28)


@pytest.mark.parametrize("knows_new_ones", [False, True])
@pytest.mark.parametrize("compared", [60, 2000])  # images looked at: half, all
def test_a_network_that_knows_only_copies_of_training_images_suspects_no_label(
    knows_new_ones, compared
):
    about = subject(("a", "b", "c"))
    about = replace(about, seen_images=about.images.subset(range(30)))
    labels = about.images.labels
    logits = 9.0 * np.eye(3)[labels]
    if not knows_new_ones:
        logits[30:] = 9 * np.eye(3)[np.random.default_rng(0).integers(0, 3, 30)]
    logits[37] = np.roll(9 * np.eye(3)[labels[37]], 1)  # sure of another class than the label
    report = make_report(replace(about, logits=logits), compared)
    assert report.evidence.duplicates.looked_at == min(60, compared // 2)
    assert report.evidence.evaluation.metrics.better_than_chance
    assert [each.name for each in report.suspects] == [about.images.names[37]] * knows_new_ones
    sections = {remark.section for remark in report.remarks}
    assert ("labels" in sections) == knows_new_ones
    words = "without those that look like training or validation images, do not show"
    assert (words in _page(report)) == (not knows_new_ones)


def test_images_that_are_all_copies_of_training_images_raise_no_doubt():
    about = subject(("a", "b", "c"))
    logits = 9.0 * np.eye(3)[about.images.labels]
    logits[7] = np.roll(logits[7], 1)
    report = make_report(replace(about, logits=logits, seen_images=about.images))
    assert not report.suspects
    assert report.evidence.labels.error_rate is None


@pytest.mark.parametrize("measured", [False, True])
def test_the_page_says_that_other_things_are_not_recognised_and_what_was_measured(measured):
    features = np.random.default_rng(0).normal(size=(40, 64))
    own = class_directions(features, np.arange(40) % 3)
    others = OtherImages(features[:10] + 5, np.ones(10), "10 photos") if measured else None
    known = fit_familiarity(own, features, others)
    plain = subject()
    about = replace(plain.model.description, familiarity=known.to_dict())
    familiar = np.arange(60) >= 7
    made = replace(plain, model=replace(plain.model, description=about), familiar=familiar)
    text = _page(make_report(made))
    assert "No network is protected" in text
    assert "class of negatives" in text
    assert made.logits.shape[0] - familiar.sum() == 7
    assert ("10 photos" in text) == measured
    assert ("--other FOLDER" in text) != measured
    assert "no familiarity score" in _page(make_report(plain))


@pytest.mark.parametrize(("folds", "budget"), [(None, "2m"), (5, ""), (5, "2m")])
def test_that_a_repetition_trains_the_folds_of_a_budget_otherwise_is_said(folds, budget):
    plain = subject(repeat="resnets train data", budget=budget)
    data = plain.model.description.data | ({"folds": folds} if folds else {})
    known = replace(plain.model.description, data=data)
    text = _page(make_report(replace(plain, model=replace(plain.model, description=known))))
    assert ("accuracy by cross-validation may differ" in text) == bool(folds and budget)
