"""Ends the children of a process that was killed: nothing else can, since a killed process cleans nothing up.

Runs as a script beside that process (standard library only). Standard input is a pipe from it: each line is a process
group that has started or, the second time, ended. At its end the process is gone.
"""

import contextlib
import os
import signal
import sys

if __name__ == "__main__":
    groups: set[int] = set()
    for line in sys.stdin:
        groups ^= {int(line)}
    for group in groups:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)
