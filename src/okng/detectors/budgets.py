"""The arguments of each detector on a budget: "cpu" is minutes per fit on one core, "paper" what its paper states.

The former were chosen by the papers, by what an epoch costs and by OK images; what was known of test figures then is in
docs/choices.md. `size` is that of `okng.fit`, all else the detector's own.
"""

from __future__ import annotations

from typing import Any

from okng.errors import OkngError

BUDGETS = ("cpu", "paper")
SMALL_SIDE = 48  # pixels; the median image is small up to this

# Images of 28 to 32 px: MNIST, Fashion-MNIST, CIFAR-10, COCO crops.
SMALL: dict[str, dict[str, Any]] = {
    "aesc": {"epochs": 20, "batch_size": 64, "learning_rate": 2e-3},
    "autoencoder": {"code": 16, "epochs": 40, "batch_size": 64, "learning_rate": 2e-3},
    "denoising_autoencoder": {"code": 16, "epochs": 40, "batch_size": 64, "learning_rate": 2e-3, "noise": 0.2},
    "gan": {"width": 32, "epochs": 12, "batch_size": 64},
    "anogan": {"width": 32, "epochs": 12, "batch_size": 64, "steps": 100, "search_rate": 0.05},
    "ocgan": {
        "width": 32, "classifier_width": 16, "dropout": 0.0, "reconstruction_weight": 100.0, "epochs": 12,
        "batch_size": 32, "learning_rate": 1e-3,
    },
    "attention_ocgan": {
        "width": 16, "classifier_width": 16, "dropout": 0.0, "reconstruction_weight": 100.0, "epochs": 10,
        "batch_size": 32, "learning_rate": 1e-3,
    },
    # Attention weights of CAVGA: of powers of ten the one below that at which more than a tenth of the places in
    # held-out OK images has an attention above 0.95. In so few steps the paper's 0.01 moves nothing. What was tried,
    # on one digit and on transistor, is in docs/choices.md.
    "cavga_u": {
        "width": 16, "latent": 16, "attention_weight": 0.1, "learning_rate": 1e-3, "batch_size": 64, "epochs": 10,
    },
    "cavga_w": {
        "width": 16, "latent": 16, "attention_weight": 10.0, "classification_weight": 1.0, "learning_rate": 1e-3,
        "batch_size": 64, "epochs": 10,
    },
    "f_anogan": {
        "width": 8, "latent": 64, "batch_size": 16, "epochs": 4, "learning_rate": 1e-3, "critic_steps": 1,
        "encoder_epochs": 8, "encoder_learning_rate": 5e-4,
    },
    # After two epochs the student was still more than half as far from the autoencoder as the image is. At a rate of
    # 2e-3 it came no nearer, and on one digit its loss ran away in the last epoch.
    "sdn": {
        "code": 32, "teacher_epochs": 20, "teacher_batch_size": 32, "teacher_learning_rate": 1e-3, "filters": 16,
        "groups": 2, "attention_grid": 16, "epochs": 5, "batch_size": 16, "learning_rate": 1e-3,
    },
    # By held-out copies of OK images after ten epochs: 5e-4 is slower on both digits tried, 2e-3 stays black on one.
    "ssim_autoencoder": {
        "code": 16, "width": 8, "window": 7, "epochs": 30, "batch_size": 64, "learning_rate": 1e-3,
    },
    # Another digit is a piece in the wrong place: of the two scores, the one that its card takes for shapes.
    "vae": {
        "score": "reconstruction", "variance": "global", "code": 16, "width": 16, "epochs": 20, "batch_size": 64,
    },
    "vgg11": {"width": 32, "epochs": 5, "batch_size": 64, "learning_rate": 0.02},
    "vgg11_classifier": {"width": 16, "epochs": 40},
    "padim": {}, "patch_memory": {}, "patchcore": {},  # whose defaults are for a CPU
}  # fmt: skip
SMALL["oe_sdn"] = SMALL["sdn"]

# Photographs of a few hundred images per fit: MVTec AD, magnetic tile, video frames.
LARGE: dict[str, dict[str, Any]] = {
    "aesc": {"size": 64, "epochs": 100, "learning_rate": 2e-3},
    "autoencoder": {"size": 128, "code": 100, "epochs": 60, "batch_size": 16, "learning_rate": 1e-3},
    "denoising_autoencoder": {
        "size": 128, "code": 100, "epochs": 60, "batch_size": 16, "learning_rate": 1e-3, "noise": 0.2,
    },
    "gan": {"size": 64, "width": 32, "epochs": 60, "batch_size": 16},
    "anogan": {"size": 64, "width": 32, "epochs": 60, "batch_size": 16, "steps": 100, "search_rate": 0.05},
    "ocgan": {
        "size": 64, "width": 32, "classifier_width": 16, "dropout": 0.0, "reconstruction_weight": 100.0,
        "epochs": 30, "batch_size": 16, "learning_rate": 1e-3,
    },
    "attention_ocgan": {
        "size": 64, "width": 16, "classifier_width": 16, "dropout": 0.0, "reconstruction_weight": 100.0,
        "epochs": 20, "batch_size": 16, "learning_rate": 1e-3,
    },
    "cavga_u": {
        "size": 64, "width": 16, "latent": 64, "attention_weight": 0.1, "learning_rate": 1e-3, "batch_size": 16,
        "epochs": 60,
    },
    "cavga_w": {
        "size": 64, "width": 16, "latent": 64, "attention_weight": 10.0, "classification_weight": 1.0,
        "learning_rate": 1e-3, "batch_size": 16, "epochs": 60,
    },
    "f_anogan": {
        "size": 64, "width": 8, "latent": 64, "batch_size": 16, "epochs": 60, "learning_rate": 1e-3,
        "critic_steps": 1, "encoder_epochs": 60, "encoder_learning_rate": 5e-4,
    },
    "sdn": {
        "size": 64, "code": 100, "teacher_epochs": 60, "teacher_batch_size": 16, "teacher_learning_rate": 1e-3,
        "filters": 16, "groups": 2, "attention_grid": 16, "epochs": 10, "batch_size": 16, "learning_rate": 2e-3,
    },
    "ssim_autoencoder": {
        "size": 128, "code": 100, "width": 16, "epochs": 60, "batch_size": 16, "learning_rate": 1e-3,
    },
    "stfpm": {"size": 128, "epochs": 40},
    "vae": {"size": 128, "code": 100, "width": 16, "epochs": 60, "batch_size": 16},
    "padim": {}, "patch_memory": {}, "patchcore": {},
}  # fmt: skip
LARGE["oe_sdn"] = LARGE["sdn"]

# Beside the detector's defaults, which are the paper's or its authors' code's where their docstring says nothing else.
PAPER: dict[str, dict[str, Any]] = {
    # The authors' code: 250 epochs of 2000 / 16 batches whatever the set, no augmentation.
    "aesc": {"size": (256, 256), "training_steps": 31_250},
    # Patches of 64 px. That a million were met 20 times, in batches of 64, is remembered and could not be checked.
    "anogan": {"size": (64, 64), "training_steps": 312_500},
    "attention_ocgan": {"size": (61, 61)},  # the slides state nothing: OCGAN's
    # 200 epochs of 10,000 crops in batches of 128; the code is that for objects, textures have 100.
    "autoencoder": {"size": (256, 256), "code": 500, "training_steps": 15_625},
    # The weights of the losses are stated. Size, epochs, batches and rate could not be checked.
    "cavga_u": {"size": (256, 256)},
    "cavga_w": {"size": (256, 256)},
    "denoising_autoencoder": {"size": (256, 256), "code": 500, "training_steps": 15_625},  # as `autoencoder`
    # The authors' code: 7 passes of the critic in batches of 64, then 50,000 steps of the encoder. How many patches a
    # pass had could not be checked; a million is remembered of AnoGAN's.
    "f_anogan": {"size": (64, 64), "training_steps": 109_375, "encoder_steps": 50_000},
    # DCGAN's shortest training that is shown, one epoch of LSUN's bedrooms (three million, remembered) by 128.
    "gan": {"size": (64, 64), "training_steps": 23_438},
    "ocgan": {"size": (61, 61)},
    # Groups, rates and epochs could not be checked. The image's own size: MNIST's and CIFAR-10's are the paper's.
    "oe_sdn": {},
    "padim": {"size": (224, 224), "backbone": "wide_resnet50_2.tv_in1k", "dimensions": 550},
    "patch_memory": {},  # this library's own
    "patchcore": {  # of the paper's three sizes of memory the middle one
        "size": (224, 224), "backbone": "wide_resnet50_2.tv_in1k", "coreset": 0.1,
    },
    "sdn": {},
    # As `autoencoder`, of the same paper.
    "ssim_autoencoder": {"size": (256, 256), "code": 500, "training_steps": 15_625},
    "stfpm": {"size": (256, 256), "backbone": "resnet18.tv_in1k"},
    "vae": {},  # the report on reconstruction probability could not be checked
    "vgg11": {},  # the slides state nothing
    "vgg11_classifier": {},
}  # fmt: skip
_CROPS = "the paper's random crops, turns and flips: whole images are met as often"
_MIDDLE = "the paper sees the middle 224 px of 256 and no border; here the whole image is 224"
_PATCHES = "the paper learns patches cut out at random places; here whole images are scaled to 64 px"
_REMEMBERED = "how many steps it trains for could not be checked"
_UNSTATED = "the slides state no settings"
_UNCHECKED = "the paper's size, epochs and rates could not be checked: they are this library's defaults"
# What a paper's training has and this one has not, beyond the detector's own "Deliberately otherwise".
LEFT_OUT = {
    "aesc": "the authors halve the rate by a validation set; here it is halved at four fixed steps",
    "anogan": f"{_PATCHES}; {_REMEMBERED}",
    "attention_ocgan": f"{_UNSTATED}: they are OCGAN's and, of what is added to it, this library's",
    "autoencoder": _CROPS,
    "cavga_u": f"networks that have learnt from other images; {_UNCHECKED}",
    "cavga_w": f"networks that have learnt from other images; {_UNCHECKED}",
    "denoising_autoencoder": f"no paper trains this network so; {_CROPS}",
    "f_anogan": f"{_PATCHES}, and none is mirrored as half of the authors' are; {_REMEMBERED}",
    "gan": "no paper trains it to detect: the steps are those of DCGAN",
    "ocgan": "the authors keep the epoch with the least error on a tenth of the images; here it is the last",
    "oe_sdn": _UNCHECKED,
    "padim": _MIDDLE,
    "patch_memory": "no paper describes it: the settings are this library's",
    "patchcore": f"{_MIDDLE}; how many neighbours weigh its score could not be checked",
    "sdn": _UNCHECKED,
    "ssim_autoencoder": _CROPS,
    "stfpm": "the authors keep the epoch that is best on a fifth of the images; here it is the last",
    "vae": _UNCHECKED,
    "vgg11": f"{_UNSTATED}: they are this library's, for a network that starts from random weights",
}


def arguments_for(budget: str, detector: str, small: bool) -> dict[str, Any] | None:
    """What `detector` is given on small or large images; None where nobody has chosen it yet.

    `OkngError` for a `budget` that there is not.
    """
    if budget not in BUDGETS:
        raise OkngError(f"a budget is {' or '.join(BUDGETS)}, not {budget!r}")
    if budget == "paper":
        return PAPER.get(detector)
    return (SMALL if small else LARGE).get(detector)
