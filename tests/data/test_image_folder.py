import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_files import flip_byte, random_images

from normbench.data import DataError, Source, cifar10, folder, image_folder, prepare


def save(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


@pytest.fixture
def tree(tmp_path) -> Path:
    """Grey images of 6 x 5 pixels, 10 of each class for training and 4 for testing."""
    for part, count in (("train", 10), ("test", 4)):
        for label, name in enumerate(("cat", "dog", "eel")):
            images, _ = random_images(label + count, np.zeros(count), (5, 6))
            for i, image in enumerate(images):
                save(tmp_path / "tree" / part / name / f"{i}.png", image)
    return tmp_path / "tree"


def load(tree: Path, **options) -> Source:
    return folder(tree.parent / "data", path=str(tree), **options)


def pixels(source: Source) -> set[bytes]:
    return {x.tobytes() for x in (*source.train_images, *source.test_images)}


def test_reads_a_tree(tree):
    source = load(tree)
    assert source.classes == ("cat", "dog", "eel")
    assert (source.train_images.shape, source.test_images.shape) == ((30, 1, 5, 6), (12, 1, 5, 6))
    assert np.bincount(source.train_labels).tolist() == [10, 10, 10]
    dogs = {np.asarray(Image.open(path)).tobytes() for path in (tree / "test" / "dog").iterdir()}
    assert {x.tobytes() for x in source.test_images[source.test_labels == 1]} == dogs
    assert prepare(source, name="folder", validation=6).shape == (1, 5, 6)


def test_the_tree_of_cifar10_gives_the_tensors_of_cifar10(tmp_path, tiny_cifar10):
    tiny_cifar10.write("tree", tmp_path)
    one, other = cifar10(tmp_path), folder(tmp_path, path=str(tmp_path / "cifar10"))
    for key in ("train_images", "train_labels", "test_images", "test_labels"):
        np.testing.assert_array_equal(getattr(one, key), getattr(other, key))
    assert (one.checksum, one.classes) == (other.checksum, other.classes)


def test_decodes_once_and_again_when_the_tree_changes(tree, monkeypatch):
    first = load(tree)
    monkeypatch.setattr(image_folder, "read_images", None)
    assert load(tree).checksum == first.checksum
    monkeypatch.undo()
    path = tree / "train" / "cat" / "3.png"
    time = path.stat().st_mtime_ns
    image = np.asarray(Image.open(path)).copy()
    image[2, 2] ^= 255
    save(path, image)
    os.utime(path, ns=(time + 1, time + 1))
    changed = load(tree)
    assert changed.checksum != first.checksum
    (tree / "train" / "cat" / "3.png").unlink()
    assert len(load(tree).train_images) == 29
    assert len(list((tree.parent / "data" / "normbench").glob("folder-*/manifest.json"))) == 1, "not one per change"


def test_without_a_test_folder_a_share_is_cut_off(tree):
    whole = pixels(load(tree))
    for path in sorted((tree / "test").rglob("*.png")):
        path.rename(tree / "train" / path.parent.name / f"from-test-{path.name}")
    for path in sorted((tree / "test").rglob("*"), reverse=True):
        path.rmdir()
    (tree / "test").rmdir()
    source, smaller = load(tree, test_share=0.5), load(tree)
    assert np.bincount(source.test_labels).tolist() == np.bincount(source.train_labels).tolist() == [7, 7, 7]
    assert len(smaller.test_images) == round(0.2 * 42)
    assert pixels(source) == pixels(smaller) == whole
    assert {x.tobytes() for x in smaller.test_images} < {x.tobytes() for x in source.test_images}
    for i, path in enumerate(sorted((tree / "train").rglob("*.png"))):
        path.rename(path.with_name(f"{997 * i % 1000}-renamed.png"))
    assert load(tree).checksum == smaller.checksum, "the cut depends on the pixels alone"


def test_resizes_with_antialiasing(tree):
    stripes = np.tile(np.array([0, 255], np.uint8), (64, 32))
    for path in tree.rglob("*.png"):
        save(path, stripes)
    assert np.abs(load(tree, size=8).train_images.astype(int) - 127).max() <= 20
    assert load(tree, size=8).train_images.shape == (30, 1, 8, 8)
    assert set(np.unique(load(tree, size=64).train_images)) == {0, 255}, "what has the size stays as it is"


def test_colours_formats_and_files_that_are_no_images(tree):
    for i, path in enumerate(sorted(tree.rglob("*.png"))):
        image = Image.open(path).convert("RGBA" if i % 2 else "RGB")
        path.unlink()
        image.save(path.with_suffix(".PNG") if i % 2 else path.with_suffix(".bmp"))
    (tree / "train" / "cat" / "notes.txt").write_text("hello")
    (tree / "train" / "cat" / "._0.png").write_text("hello")
    (tree / "train" / ".hidden").mkdir()
    Image.fromarray(np.zeros((5, 6), np.uint8)).save(tree / "train" / "cat" / "z.png")  # grey among colours
    assert load(tree).train_images.shape == (31, 3, 5, 6)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda tree: (tree / "train").rename(tree / "other"), r"cannot read .*tree/train \(No such file"),
        (lambda tree: flip_byte(tree / "train/dog/7.png", 50), r"train/dog/7.png is damaged"),
        (lambda tree: (tree / "test/eel/2.png").write_bytes(b""), r"test/eel/2.png is damaged"),
        (lambda tree: save(tree / "train/dog/7.png", np.zeros((5, 7), np.uint8)),
         r"train/dog/7.png has 7x5 pixels, .*cat/0.png 6x5.\nType e.g. dataset.size=5"),
        (lambda tree: save(tree / "test/dog/1.png", np.zeros((5, 6), np.uint16)), "dog/1.png has more .I;16"),
        (lambda tree: (tree / "test/eel/x.png").symlink_to("nowhere"), "cannot read .*test/eel/x.png"),
        (lambda tree: os.mkfifo(tree / "test/eel/x.png"), "test/eel/x.png is named like an image and is no file"),
        (lambda tree: (tree / "test/fox").mkdir(), "every class needs an image: .*test/fox holds no .png"),
        (lambda tree: (tree / "test/eel").rename(tree / "test/fox"), "only one of them has eel, fox"),
        (lambda tree: [(tree / f"train/{name}").rename(tree / name) for name in ("dog", "eel")],
         "two classes or more: found cat"),
        (lambda tree: [(tree / f"train/{name}").rename(tree / name) for name in ("cat", "dog", "eel")],
         "two classes or more: found none"),
    ],
)  # fmt: skip
def test_refuses_a_tree(tree, damage, says):
    damage(tree)
    with pytest.raises(DataError, match=says) as refusal:
        load(tree)
    assert str(refusal.value).count("\n") < 2


def test_a_photograph_is_turned_upright(tree):
    exif = Image.Exif()
    exif[0x0112] = 6  # Orientation: turned to the left, as a camera held upright writes it
    upright = np.arange(30, dtype=np.uint8).reshape(5, 6)
    for path in tree.rglob("*.png"):
        Image.fromarray(np.rot90(upright)).save(path, exif=exif)
    source = load(tree)
    assert source.train_images.shape == (30, 1, 5, 6)
    assert np.array_equal(source.train_images[0, 0], upright)


def test_colour_where_any_image_has_it_unless_channels_says_otherwise(tree):
    grey = np.linspace(0, 255, 30).astype(np.uint8).reshape(5, 6)
    image = Image.fromarray(grey)
    image.convert("P").save(tree / "train/dog/0.png")
    image.convert("LA").save(tree / "train/dog/1.png")
    assert load(tree).train_images.shape[1] == 1, "a palette of greys and transparency are no colours"
    assert {np.asarray(grey).tobytes()} < pixels(load(tree))
    assert load(tree, channels=3).train_images.shape[1] == 3
    red = np.zeros((5, 6, 3), np.uint8)
    red[..., 0] = 204  # of the usual palette
    Image.fromarray(red).convert("P").save(tree / "test/eel/1.png")  # the last, not the first
    source = load(tree)
    assert red.transpose(2, 0, 1).tobytes() in pixels(source)
    assert np.stack([grey] * 3).tobytes() in pixels(source)
    assert load(tree, channels=1).train_images.shape[1] == 1
    with pytest.raises(DataError, match=r"dataset.channels must be 1 \(grey\), 3 \(colour\) or null"):
        load(tree, channels=2)


@pytest.mark.parametrize("name", ["val", "validation"])
def test_a_folder_val_is_the_validation_split(tree, name):
    (tree / "test").rename(tree / name)
    data = prepare(load(tree), name="folder", validation=5000)
    assert (len(data.train), len(data.validation), len(data.test)) == (24, 12, 6)
    files = {np.asarray(Image.open(path)).tobytes() for path in (tree / name).rglob("*.png")}
    assert {x.numpy().tobytes() for x in data.validation.images} == files
    (tree / name / "fox").mkdir()
    save(tree / name / "fox" / "0.png", np.zeros((5, 6), np.uint8))
    with pytest.raises(DataError, match=r"train and validation need the same classes: .* only one of them has fox"):
        load(tree)
