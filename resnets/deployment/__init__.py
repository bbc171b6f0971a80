"""How a network leaves: one file with its preprocessing inside, and the engines that run it."""

import os
import sys

# Running a network tells nobody of it. Since 1.29 ONNX Runtime's official builds send Microsoft the
# names and digests of models, unless this is set before the import; importing OpenVINO sends Google
# Analytics an event, unless there is no package to send it.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
