"""Each fault that is planted is found, and nothing else."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from resnets.data.labelled import LabelledImages
from resnets.data.sources.opening import read_source
from resnets.data.splits import SourceContent
from resnets.data.storage import FileStorage
from resnets.evaluation.doctor import inspection
from resnets.evaluation.doctor.diagnosis import Diagnosis, _shift_findings, diagnose


def noise(seed: int, size: tuple[int, int] = (40, 30)) -> Image.Image:
    """A picture that is like no other, with as much coarse as fine detail."""
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


Plant = Callable[[dict[str, bytes]], Diagnosis]


@pytest.fixture
def plant(tmp_path: Path) -> Plant:
    """Diagnose a sound data set of two classes and two splits into which some files are put."""

    def planted(files: dict[str, bytes]) -> Diagnosis:
        sound = {
            f"{split}/{name}/{number}.png": encoded(noise(100 * seed + number))
            for seed, (split, name) in enumerate(
                [("train", "cat"), ("train", "dog"), ("test", "cat"), ("test", "dog")]
            )
            for number in range(12)
        }
        for path, content in (sound | files).items():
            file = tmp_path / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        return diagnose(read_source(tmp_path))

    return planted


def found(diagnosis: Diagnosis) -> dict[str, tuple[str, ...]]:
    return {finding.kind: finding.images for finding in diagnosis.findings}


def test_a_sound_data_set_has_no_findings(plant):
    diagnosis = plant({})
    assert diagnosis.findings == ()
    assert not diagnosis.misleading
    assert diagnosis.classes["train"] == {"cat": 12, "dog": 12}


def test_broken_files_are_errors_with_their_reasons(plant):
    whole = encoded(noise(0))
    diagnosis = plant(
        {
            "train/cat/empty.png": b"",
            "train/dog/cut.png": whole[: len(whole) // 2],
            "test/dog/text.jpg": b"this is no picture",
        }
    )
    assert diagnosis.misleading
    (finding,) = diagnosis.findings
    assert (finding.kind, finding.level) == ("unreadable", "error")
    assert [text.split(": ")[0] for text in finding.images] == [
        "train/cat/empty.png",
        "train/dog/cut.png",
        "test/dog/text.jpg",
    ]
    assert all(len(text.split(": ", 1)[1]) > 5 for text in finding.images)


def test_odd_files_are_named_with_what_is_odd(plant):
    deep = np.random.default_rng(0).integers(0, 65536, (30, 40)).astype(np.uint16)
    turned = Image.Exif()
    turned[0x0112] = 6
    frames = [noise(3000 + number) for number in range(3)]
    diagnosis = plant(
        {
            "train/cat/print.jpg": encoded(noise(1001).convert("CMYK"), "JPEG"),
            "train/cat/deep.png": encoded(Image.fromarray(deep)),
            "train/dog/turned.jpg": encoded(noise(1002), "JPEG", exif=turned),
            "train/dog/moving.gif": encoded(
                frames[0], "GIF", save_all=True, append_images=frames[1:]
            ),
            "test/cat/glass.png": encoded(noise(1003).convert("RGBA")),
            "test/cat/wrong.jpg": encoded(noise(1004)),
        }
    )
    for finding in diagnosis.findings:  # whose verb would have to agree with the number
        assert not finding.text.startswith(("1 image have", "1 image are")), finding.text
    assert not diagnosis.misleading
    assert found(diagnosis) == {
        "white": (),  # said once, whatever the images
        "animated": ("train/dog/moving.gif: 3 frames",),
        "colours": ("train/cat/print.jpg: CMYK",),
        "deep": ("train/cat/deep.png: 16 bits a value",),
        "rotated": ("train/dog/turned.jpg: orientation 6",),
        "transparent": ("test/cat/glass.png: transparent",),
        "ending": ("test/cat/wrong.jpg: is PNG",),
    }


def test_images_far_from_the_usual_size_are_named_with_their_size(plant):
    diagnosis = plant(
        {
            "train/cat/tiny.png": encoded(noise(1001, (4, 5))),
            "train/dog/huge.png": encoded(noise(1002, (400, 300))),
            "test/dog/slim.png": encoded(noise(1003, (400, 9))),
        }
    )
    assert found(diagnosis) == {
        "tiny": ("train/cat/tiny.png: 4x5",),
        "huge": ("train/dog/huge.png: 400x300",),
        "slim": ("test/dog/slim.png: 400x9",),
    }


def test_a_constant_image_is_named(plant):
    grey = Image.new("RGB", (40, 30), (9, 99, 9))
    assert found(plant({"train/cat/flat.png": encoded(grey)})) == {
        "constant": ("train/cat/flat.png",)
    }


def test_the_same_pixels_in_train_and_test_are_an_error_whatever_the_file_format(plant):
    diagnosis = plant({"test/cat/again.bmp": encoded(noise(3), "BMP")})
    assert diagnosis.misleading
    (finding,) = diagnosis.findings
    assert (finding.kind, finding.level) == ("leak", "error")
    assert finding.images == ("test/cat/again.bmp = train/cat/3.png",)
    assert "1 of 25 images in test (4.0 %) are also in train" in finding.text


def test_the_same_pixels_twice_in_one_split_are_a_warning(plant):
    diagnosis = plant({"train/cat/again.png": encoded(noise(3))})
    assert not diagnosis.misleading
    assert found(diagnosis) == {"repeated": ("train/cat/again.png = train/cat/3.png",)}


@pytest.mark.parametrize("split", ["train", "test"])
def test_the_same_pixels_under_two_labels_are_an_error(plant, split):
    diagnosis = plant({f"{split}/dog/again.png": encoded(noise(3))})
    assert diagnosis.misleading
    assert found(diagnosis) == {
        "two-labels": (f"{split}/dog/again.png = train/cat/3.png ('dog' and 'cat')",)
    }


def test_a_picture_in_another_rendering_is_a_warning_across_splits_and_a_note_within(plant):
    small = encoded(noise(3).resize((24, 20)), "JPEG", quality=60)
    across = plant({"test/cat/small.jpg": small})
    assert [(f.kind, f.level, f.images) for f in across.findings] == [
        ("near-leak", "warning", ("test/cat/small.jpg ~ train/cat/3.png",))
    ]
    within = plant({"test/cat/small.jpg": encoded(noise(7777)), "train/dog/small.jpg": small})
    assert [(f.kind, f.level, f.images) for f in within.findings if f.kind != "ending"] == [
        ("near", "note", ("train/dog/small.jpg ~ train/cat/3.png ('dog' and 'cat')",))
    ]


def test_a_class_that_only_the_test_split_has_is_an_error(plant):
    diagnosis = plant({"test/owl/1.png": encoded(noise(5000))})
    assert diagnosis.misleading
    assert [(f.kind, f.level) for f in diagnosis.findings] == [("missing-class", "error")]
    assert "'owl' in test but not in train" in diagnosis.findings[0].text


def test_a_class_that_the_test_split_lacks_is_a_warning_and_a_small_one_too(plant):
    diagnosis = plant({"train/owl/1.png": encoded(noise(5000))})
    assert not diagnosis.misleading
    texts = {finding.kind: finding.text for finding in diagnosis.findings}
    assert set(texts) == {"missing-class", "few", "uneven"}
    assert "test has no images of 'owl'" in texts["missing-class"]
    assert "fewer than 10 training images of 'owl' (1)" in texts["few"]
    assert "has 12 training images, 'owl' has 1" in texts["uneven"]


def test_a_class_has_one_name_in_all_warnings(plant):
    name = """o'dd "näme\""""
    findings = plant({f"train/{name}/1.png": encoded(noise(5000))}).findings
    assert {finding.kind for finding in findings} == {"missing-class", "few", "uneven"}
    assert all(repr(name) in finding.text for finding in findings)


def test_a_split_with_other_shares_of_the_classes_is_a_warning(plant):
    more = {f"test/dog/{number}.png": encoded(noise(6000 + number)) for number in range(100, 180)}
    diagnosis = plant(more)
    assert [(f.kind, f.level) for f in diagnosis.findings] == [("shift", "warning")]
    assert "38 %" in diagnosis.findings[0].text
    assert "'cat': 50.0 % of train, 11.5 % of test" in diagnosis.findings[0].text


@pytest.mark.parametrize(
    "own", [{"cat": 10300, "dog": 9700}, {"cat": 7, "dog": 5}, {"cat": 3, "dog": 0}]
)
def test_shares_that_differ_by_little_or_by_chance_are_not_worth_a_word(own):
    assert list(_shift_findings({"cat": 50_000, "dog": 50_000}, own, "test")) == []


def test_repeats_are_named_rightly_though_broken_images_stand_before_them(plant):
    diagnosis = plant(
        {
            "train/cat/0 broken.png": b"",
            "test/cat/0 broken.png": b"",
            "test/cat/99.png": encoded(noise(8)),
        }
    )
    assert found(diagnosis)["leak"] == ("test/cat/99.png = train/cat/8.png",)


@pytest.mark.parametrize(
    ("paths", "kind", "words"),
    [
        (["cat/1.png", "cat/2.png"], "one-class", "one class only"),
        (["cat/1.png", "Cat/2.png", "dog/1.png"], "alike", "'Cat' and 'cat' differ only by case"),
        (["test/cat/1.png", "test/dog/2.png"], "no-training", "only 'test'"),
    ],
)
def test_what_training_refuses_is_an_error_with_all_else_that_was_found(
    tmp_path, paths, kind, words
):
    for seed, path in enumerate([*paths, paths[0].replace("1.png", "broken.png")]):
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encoded(noise(seed)) if "broken" not in path else b"")
    diagnosis = diagnose(read_source(tmp_path))
    errors = {f.kind: f.text for f in diagnosis.findings if f.level == "error"}
    assert words in errors.pop(kind)
    assert set(errors) == {"unreadable"}


@pytest.mark.parametrize("room", [1 << 20, 2000])  # bytes for the sample: all of it, or a part
def test_images_are_read_once_as_far_as_memory_allows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    """Those of 16 bits were read for the white level, for what exceeds it, and to be decoded."""
    reads = list[str]()

    class Counting(FileStorage):
        def read(self, index: int) -> bytes:
            reads.append(self.paths[index])
            return super().read(index)

    for number in range(8):
        deep = np.random.default_rng(number).integers(0, 4000, (20, 20), dtype=np.uint16)
        (tmp_path / f"{number}.png").write_bytes(encoded(Image.fromarray(deep)))
    storage = Counting(tmp_path, [f"{number}.png" for number in range(8)])
    monkeypatch.setattr(inspection, "_KEPT", room)
    images = LabelledImages(storage, [0, 1] * 4, ("a", "b"))
    diagnosis = diagnose(SourceContent("folder", {"all": images}))
    assert {"deep", "white"} <= found(diagnosis).keys()
    again = {*storage.paths[-6:]} if room == 2000 else set()  # two of them have room
    assert {path for path in storage.paths if reads.count(path) > 1} == again


def test_a_diagnosis_goes_into_json_with_every_image(plant):
    diagnosis = plant({f"train/cat/empty {n}.png": b"" for n in range(30)})
    read = json.loads(json.dumps(diagnosis.to_dict(), allow_nan=False))
    assert read["misleading"] is True
    assert read["kind"] == "folder"
    assert len(read["findings"][0]["images"]) == 30
    assert read["classes"]["train"]["cat"] == 42


def test_handwritten_digits_have_no_findings():
    diagnosis = diagnose(read_source("digits"))
    assert diagnosis.findings == ()
    images = read_source("digits").images["all"]
    held = diagnose(read_source((images.stacked(1), images.labels)))
    assert (held.classes, held.findings) == (diagnosis.classes, diagnosis.findings)


def test_none_of_the_bad_images_ends_the_search(shared):
    diagnosis = diagnose(read_source(shared("badimages")))
    kinds = found(diagnosis)
    assert len(kinds["unreadable"]) > 40
    assert {"animated", "colours", "deep", "rotated", "transparent", "tiny", "ending"} <= set(kinds)
    rotated = " ".join(kinds["rotated"])
    for number in (3, 4, 7):
        assert f"_{number}.jpg: orientation {number}" in rotated
    assert "animated/iss634.gif: 42 frames" in kinds["animated"]
    assert any(text.startswith("wrong_extension/is_jpeg.png") for text in kinds["ending"])
    assert any(text.startswith("modes/pil_sample_cmyk.jpg") for text in kinds["colours"])
