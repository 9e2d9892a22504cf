"""Console scripts for a shell that start in no time: forks of a process that has imported nnU-Net."""

import json
import multiprocessing
import os
import socket
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

from processes import CONTEXT, fork_what_this_process_starts, run_script

# Stands in for a script: hands its arguments, environment, folder and standard streams over, and ends as the script.
CLIENT = """#!{python} -SE
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as connection:
    connection.connect({address!r})
    socket.send_fds(connection, [b" "], [0, 1, 2])
    connection.sendall(json.dumps([{script!r}, sys.argv[1:], dict(os.environ), os.getcwd()]).encode())
    connection.shutdown(socket.SHUT_WR)
    sys.exit(int(connection.recv(9) or 1))
"""


class ShellCommands:
    """A folder for PATH with a stand-in for each of some Python scripts, as long as the block lasts."""

    def __init__(self, scripts: Sequence[Path]) -> None:
        self._scripts = scripts
        self._temporary = tempfile.TemporaryDirectory()  # its path is short, as that of a socket has to be
        self.folder = Path(self._temporary.name)
        self._address = str(self.folder / ".socket")

    def __enter__(self) -> "ShellCommands":
        for script in self._scripts:
            stand_in = self.folder / script.name
            stand_in.write_text(CLIENT.format(python=sys.executable, address=self._address, script=str(script)))
            stand_in.chmod(0o755)
        listening = CONTEXT.Event()
        self._server = CONTEXT.Process(target=_serve, args=(self._address, listening))
        self._server.start()
        assert listening.wait(timeout=300)
        return self

    def __exit__(self, *_error: object) -> None:
        self._server.kill()
        self._server.join()
        self._temporary.cleanup()


def _serve(address: str, listening: "multiprocessing.synchronize.Event") -> None:
    fork_what_this_process_starts()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(address)
        server.listen()
        listening.set()
        while True:
            connection, _address = server.accept()
            _byte, streams, *_ = socket.recv_fds(connection, 1, 3)
            with connection.makefile() as call:
                process = multiprocessing.Process(target=_run, args=(*json.loads(call.read()), streams))
            process.start()
            for stream in streams:  # another script of a pipe must not keep it open
                os.close(stream)
            threading.Thread(target=_tell_the_end, args=(process, connection), daemon=True).start()


def _run(
    script: str, arguments: list[str], environment: dict[str, str], working_directory: str, streams: list[int]
) -> None:
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(working_directory)
    sys.path[:0] = [folder for folder in environment.get("PYTHONPATH", "").split(os.pathsep) if folder]
    run_script(Path(script), arguments)


def _tell_the_end(process: multiprocessing.Process, connection: socket.socket) -> None:
    with connection:
        process.join()
        connection.sendall(str(process.exitcode).encode())
