"""Write the table of published networks into the package, from timm, torchvision and the hub.

    python results/pretrained_table.py PYTORCH-IMAGE-MODELS

It needs timm and torchvision installed (an environment of its own will do: of this package it needs
only the catalog), and a checkout of timm for the measured accuracies. A published network is in the
table if the catalog has its name, and if its configuration can be found: rerun this after adding
rows to the catalog.
"""

import csv
import math
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import timm
import torch
import torchvision
from timm.data import resolve_data_config

from resnets.networks.catalog import CATALOG
from resnets.pretrained.table import TABLE, Published, is_non_commercial

MICROSOFT = {  # depth: network, resize and interpolation as `checkpoints.hub_folder` reads them
    18: ("resnet18", 256, "bilinear"),
    26: ("resnet26", 256, "bicubic"),
    34: ("resnet34", 256, "bilinear"),
    50: ("resnet50", 235, "bicubic"),
    101: ("resnet101", 235, "bicubic"),
    152: ("resnet152", 235, "bicubic"),
}
UNKNOWN = "not stated"


def from_timm(results: Path, commit: str) -> Iterator[dict[str, Any]]:
    """The rows of timm's networks."""
    with (results / "results-imagenet.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    measured = {(row["model"], int(row["img_size"]), float(row["crop_pct"])): row for row in rows}
    for name in timm.list_pretrained():
        network = name.partition(".")[0]
        cfg = timm.get_pretrained_cfg(name)
        if network not in CATALOG or not cfg.hf_hub_id or not cfg.num_classes:
            continue
        with torch.device("meta"):
            model = timm.create_model(name, pretrained=False)
        seen = resolve_data_config({}, pretrained_cfg=cfg.to_dict(), use_test_size=True)
        side, crop = seen["input_size"][-1], seen["crop_pct"]
        score = measured.get((name, side, round(crop, 3)))
        yield {
            "id": f"timm/{name}",
            "network": network,
            "train_size": cfg.input_size[-1],
            "size": side,
            "resize": math.floor(side / crop),
            "crop_mode": seen["crop_mode"],
            "interpolation": seen["interpolation"],
            "mean": seen["mean"],
            "std": seen["std"],
            "classes": cfg.num_classes,
            "top1": float(score["top1"]) if score else None,
            "source": f"timm's results/results-imagenet.csv, commit {commit[:12]}" if score else "",
            "licence": cfg.license or UNKNOWN,
        } | counts(model)


def counts(model: torch.nn.Module) -> dict[str, int]:
    """Numbers of parameters, and of bytes of all that is stored."""
    stored = model.state_dict().values()
    return {
        "parameters": sum(each.numel() for each in model.parameters()),
        "bytes": sum(each.numel() * each.element_size() for each in stored),
    }


def from_torchvision() -> Iterator[dict[str, Any]]:
    """The rows of torchvision's networks."""
    for network in torchvision.models.list_models(torchvision.models):
        if network not in CATALOG:
            continue
        for weights in torchvision.models.get_model_weights(network):
            with torch.device("meta"):
                model = torchvision.models.get_model(network)
            seen = weights.transforms()
            yield {
                "id": f"torchvision/{network}.{weights.name}",
                "network": network,
                "train_size": int(weights.meta.get("train_crop_size", 224)),
                "size": seen.crop_size[0],
                "resize": seen.resize_size[0],
                "crop_mode": "center",
                "interpolation": seen.interpolation.value,
                "mean": tuple(seen.mean),
                "std": tuple(seen.std),
                "classes": len(weights.meta["categories"]),
                "top1": weights.meta["_metrics"]["ImageNet-1K"]["acc@1"],
                "source": f"torchvision {torchvision.__version__.partition('+')[0]}, {weights}",
                "licence": "bsd-3-clause",
                "sha256": weights.url.rpartition("-")[2].partition(".")[0],
                "url": weights.url,
            } | counts(model)


def from_microsoft() -> Iterator[dict[str, Any]]:
    """The rows of the transformers library's networks, which are timm's of 2022."""
    for depth, (network, resize, interpolation) in MICROSOFT.items():
        with torch.device("meta"):
            model = timm.create_model(network, pretrained=False)
        yield {
            "id": f"microsoft/resnet-{depth}",
            "network": network,
            "train_size": 224,
            "size": 224,
            "resize": resize,
            "crop_mode": "center",
            "interpolation": interpolation,
            "mean": timm.data.IMAGENET_DEFAULT_MEAN,
            "std": timm.data.IMAGENET_DEFAULT_STD,
            "classes": 1000,
            "licence": "apache-2.0",
        } | counts(model)


def with_recommended(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """With a mark for the best accuracy of each network among free weights for ImageNet-1k."""
    best: dict[str, dict[str, Any]] = {}
    for row in rows:
        free = row["licence"] != UNKNOWN and not is_non_commercial(row["licence"])
        free = free and row["classes"] == 1000 and row.get("top1")
        now = best.get(row["network"])
        if free and (now is None or row["top1"] > now["top1"]):
            best[row["network"]] = row
    chosen = {row["id"] for row in best.values()}
    return [row | {"recommended": "yes" if row["id"] in chosen else ""} for row in rows]


def main() -> None:
    """Write the table, ordered as the catalog is."""
    checkout = Path(sys.argv[1])
    git = ["git", "-C", str(checkout), "rev-parse", "HEAD"]
    commit = subprocess.run(git, check=True, capture_output=True, text=True).stdout.strip()
    rows = [*from_timm(checkout / "results", commit), *from_torchvision(), *from_microsoft()]
    order = list(CATALOG)
    rows.sort(key=lambda row: (order.index(row["network"]), row["id"]))
    names = [field.name for field in fields(Published)]
    with TABLE.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        for row in with_recommended(rows):
            texts = {name: row.get(name, "") for name in names}
            texts |= {name: " ".join(map(str, row[name])) for name in ("mean", "std")}
            writer.writerow({name: "" if v is None else v for name, v in texts.items()})
    print(f"{TABLE}: {len(rows)} rows")


if __name__ == "__main__":
    main()
