import json
import xml.etree.ElementTree as ElementTree

import pytest

from resnets.errors import ContentError
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


def test_a_run_without_an_epoch_has_no_curves(tmp_path):
    assert learning_curves(history(tmp_path, 0, [], [0.1])) == []


def test_a_record_without_its_figures_is_a_fault_of_the_log(tmp_path):
    lines = ['{"kind": "start"}', '{"kind": "epoch", "epoch": 1, "training": {"loss": 1}}']
    (tmp_path / "log.jsonl").write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(ContentError, match=r"log\.jsonl: a record is damaged"):
        learning_curves(History.read(tmp_path / "log.jsonl"))
