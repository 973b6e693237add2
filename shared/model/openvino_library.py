"""OpenVINO without the report of its use that it sends over the network."""

import importlib
import sys
from typing import Any


def openvino_library() -> Any:
    """Import OpenVINO; whatever imports it does so through this function.

    With `openvino_telemetry`, which it requires, it reports each import to Google Analytics, from a process of its own
    under an id that it keeps in the home directory. Where that package cannot be imported, it does without.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    return importlib.import_module("openvino")
