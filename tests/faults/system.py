"""Commands of the machine, for what needs an administrator: namespaces and disks.

Used by the modules of both. Always holds: what is not there, or not allowed, is told as `Unavailable`, which leaves faults out.
"""

import shutil
import subprocess


class Unavailable(Exception):
    """Why something cannot be used here."""


def run(*words, check=True):
    return subprocess.run(words, check=check, capture_output=True, text=True)


def need(tools, packages):
    for tool in tools:
        if shutil.which(tool) is None:
            raise Unavailable(f"there is no {tool}: install {packages}")


def unavailable(error):
    """What a command that failed says, as a reason."""
    return Unavailable(f"{' '.join(error.cmd)}: {error.stderr.strip()}")
