"""CIFAR-10: photographs of ten kinds of animals and vehicles, Krizhevsky 2009."""

from normbench.data.cifar import Cifar

CIFAR10 = Cifar(
    name="cifar10",
    title="CIFAR-10",
    classes=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    per_class={"train": 5000, "test": 1000},
    archive="cifar-10-python.tar.gz",
    archive_md5="c58f30108f718f92721af3b95e74349a",
    batches="cifar-10-batches-py",
    md5={
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
        "test_batch": "40351d587109b95175f43aff81a1287e",
    },
    labels=b"labels",
    checksum="f795c3bfc6e3e9f35ba602ebe479185a240d846d8e4cffda865cfe349adeb352",
)
cifar10 = CIFAR10.load
