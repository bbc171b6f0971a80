"""Export of a network to one file with its preprocessing inside, and engines that run it.

Its names are those of its modules; the package has none of its own.
"""

import os
import sys

__all__: list[str] = []

# No telemetry. Since 1.29 the official builds of ONNX Runtime send the names and digests of models
# to Microsoft, unless this is set before the import; importing OpenVINO sends an event to Google
# Analytics, unless the package that sends it is missing.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
