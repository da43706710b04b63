import io
import pickle
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
from tiny_files import pickled_array

from normbench.data.unpickle import load_arrays


class Evil:
    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("module", ["numpy.core.multiarray", "numpy._core.multiarray"])
@pytest.mark.parametrize("kind", ["<f4", "<i8", "|u1"])
def test_reads_arrays_written_by_python_2(module, kind):
    array = np.arange(12).reshape(3, 4).astype(kind)
    loaded = load_arrays(io.BytesIO(b"\x80\x02" + pickled_array(array, module) + b"."))
    assert loaded.dtype == array.dtype
    np.testing.assert_array_equal(loaded, array)


def test_reads_arrays_in_containers():
    loaded = load_arrays(io.BytesIO(pickle.dumps({"a": [np.eye(2)], "b": (1, 2.5, "x")}, protocol=4)))
    np.testing.assert_array_equal(loaded["a"][0], np.eye(2))
    assert loaded["b"] == (1, 2.5, "x")


def test_refuses_a_pickle_that_acts(tmp_path):
    target = tmp_path / "touched"
    with pytest.raises(pickle.UnpicklingError, match="not part of a numpy array"):
        load_arrays(io.BytesIO(pickle.dumps(Evil(target))))
    assert not target.exists()


@pytest.mark.parametrize(
    "data",
    [
        b"cos\nsystem\n(S'true'\ntR.",
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"\x80\x04\x8c\x05numpy\x8c\x0endarray.tofile\x93.",  # a dotted name reaches into what is admitted
        b"cnumpy\nload\n.",
        pickle.dumps(OrderedDict()),
        pickle.dumps(np.array([Evil(Path("x"))], dtype=object)),
    ],
)
def test_refuses_every_other_name(data):
    with pytest.raises(pickle.UnpicklingError):
        load_arrays(io.BytesIO(data))
