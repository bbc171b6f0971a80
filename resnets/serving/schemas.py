"""JSON Schemas of what the server reads and answers, for its OpenAPI description."""

from collections.abc import Mapping
from typing import Any

_TEXT = {"type": "string"}
_TEXT_OR_NONE = {"type": ["string", "null"]}
_COUNT = {"type": "integer", "minimum": 0}
_SHARE = {"type": "number", "minimum": 0, "maximum": 1.000001}
_STATUSES = ("ok", "not calibrated", "unsure", "unfamiliar", "unreadable")


def _object(required: str, **properties: Any) -> dict[str, Any]:
    """An object of these properties, of which some must be there."""
    return {"type": "object", "properties": properties, "required": required.split()}


def _list(items: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """A list."""
    return {"type": "array", "items": items} | more


def _ref(name: str) -> dict[str, str]:
    """Another schema by its name."""
    return {"$ref": f"#/components/schemas/{name}"}


_DURATION = _object("count ns", count=_COUNT, ns=_COUNT)
_SHAPE = _list({"type": "integer"})
_TENSOR_DESCRIPTION = _object("name datatype shape", name=_TEXT, datatype=_TEXT, shape=_SHAPE)
_RANKED = _object("class probability", **{"class": _TEXT, "probability": _SHARE})

SCHEMAS: dict[str, Any] = {
    "Object": {"type": "object"},
    "Error": _object("error", error={"type": "string", "minLength": 1}),
    "Live": _object("live", live={"const": True}),
    "Ready": _object("ready", ready={"type": "boolean"}, error={"type": "string"}),
    "Prediction": _object(
        "image prediction probability status top error",
        image=_TEXT,
        prediction=_TEXT_OR_NONE,
        probability=_SHARE | {"type": ["number", "null"]},
        status={"enum": list(_STATUSES)},
        top=_list(_RANKED),
        error=_TEXT_OR_NONE,
        features={"type": ["array", "null"], "items": {"type": "number"}},
        explanation=_TEXT_OR_NONE | {"contentEncoding": "base64", "contentMediaType": "image/png"},
    ),
    "Answers": _object(
        "model predictions",
        model=_object("name digest", name=_TEXT, digest=_TEXT),
        predictions=_list(_ref("Prediction"), minItems=1),
    ),
    "AnswersOrError": {"anyOf": [_ref("Answers"), _ref("Error")]},
    "Stored": _object("image digest stored", image=_TEXT, digest=_TEXT, stored={"type": "boolean"}),
    "Withdrawn": _object("withdrawn", withdrawn={"const": True}),
    "Queue": _object(
        "images",
        images=_list(
            _object(
                "digest image model prediction probability status top",
                digest=_TEXT,
                image=_TEXT,
                model=_TEXT,
                prediction=_TEXT,
                probability=_SHARE,
                status={"enum": list(_STATUSES)},
                top=_list(_RANKED),
            )
        ),
    ),
    "Facts": _object("models takes", models=_list({"type": "object"}), takes={"type": "object"}),
    "ServerMetadata": _object(
        "name version extensions models",
        name=_TEXT,
        version=_TEXT,
        extensions=_list(_TEXT),
        models=_list(_TEXT),
    ),
    "ModelMetadata": _object(
        "name versions platform inputs outputs",
        name=_TEXT,
        versions=_list(_TEXT),
        platform=_TEXT,
        inputs=_list(_TENSOR_DESCRIPTION),
        outputs=_list(_TENSOR_DESCRIPTION),
        parameters=_object(
            "class_names digest white",
            class_names=_list(_TEXT, minItems=1),
            digest=_TEXT,
            white={"type": "object"},
        ),
    ),
    "ModelIndex": _list(
        _object("name version state reason", name=_TEXT, version=_TEXT, state=_TEXT, reason=_TEXT)
    ),
    "ModelStatistics": _object(
        "model_stats",
        model_stats=_list(
            _object(
                "name version last_inference inference_count execution_count inference_stats",
                name=_TEXT,
                version=_TEXT,
                last_inference=_COUNT,
                inference_count=_COUNT,
                execution_count=_COUNT,
                inference_stats={"type": "object", "additionalProperties": _DURATION},
                batch_stats=_list({"type": "object"}),
            )
        ),
        process=_object("id of", id=_COUNT, of=_COUNT),  # of several, which one tells
    ),
    "InferRequest": _object(
        "inputs",
        id=_TEXT,
        parameters={"type": "object"},
        inputs=_list(
            _object(
                "name datatype shape",
                name={"enum": ["images", "files"]},
                datatype={"enum": ["UINT8", "BYTES"]},
                shape=_list({"type": "integer", "minimum": 1}, minItems=1, maxItems=4),
                parameters={"type": "object"},
                data={"type": "array"},
            ),
            minItems=1,
            maxItems=1,
        ),
        outputs=_list(_object("name", name=_TEXT, parameters={"type": "object"})),
    ),
    "InferResponse": _object(
        "model_name outputs",
        model_name=_TEXT,
        model_version=_TEXT,
        id=_TEXT,
        outputs=_list(
            _object(
                "name datatype shape",
                name=_TEXT,
                datatype={"enum": ["FP32", "BYTES"]},
                shape=_list(_COUNT),
                parameters={"type": "object"},
                data=_list({"type": ["number", "string", "null"]}),
            )
        ),
    ),
}
