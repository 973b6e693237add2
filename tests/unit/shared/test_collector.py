"""Python's garbage collector after the start of each process: on, and past the objects of modules."""

import subprocess
import sys

import pytest

_WORKER = "import worker.__main__"
_COMMAND = "import sys, lookalike.console; sys.argv[1:] = ['--version']; lookalike.console.main()"
_MODULE = "import sys, runpy; sys.argv[1:] = ['--version']; runpy.run_module('pipeline.cli', run_name='__main__')"
_API = """
from gunicorn.app.base import BaseApplication
from api.http.gunicorn_worker import Worker

class Application(BaseApplication):
    def load_config(self): pass
    def load(self):
        assert not gc.isenabled()
        import api.app
        return api.app.create_app

application = Application()
Worker(0, 0, [], application, 60, application.cfg, None).load_wsgi()
"""
_TELL = "import atexit, gc; atexit.register(lambda: print('', gc.isenabled(), gc.get_freeze_count()))\n"


@pytest.mark.parametrize("start", [_WORKER, _COMMAND, _MODULE, _API], ids=["worker", "command", "module", "api"])
def test_it_is_paused_while_modules_are_imported_and_looks_at_none_of_their_objects_again(start: str) -> None:
    done = subprocess.run([sys.executable, "-c", _TELL + start], capture_output=True, text=True, timeout=60, check=True)
    enabled, frozen = done.stdout.split()[-2:]
    assert enabled == "True"
    assert int(frozen) > 50_000
