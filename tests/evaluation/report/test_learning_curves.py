import json
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from matplotlib.figure import Figure

from resnets.errors import ContentError
from resnets.evaluation.drawing import draw, label_axes
from resnets.evaluation.history import History
from resnets.evaluation.report.learning_curves import learning_curves


def history(folder, epochs, groups, rates=()) -> History:
    records = [{"kind": "start", "step": 0}]
    records += [
        {"kind": "interval", "step": n + 1, "learning_rate": r} for n, r in enumerate(rates)
    ]
    for epoch in range(1, epochs + 1):
        score = {"loss": 2 / epoch, "accuracy": 1 - 0.5 / epoch}
        records.append(
            {"kind": "epoch", "epoch": epoch, "step": epoch} | dict.fromkeys(groups, score)
        )
    path = folder / "log.jsonl"
    path.write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    return History.read(path)


def words(chart: str) -> set[str]:
    root = ElementTree.fromstring(chart)
    return {"".join(node.itertext()) for node in root.iter() if node.tag.endswith("text")}


def test_accuracy_loss_and_rate_are_charts_of_their_own(tmp_path):
    charts = learning_curves(history(tmp_path, 5, ["training", "validation"], [0.1, 0.05]))
    assert len(charts) == 3
    labels = [ElementTree.fromstring(chart).get("aria-label") for chart in charts]
    assert labels == [
        "Accuracy by epoch; after the last one training 90.0 %, validation 90.0 %",
        "Loss by epoch; after the last one training 0.400, validation 0.400",
        "Learning rate; at most 0.1, in the end 0.05",
    ]
    assert {"training", "validation", "epoch"} <= words(charts[0])


@pytest.mark.parametrize("groups", [["training"], ["training", "validation", "test"]])
def test_only_what_was_measured_is_drawn(tmp_path, groups):
    accuracy, loss = learning_curves(history(tmp_path, 1, groups))
    for chart in (accuracy, loss):
        assert words(chart) & {"training", "validation", "test"} == set(groups)


@pytest.mark.parametrize("epochs", [1, 2])
def test_the_axis_of_few_epochs_counts_whole_ones(tmp_path, epochs):
    axes = Figure().subplots()
    label_axes(axes, "accuracy in percent")
    draw(axes, history(tmp_path, epochs, ["training"]).epochs, "accuracy", 100.0)
    low, high = axes.get_xlim()
    assert [tick for tick in axes.get_xticks() if low <= tick <= high] == [1, 2][:epochs]


def test_a_run_without_an_epoch_has_no_curves(tmp_path):
    assert learning_curves(history(tmp_path, 0, [], [0.1])) == []


def test_a_record_without_its_figures_is_a_fault_of_the_log(tmp_path):
    lines = ['{"kind": "start"}', '{"kind": "epoch", "epoch": 1, "training": {"loss": 1}}']
    (tmp_path / "log.jsonl").write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(ContentError, match=r"log\.jsonl: a record is damaged"):
        learning_curves(History.read(tmp_path / "log.jsonl"))


def test_each_line_goes_through_the_figures_of_its_images(tmp_path, read_chart):
    """As the numbers at the axes say; orange in training, blue in validation, green in test."""
    figures = {"training": (2.5, 0.3), "validation": (2.0, 0.5), "test": (1.5, 0.6)}
    records = [{"kind": "start", "step": 0}]
    for step, rate in enumerate([0.1, 0.04, 0.02], start=1):
        records.append({"kind": "interval", "step": 10 * step, "learning_rate": rate})
        epoch = {
            group: {"loss": loss / step, "accuracy": 1 - accuracy / step}
            for group, (loss, accuracy) in figures.items()
        }
        records.append({"kind": "epoch", "epoch": step, "step": 10 * step} | epoch)
    (tmp_path / "log.jsonl").write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    charts = learning_curves(History.read(tmp_path / "log.jsonl"))
    accuracy, loss, rate = (read_chart(chart).lines for chart in charts)
    epochs = np.arange(1, 4)
    colours = {"training": "#d95926", "validation": "#3987e5", "test": "#2a9d73"}
    for group, colour in colours.items():
        first, second = figures[group]
        expected = 100 * (1 - second / epochs)
        np.testing.assert_allclose(accuracy[colour].T, [epochs, expected], atol=1e-2)
        np.testing.assert_allclose(loss[colour].T, [epochs, first / epochs], atol=1e-3)
    np.testing.assert_allclose(rate["#3987e5"].T, [[10, 20, 30], [0.1, 0.04, 0.02]], atol=1e-4)
