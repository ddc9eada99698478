"""`python -m flows.ends_with_parent MODULE ARGUMENT…`: a module that ends with who started it.

Its standard input is a pipe that nobody writes to. The pipe is closed when the process that holds
the other end is gone, however that ended. What the module itself starts ends with it, because they
are one process group.
"""

import os
import runpy
import signal
import sys
import threading

import tasks.garbage  # noqa: F401


def _end_with_input() -> None:
    # Not by sys.stdin: Python aborts where a thread still reads from it when the module has ended.
    while os.read(0, 4096):
        pass
    os.killpg(0, signal.SIGTERM)


if __name__ == "__main__":
    os.setpgid(0, 0)
    threading.Thread(target=_end_with_input, daemon=True).start()
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
