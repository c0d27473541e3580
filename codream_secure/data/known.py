"""What is publicly known about the named data sets: classes and normalisation constants.

The constants are public (published with or computed from the public training sets by others) and are
fixed here, because statistics of what a client holds must not leak through its preprocessing.
"""

from __future__ import annotations

import string
from dataclasses import dataclass

_DIGITS = tuple(string.digits)
_ORGANS = (
    *("bladder", "femur-left", "femur-right", "heart", "kidney-left", "kidney-right"),
    *("liver", "lung-left", "lung-right", "pancreas", "spleen"),
)


@dataclass(frozen=True)
class KnownSet:
    """Public facts: one line of description, class names in label order, per-channel constants of [0, 1] pixels."""

    description: str
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]


def _medical(description: str, classes: tuple[str, ...], *, channels: int = 1) -> KnownSet:
    # 0.5 and 0.5 are what MedMNIST's own examples use for every one of its sets (arXiv 2110.14795).
    text = f"MedMNIST v2 at 28x28: {description}; read from ROOT/<name>.npz"
    return KnownSet(description=text, classes=classes, mean=(0.5,) * channels, std=(0.5,) * channels)


IDX_SETS = {
    "mnist": KnownSet("handwritten digits, 28x28 grey, 60,000/10,000", _DIGITS, (0.1307,), (0.3081,)),
    "fashion_mnist": KnownSet(
        "clothing, 28x28 grey, 60,000/10,000",
        (
            *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
            *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
        ),
        (0.2860,),
        (0.3530,),
    ),
    "emnist": KnownSet(
        "handwritten digits and letters, split 'balanced' with 47 classes, 28x28 grey, 112,800/18,800",
        # Lower-case letters that look like their capitals share the capital's class.
        (*_DIGITS, *string.ascii_uppercase, *"abdefghnqrt"),
        (0.1751,),
        (0.3332,),
    ),
}

TORCHVISION_SETS = {
    "svhn": KnownSet(
        "house-number digits, 32x32 RGB, 73,257/26,032", _DIGITS, (0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970)
    ),
    "cifar10": KnownSet(
        "objects in 10 classes, 32x32 RGB, 50,000/10,000",
        ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
        (0.4914, 0.4822, 0.4465),
        (0.2470, 0.2435, 0.2616),
    ),
    # 100 names travel with the files and are read from there.
    "cifar100": KnownSet(
        "objects in 100 classes, 32x32 RGB, 50,000/10,000", (), (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)
    ),
}

MEDICAL_SETS = {
    "pathmnist": _medical(
        "colon pathology, RGB, 9 classes",
        (
            *("adipose", "background", "debris", "lymphocytes", "mucus", "smooth muscle", "normal colon mucosa"),
            *("cancer-associated stroma", "colorectal adenocarcinoma epithelium"),
        ),
        channels=3,
    ),
    "pneumoniamnist": _medical("chest X-rays, grey, 2 classes", ("normal", "pneumonia")),
    "bloodmnist": _medical(
        "blood cells, RGB, 8 classes",
        (
            *("basophil", "eosinophil", "erythroblast", "immature granulocytes"),
            *("lymphocyte", "monocyte", "neutrophil", "platelet"),
        ),
        channels=3,
    ),
    "dermamnist": _medical(
        "skin lesions, RGB, 7 classes",
        (
            *("actinic keratoses and intraepithelial carcinoma", "basal cell carcinoma"),
            *("benign keratosis-like lesions", "dermatofibroma", "melanoma", "melanocytic nevi", "vascular lesions"),
        ),
        channels=3,
    ),
    "octmnist": _medical(
        "retinal OCT, grey, 4 classes",
        ("choroidal neovascularization", "diabetic macular edema", "drusen", "normal"),
    ),
    "retinamnist": _medical(
        "fundus images, RGB, 5 grades of diabetic retinopathy", ("0", "1", "2", "3", "4"), channels=3
    ),
    "breastmnist": _medical("breast ultrasound, grey, 2 classes", ("malignant", "normal or benign")),
    "organamnist": _medical("abdominal CT, axial, grey, 11 organs", _ORGANS),
    "organcmnist": _medical("abdominal CT, coronal, grey, 11 organs", _ORGANS),
    "organsmnist": _medical("abdominal CT, sagittal, grey, 11 organs", _ORGANS),
    "tissuemnist": _medical(
        "kidney cortex cells, grey, 8 classes",
        (
            *("collecting duct, connecting tubule", "distal convoluted tubule", "glomerular endothelial cells"),
            *("interstitial endothelial cells", "leukocytes", "podocytes"),
            *("proximal tubule segments", "thick ascending limb"),
        ),
    ),
}

# Constants of the whole public set of 1,797 images, pixels divided by 16.
DIGITS = KnownSet("handwritten digits, 8x8 grey, 1,437/360, part of scikit-learn", _DIGITS, (0.3053,), (0.3760,))
