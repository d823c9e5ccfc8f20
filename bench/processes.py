"""Measurement in a process of its own: the result of a script as JSON, the peak memory of a process."""

import json
import subprocess
from pathlib import Path


def run_json(command):
    """Run a command and return the last line of its standard output, read as JSON."""
    process = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    return json.loads(process.stdout.decode().splitlines()[-1])


def peak_bytes():
    """Peak memory of this process; getrusage would include that of the program before exec."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
