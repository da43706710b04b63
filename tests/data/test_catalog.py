import subprocess
import sys

import pytest
from tiny_files import flip_byte

from normbench.data import DataError, describe, fetch, import_from
from normbench.data.cifar10 import CIFAR10
from normbench.data.mnist import MNIST


def states(data_dir):
    return {row.name: row.state for row in describe(data_dir) if row.state != "not here"}


def test_describes_what_is_there(tmp_path, tiny_mnist, tiny_cifar):
    assert states(tmp_path) == {}
    tiny_mnist.write(tmp_path / "MNIST" / "raw")
    tiny_cifar.write_tree(tmp_path / "cifar10")
    assert states(tmp_path) == {"mnist": "files, not decoded", "cifar10": "files, not decoded"}
    row = describe(tmp_path)[0]
    assert (row.where, row.bytes) == (tmp_path / "MNIST" / "raw", sum(map(len, tiny_mnist.files.values())))
    fetch("mnist", tmp_path)
    fetch("cifar10", tmp_path)
    assert states(tmp_path) == {"mnist": "ready", "cifar10": "ready"}
    row = describe(tmp_path)[0]
    assert row.where == tmp_path / "normbench" / "mnist"
    assert row.bytes > 80 * 784
    assert (row.images, row.licence) == (70_000, MNIST.licence)
    flip_byte(row.where / "test_images.npy", 1000)
    assert states(tmp_path) == {"mnist": "damaged", "cifar10": "ready"}


def test_a_folder_that_does_not_exist_is_no_error(tmp_path):
    rows = describe(tmp_path / "nowhere")
    assert [row.name for row in rows] == ["mnist", "fashion_mnist", "cifar10", "cifar100"]
    assert {row.state for row in rows} == {"not here"}


def test_fetch_loads(tmp_path, tiny_cifar):
    tiny_cifar.write_tree(tmp_path / "cifar10")
    assert fetch("cifar10", tmp_path).checksum == CIFAR10.checksum


def test_unknown_names_and_paths_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"only mnist, .*, cifar100 can be fetched: got 'imagenet'"):
        fetch("imagenet", tmp_path)
    with pytest.raises(DataError, match="got 'synthetic'"):
        import_from("synthetic", tmp_path, tmp_path)
    with pytest.raises(DataError, match=r"there is no .*nowhere"):
        import_from("mnist", tmp_path / "nowhere", tmp_path)


def test_describing_imports_nothing_slow(tmp_path):
    code = (
        "import sys; from pathlib import Path; import normbench.data; normbench.data.describe(Path(sys.argv[1]));"
        "slow = {'torch', 'torchvision', 'pandas', 'PIL', 'rich', 'hydra', 'omegaconf'} & set(sys.modules);"
        "assert not slow, slow"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)


def test_unknown_attributes_are_attribute_errors():
    import normbench.data

    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = normbench.data.nothing
