"""Fashion-MNIST: photographs of clothes in MNIST's format, Xiao et al. 2017."""

from normbench.data.idx import IdxFiles

CLASSES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
MD5 = {  # torchvision's; those of the unpacked files are not known here, so only packed ones are taken
    "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
    "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
    "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
}
FASHION_MNIST = IdxFiles(
    name="fashion_mnist",
    title="Fashion-MNIST",
    folder="FashionMNIST",
    classes=CLASSES,
    md5=MD5,
    mirrors=("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",),
    mirror_md5=MD5,
    checksum=None,  # of the decoded images: the MD5s vouch for them
    licence="MIT (Zalando SE)",
)
fashion_mnist = FASHION_MNIST.load
