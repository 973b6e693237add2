"""Whether there is a GPU is answered without torch, which takes seconds to import, where there is no driver for one."""

import subprocess
import sys


def test_without_a_driver_torch_is_not_imported() -> None:
    script = (
        "import ctypes, pathlib, sys\n"
        "def no_driver(name): raise OSError(name)\n"
        "ctypes.CDLL = no_driver\n"
        "pathlib.Path.exists = lambda path: False\n"
        "from shared.model.torch_library import has_gpu\n"
        "assert not has_gpu()\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
