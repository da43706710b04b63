"""MNIST: handwritten digits, LeCun et al. 1998."""

from normbench.data.idx import IdxFiles

MNIST = IdxFiles(
    name="mnist",
    title="MNIST",
    folder="MNIST",
    classes=tuple("0123456789"),
    md5={  # of the original files, unpacked
        "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
        "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
        "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
        "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
    },
    mirrors=("https://ossci-datasets.s3.amazonaws.com/mnist/", "http://yann.lecun.com/exdb/mnist/"),  # torchvision's
    mirror_md5={
        "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
        "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
        "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
    },
    checksum="4d2aeffd9a5cc414658978abd4b2646bdbf850d0c3c29e98f227cf753c163854",
    licence="CC BY-SA 3.0 (LeCun, Cortes, Burges)",
    wheel=True,
)
mnist = MNIST.load
