import os
import subprocess
import sys

import numpy as np
import pytest
from tiny_files import flip_byte

from normbench.data import DataError, Source, cache, cached, canonical, prepare

RNG = np.random.default_rng(0)
SOURCE = canonical(
    "toy",
    "ab",
    (RNG.integers(0, 256, (30, 1, 4, 4), dtype=np.uint8), np.arange(30) % 2),
    (RNG.integers(0, 256, (8, 1, 4, 4), dtype=np.uint8), np.arange(8) % 2),
)


class Decoder:
    calls = 0

    def __call__(self) -> Source:
        self.calls += 1
        return SOURCE


def assert_same(one: Source, other: Source) -> None:
    for key, value in vars(one).items():
        np.testing.assert_array_equal(value, getattr(other, key), strict=isinstance(value, np.ndarray))


def test_second_start_reads_mapped_files(tmp_path):
    decode = Decoder()
    first, second = (cached("toy", tmp_path, decode, SOURCE.checksum) for _ in range(2))
    assert decode.calls == 1
    for source in (first, second):
        assert_same(source, SOURCE)
        assert isinstance(source.train_images, np.memmap)


def test_images_are_the_mapped_file_and_writing_to_them_leaves_it_alone(tmp_path):
    source = cached("toy", tmp_path, Decoder())
    images = prepare(source, name="toy", validation=4).train.images
    assert images.data_ptr() == source.train_images.ctypes.data  # no copy: processes share the pages
    images.zero_()
    assert_same(cached("toy", tmp_path, Decoder()), SOURCE)


@pytest.mark.parametrize("name", ["train_images.npy", "manifest.json"])
@pytest.mark.parametrize("where", [0.0, 0.5, 0.99])
def test_a_flipped_byte_anywhere_is_noticed_and_repaired(tmp_path, messages, name, where):
    decode = Decoder()
    cached("toy", tmp_path, decode, SOURCE.checksum)
    path = tmp_path / "normbench" / "toy" / name
    intact = path.read_bytes()
    flip_byte(path, int(where * len(intact)))
    assert_same(cached("toy", tmp_path, decode, SOURCE.checksum), SOURCE)
    assert decode.calls == 2
    assert "damaged" in messages.text
    assert path.read_bytes() == intact


@pytest.mark.parametrize("name", ["train_images.npy", "manifest.json"])
def test_half_a_file_and_no_file_are_noticed(tmp_path, name):
    decode = Decoder()
    path = tmp_path / "normbench" / "toy" / name
    cached("toy", tmp_path, decode)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert_same(cached("toy", tmp_path, decode), SOURCE)
    path.unlink()
    assert_same(cached("toy", tmp_path, decode), SOURCE)
    assert decode.calls == 3


def test_another_format_is_rebuilt_without_a_word(tmp_path, messages, monkeypatch):
    decode = Decoder()
    cached("toy", tmp_path, decode)
    monkeypatch.setattr(cache, "FORMAT", cache.FORMAT + 1)
    cached("toy", tmp_path, decode)
    assert decode.calls == 2
    assert not messages.records


def test_other_images_than_expected_are_refused_and_not_cached(tmp_path):
    with pytest.raises(DataError, match="not the original ones"):
        cached("toy", tmp_path, Decoder(), "0" * 64)
    assert cache.read(tmp_path / "normbench" / "toy", {}) is None


def test_unreadable_files_are_a_data_error(tmp_path):
    def unreadable() -> Source:
        raise PermissionError(13, "Permission denied", "images.bin")

    with pytest.raises(DataError, match=r"images\.bin"):
        cached("toy", tmp_path, unreadable)


@pytest.mark.parametrize("what", ["files", "lock", "folder"])
def test_works_without_a_cache_where_nothing_can_be_written(tmp_path, messages, monkeypatch, what):
    def refuse(*args: object, **options: object) -> None:
        raise PermissionError(30, "Read-only file system")

    if what == "files":
        monkeypatch.setattr(cache, "write_atomically", refuse)
    elif what == "lock":
        monkeypatch.setattr(cache.filelock.FileLock, "acquire", refuse)
        monkeypatch.setattr(cache, "write_atomically", refuse)
    else:
        (tmp_path / "normbench").write_text("a file where a folder should be")
    decode = Decoder()
    for _ in range(2):
        assert_same(cached("toy", tmp_path, decode), SOURCE)
    assert decode.calls == 2
    assert "cannot write the cache" in messages.text


def test_a_failed_write_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda descriptor: (_ for _ in ()).throw(OSError(28, "No space left")))
    cached("toy", tmp_path, Decoder())
    assert not list((tmp_path / "normbench" / "toy").iterdir())


PROCESS = """
import sys, time
from pathlib import Path
import numpy as np
from normbench.data import cached, canonical

folder, name = Path(sys.argv[1]), sys.argv[2]

def decode():
    (folder / f"decoded-by-{name}").touch()
    time.sleep(0.2)
    images = np.arange(320, dtype=np.uint8).reshape(20, 1, 4, 4)
    return canonical("toy", "ab", (images, np.arange(20) % 2), (images, np.arange(20) % 2))

(folder / f"ready-{name}").touch()
deadline = time.monotonic() + 30
while len(list(folder.glob("ready-*"))) < 2 and time.monotonic() < deadline:
    time.sleep(0.01)
print(cached("toy", folder, decode).checksum)
"""


def test_of_two_processes_one_decodes(tmp_path):
    command = [sys.executable, "-c", PROCESS, str(tmp_path)]
    processes = [subprocess.Popen([*command, name], stdout=subprocess.PIPE, text=True) for name in "ab"]
    outputs = [process.communicate(timeout=60)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert outputs[0] == outputs[1] != ""
    assert len(list(tmp_path.glob("decoded-by-*"))) == 1
