"""OpenVINO as this project uses it: without reports over the network, and compiled for a CPU in one manner."""

import importlib
import sys
from typing import Any

from shared.cores import n_cores
from shared.model.signal_stack import signal_stack_kept


def openvino_library() -> Any:
    """Import OpenVINO; whatever imports it does so through this function.

    With `openvino_telemetry`, which it requires, it reports each import to Google Analytics, from a process of its own
    under an id that it keeps in the home directory. Where that package cannot be imported, it does without.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    return importlib.import_module("openvino")


def compile_for_cpu(graph: Any, *, threads: int = 0, streams: int = 1, core: Any = None, **hints: object) -> Any:
    """Compile a graph for the CPU: a `CompiledModel`.

    Its threads may run on every core. By itself OpenVINO binds them to cores, from the first on in every process: two
    workers that run a pass each would share one core, and leave the other idle.

    Args:
        graph: an `openvino.Model`, or the path of one.
        threads: in total; 0: one a core.
        streams: forward passes at the same time.
        core: an `openvino.Core` to compile it with; None: a new one.
        hints: further ones of OpenVINO's, by name.

    Raises:
        RuntimeError: it cannot be compiled here.
    """
    options = {
        # The same precision on every machine: a CPU with bfloat16 units would otherwise compute other numbers.
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": threads or n_cores(),
        "NUM_STREAMS": streams,
        "ENABLE_CPU_PINNING": False,
        **hints,
    }
    with signal_stack_kept():
        return (core or openvino_library().Core()).compile_model(graph, "CPU", options)
