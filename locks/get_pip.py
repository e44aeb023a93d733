"""Put pip into a virtual environment whose Python has no ensurepip (Debian's python3 alone).

Run by the Makefile with the environment's own interpreter. Fetches one pinned wheel, checks
its SHA-256 and lets it install itself.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

URL = (
    "https://files.pythonhosted.org/packages/07/25/"
    "ee8c38ae72d66b844ce8eb9711ba905dba21ca1a8a0c960057c41cd23337/pip-26.3-py3-none-any.whl"
)
SHA256 = "f3b60b20ffaadd4415ed7957212a38ac63fa4c5fa375bd0f4a797777940fad13"


def main() -> None:
    """Download pip, verify it, install it; exits with a message if the bytes are not ours."""
    with urllib.request.urlopen(URL, timeout=60) as reply:
        wheel = reply.read()
    if hashlib.sha256(wheel).hexdigest() != SHA256:
        sys.exit(f"{URL} is not the wheel that was pinned; install python3-venv instead")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / URL.rsplit("/", 1)[1]
        path.write_bytes(wheel)
        subprocess.run([sys.executable, f"{path}/pip", "install", "-q", str(path)], check=True)


if __name__ == "__main__":
    main()
