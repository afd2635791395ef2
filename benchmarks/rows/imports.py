"""Time of `import keras_gen` in addition to `import keras`, in fresh processes.

The processes measure the time themselves: total process times vary by more than the measured difference.
"""

import os
import subprocess
import sys

from benchmarks.contest import OURS, Contender, Contest
from benchmarks.settings import Setting

SCRIPT = """
import time
{before}
start = time.perf_counter()
import {module}
print(time.perf_counter() - start)
"""


def import_time(quick: bool, setting: Setting) -> Contest:
    contenders = {
        OURS: Contender(lambda: _seconds("keras_gen", "import keras"), own_clock=True),
        "import keras": Contender(lambda: _seconds("keras"), own_clock=True),
    }
    return Contest("fresh processes", contenders, warm=False)


def _seconds(module: str, before: str = "") -> float:
    # Python must cache bytecode, as it does for users: otherwise every import compiles again.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-c", SCRIPT.format(module=module, before=before)]
    return float(
        subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout.splitlines()[-1]
    )
