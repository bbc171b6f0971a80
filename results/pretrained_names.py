"""Write the class names of ImageNet's heads into the package, from a checkout of timm.

    python results/pretrained_names.py PYTORCH-IMAGE-MODELS

Synset ids and lemmas are WordNet 3.0's (Princeton University, its own free licence), in the order
of the logits, as timm keeps them (timm/data/_info, Apache-2.0).
"""

import gzip
import sys
from pathlib import Path

TARGET = Path(__file__).parents[1] / "resnets" / "pretrained" / "class_names"
HEADS = {  # as timm/data/imagenet_info.py assigns lists to numbers of classes
    1000: "imagenet_synsets",
    11821: "imagenet12k_synsets",
    21843: "imagenet21k_goog_synsets",
}


def main() -> None:
    """Write one file a head: a synset id, a tab and its names on each line."""
    folder = Path(sys.argv[1], "timm", "data", "_info")
    text = (folder / "imagenet_synset_to_lemma.txt").read_text(encoding="utf-8")
    lemmas = dict(line.split("\t", 1) for line in text.splitlines())
    TARGET.mkdir(exist_ok=True)
    for number, name in HEADS.items():
        synsets = (folder / f"{name}.txt").read_text(encoding="utf-8").split()
        assert len(synsets) == number, name
        lines = "".join(f"{synset}\t{lemmas[synset].strip()}\n" for synset in synsets).encode()
        file = TARGET / f"imagenet-{number}.txt"
        if number == 1000:
            file.write_bytes(lines)
        else:
            file.with_suffix(".txt.gz").write_bytes(gzip.compress(lines, mtime=0))


if __name__ == "__main__":
    main()
