"""Bodies of the Open Inference Protocol: what is read back, and what is refused."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

starlette = pytest.importorskip("starlette", reason="the extra serve is not installed")

from starlette.exceptions import HTTPException  # noqa: E402

from resnets.serving.tensors import Output, described, in_binary, read_request  # noqa: E402


def body(tensor: dict[str, Any], tail: bytes = b"", **more: Any) -> tuple[bytes, str | None]:
    text = json.dumps({"inputs": [tensor]} | more).encode()
    return text + tail, str(len(text)) if tail else None


PIXELS = {"name": "images", "datatype": "UINT8", "shape": [1, 1, 2, 3]}
FILES = {"name": "files", "datatype": "BYTES", "shape": [1]}
SIX: dict[str, Any] = {"data": [1, 2, 3, 4, 5, 6]}


def binary(size: Any) -> dict[str, Any]:
    return {"parameters": {"binary_data_size": size}}


@pytest.mark.parametrize(
    "data", [SIX["data"], [[[[1, 2, 3], [4, 5, 6]]]], [[1, 2, 3], [4, 5, 6]], [[1, 2, 3, 4, 5, 6]]]
)
def test_pixels_in_json_are_flat_or_nested(data: Any) -> None:
    (image,) = read_request(*body(PIXELS | {"data": data}), most=9).images
    assert isinstance(image, np.ndarray)
    assert image.tolist() == [[[1, 2, 3], [4, 5, 6]]]


@pytest.mark.parametrize("element", ["aGVsbG8=", {"b64": "aGVsbG8="}])
def test_files_in_json_are_base64(element: Any) -> None:
    assert read_request(*body(FILES | {"data": [element]}), most=9).images == [b"hello"]


@pytest.mark.parametrize(
    ("sent", "word"),
    [
        (body(PIXELS | {"data": [1, 2]}), "2 values"),
        (body(PIXELS | {"data": [1, 2, 3, 4, 5, 256]}), "0 to 255"),
        (body(PIXELS | {"data": [1, 2, 3, 4, 5, 6.0]}), "0 to 255"),
        (body(PIXELS | {"data": [1, 2, 3, 4, 5, "6"]}), "0 to 255"),
        (body(PIXELS | {"data": [[1, 2], 3]}), "beside"),
        (body(PIXELS | {"data": "123456"}), "list"),
        (body(PIXELS), "neither"),
        (body(PIXELS | SIX | {"shape": [1, 2, 3]}), "shape"),
        (body(PIXELS | SIX | {"shape": [1, -1, -2, 3]}), "shape"),
        (body(PIXELS | SIX | {"shape": [True, 1, 2, 3]}), "shape"),
        (body(PIXELS | SIX | {"shape": [1, 1, 3, 2]}), "shape"),
        (body(PIXELS | SIX | {"datatype": "FP32"}), "FP32"),
        (body(PIXELS | SIX | {"name": "input"}), "input"),
        (body(PIXELS | SIX | {"name": []}), "unexpected"),
        (body(PIXELS | {"shape": [9, 10**9, 10**9, 3]} | binary(6), b"123456"), "6 values"),
        (body(PIXELS | binary(7), b"123456"), "follow"),
        (body(PIXELS | SIX, b"123456"), "follow"),
        (body(PIXELS | {"shape": [1, 1, 1, 1]} | binary(True), b"1"), "follow"),
        (body(PIXELS | SIX | {"data": [1, 2, 3, True, 5, 6]}), "0 to 255"),
        (body(PIXELS | SIX | {"data": [[1, 2, 3], [False, 5, 6]]}), "0 to 255"),
        (body(PIXELS | {"parameters": {"shared_memory_region": "x"}}), "shared memory"),
        (body(FILES | {"data": ["no base64"]}), "base64"),
        (body(FILES | {"data": [7]}), "base64"),
        (body(FILES | {"data": ["aGVsbG8=", "aGVsbG8="]}), "2 elements"),
        (body(FILES | {"data": ["aA=="], "parameters": {"content_type": "str"}}), "content_type"),
        (body(FILES | binary(6), b"\x05\0\0\0ab"), "cut off"),
        (body(FILES | binary(6), b"\x01\0\0\0ab"), "more than"),
        (body(FILES | binary(2), b"\x01\0"), "fewer"),
        (body(PIXELS | SIX, outputs=[{"name": "logits"}]), "logits"),
        (body(PIXELS | SIX, outputs=[{"name": "status"}] * 2), "twice"),
        (body(PIXELS | SIX, parameters={"timeout": -1}), "timeout"),
        (body(PIXELS | SIX, id=7), "id"),
        ((b"[" * 100_000, None), "body"),
        ((b"{}", None), "inputs"),
        ((b"[]", None), "object"),
        ((b"\xff", None), "body"),
        ((b"{}", "3"), "Content-Length"),
        ((b"{}", "-1"), "Content-Length"),
    ],
)
def test_what_makes_no_sense_is_refused_with_the_reason(
    sent: tuple[bytes, str | None], word: str
) -> None:
    with pytest.raises(HTTPException) as caught:
        read_request(*sent, most=9)
    assert caught.value.status_code == 400
    assert word in caught.value.detail


def test_too_many_images_are_refused() -> None:
    with pytest.raises(HTTPException) as caught:
        read_request(*body(FILES | {"shape": [10], "data": ["aA=="] * 10}), most=9)
    assert caught.value.status_code == 413


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
fields = ("name", "shape", "datatype", "data", "parameters")


@settings(max_examples=40)
@given(st.dictionaries(st.sampled_from(fields), json_values), st.binary(max_size=9), json_values)
def test_any_body_is_read_or_refused(tensor: Any, tail: bytes, more: Any) -> None:
    for changed in (tensor, PIXELS | SIX | tensor, FILES | {"data": ["aA=="]} | tensor):
        sent = body(changed, tail, outputs=more)
        try:
            read_request(*sent, most=9)
        except HTTPException as error:
            assert error.status_code in (400, 413)  # noqa: PT017  (most bodies raise nothing else)


@given(st.lists(st.text(max_size=9), min_size=1, max_size=4))
def test_texts_in_binary_are_what_tritons_client_reads(texts: list[str]) -> None:
    utils = pytest.importorskip("tritonclient.utils")
    output = Output("prediction", np.array(texts, np.object_)[:, None], binary=True)
    content = in_binary(output)
    assert described(output)["parameters"]["binary_data_size"] == len(content)
    read = [each.decode() for each in utils.deserialize_bytes_tensor(content)]
    assert read == texts
