"""A running `shoestring serve`, which a test can kill and start again at the same address."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path


class Running:
    """The service in a process of its own, with its data in a folder."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self._folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self._arguments = arguments
        self._process: subprocess.Popen[str] | None = None
        self.url = f"http://127.0.0.1:{self._port}"
        self.link = ""
        """The first admin's link, for a service with accounts."""

    def start(self) -> None:
        """Start it, and wait until it answers."""
        command = [sys.executable, "-m", "shoestring.cli.main", "serve", *self._arguments]
        command += ["--port", str(self._port), "--set", f"data={self._folder}"]
        environment = {**os.environ, "XDG_DATA_HOME": str(self._folder)}
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, cwd=self._folder, env=environment
        )
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if "open http" in line:
                self.link = line.split()[-1]
            if line.startswith("serving ") and "--set=accounts=true" not in self._arguments:
                return
            if self.link:
                return
        raise AssertionError(f"the service ended with {self._process.wait()}")

    def kill(self) -> None:
        """End it at once, as a lost machine does."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.communicate()

    def stop(self) -> None:
        """End it as Ctrl-C does."""
        assert self._process is not None
        self._process.terminate()
        self._process.communicate(timeout=60)
