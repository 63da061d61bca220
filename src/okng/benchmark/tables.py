"""The tables of published figures that `okng reproduce` runs, cell by cell.

The figures stand in tables.csv as printed, with where; here is what is in a table, and what okng runs for each method
it names. A cell without a printed figure is blank.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

PRINTED = Path(__file__).with_name("tables.csv")

DIGITS = tuple("0123456789")
CIFAR_10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
TEXTURES = ("carpet", "grid", "leather", "tile", "wood")
OBJECTS = (
    "bottle", "cable", "capsule", "hazelnut", "metal_nut", "pill", "screw", "toothbrush", "transistor", "zipper",
)  # fmt: skip
MVTEC = TEXTURES + OBJECTS
ALL = ("all",)  # of a data set that is one task

ONE_VS_REST = "one-vs-rest on the native split"
FOLDERS = "MVTec AD"


@dataclass(frozen=True)
class Run:
    """What okng runs for a method: a detector of the catalogue and what tells the method from the detector's defaults.

    `after` are attributes set once the detector is fitted, so that several scores share one fit. `labelled_ng` is the
    share of labelled NG images among the training images, for detectors that need some; 1 means all that the training
    part has. `boundary` is the score above which a classifier says NG: 0 for one that scores the logarithm of odds.
    """

    detector: str
    arguments: dict[str, Any] = field(default_factory=dict)
    after: dict[str, Any] = field(default_factory=dict)
    labelled_ng: float = 0.0
    boundary: float | None = None


@dataclass(frozen=True)
class Block:
    """The cells of one data set, protocol and metric: `classes` × `methods`; `means` are over which classes."""

    dataset: str
    protocol: str
    metric: str
    classes: tuple[str, ...]
    methods: tuple[str, ...]
    means: dict[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Cell:
    """One figure; `printed` is the published one as it was printed, or nothing."""

    dataset: str
    protocol: str
    method: str
    kind: str
    metric: str
    printed: str

    @property
    def published(self) -> float | None:
        """The published figure as a number."""
        return float(self.printed) if self.printed else None


@dataclass(frozen=True)
class Table:
    """A table of a document: `runs` says for each printed method what okng runs."""

    name: str
    title: str
    blocks: tuple[Block, ...]
    runs: dict[str, Run]
    remarks: tuple[str, ...] = ()

    @property
    def cells(self) -> list[Cell]:
        """Every cell but the means, in the order of the table."""
        return [
            Cell(b.dataset, b.protocol, method, kind, b.metric, self.printed(b, method, kind))
            for b in self.blocks
            for method in b.methods
            for kind in b.classes
        ]

    @property
    def figures(self) -> int:
        """How many figures are printed, means included."""
        return sum(key[0] == self.name for key in _printed())

    def printed(self, block: Block, method: str, kind: str) -> str:
        """The figure printed for a class or a mean, or nothing."""
        return _printed().get((self.name, block.dataset, method, kind, block.metric), "")

    def notes(self) -> list[str]:
        """Where a printed mean is not that of the printed classes, and what else is to be known of the table."""
        found = []
        for block in self.blocks:
            for method in block.methods:
                for name, classes in block.means.items():
                    text = self.printed(block, method, name)
                    values = [float(one) for kind in classes if (one := self.printed(block, method, kind))]
                    if not text or len(values) < len(classes):
                        continue
                    mean = sum(values) / len(values)
                    unit = 10.0 ** -len(text.partition(".")[2])
                    if abs(float(text) - mean) > unit / 2 + 1e-9:  # a tie may be rounded either way
                        found.append(
                            f"{block.dataset}, {method}: the printed {name} {text} is not that of the printed "
                            f"figures, {mean:.5f}"
                        )
        return [*found, *self.remarks]


@cache
def _printed() -> dict[tuple[str, str, str, str, str], str]:
    """The figures of tables.csv as texts, which show their precision."""
    with PRINTED.open(newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file)
        return {(r["table"], r["dataset"], r["method"], r["class"], r["metric"]): r["value"] for r in rows}


def _mean(classes: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    return {"mean": classes}


def _auroc(dataset: str, classes: tuple[str, ...], methods: tuple[str, ...]) -> Block:
    return Block(dataset, ONE_VS_REST, "image_auroc", classes, methods, _mean(classes))


MVTEC_MEANS = {"mean of textures": TEXTURES, "mean of objects": OBJECTS, "mean": MVTEC}

_TEACHER = Run("sdn", {"score": "teacher"})
_TAUGHT_BY = (
    "AE is taken for the autoencoder that teaches SDN, trained and scored by the one distance that the slides give, "
    "DSSIM + MSE; they don't say so, nor what AE is scored by"
)
_TABLE_1 = {
    "OC-SVM [26]": Run("ocsvm"),
    "IF [27]": Run("isolation_forest"),
    "AnoGAN [8]": Run("anogan"),
    "DeepSVDD [24]": Run("deep_svdd"),
    "AE": _TEACHER,
    "SDN": Run("sdn"),
    "OE-SDN": Run("oe_sdn"),
}
_TABLE_2 = {
    "AnoGAN [8]": Run("anogan"),
    "CNN Feature Similarity [28]": Run("feature_dictionary"),
    "AE [4]": Run("ssim_autoencoder"),
    "AE (ours)": _TEACHER,
    "SDN": Run("sdn"),
    "OE-SDN": Run("oe_sdn"),
}
_TABLE_3 = {
    "Adversarial Noise [29]": Run("oe_sdn", {"auxiliary": "adversarial_noise"}),
    "Gaussian Blurring": Run("oe_sdn", {"auxiliary": "gaussian_blur"}),
    "Gaussian Noise": Run("oe_sdn", {"auxiliary": "gaussian_noise"}),
    "Horizontal Flip": Run("oe_sdn", {"auxiliary": "horizontal_flip"}),
    "Reconstruction of AE": Run("oe_sdn", {"auxiliary": "reconstruction"}),
    "Rotation": Run("oe_sdn"),
    "Shearing": Run("oe_sdn", {"auxiliary": "shearing"}),
    "SVD Blurring": Run("oe_sdn", {"auxiliary": "svd_blur"}),
    "Vertical Flip": Run("oe_sdn", {"auxiliary": "vertical_flip"}),
    "No Auxiliary Dataset (SDN)": Run("sdn"),
}
_OCGAN = {
    "OCSVM [24]": Run("ocsvm"),
    "KDE [2]": Run("kde"),
    "DAE [4]": Run("denoising_autoencoder"),
    "VAE [6]": Run("vae"),
    "Pix CNN [26]": Run("pixelcnn"),
    "GAN [23]": Run("anogan"),
    "AND [1]": Run("lsa"),
    "AnoGAN [23]": Run("anogan"),
    "DSVDD [19]": Run("deep_svdd"),
    "OCGAN": Run("ocgan"),
}
_UNSAID = (
    "GAN and AnoGAN carry the same reference, by its name AnoGAN's paper, and what tells them apart is not said: okng "
    "runs `anogan` for both, one fit, so both have one figure. Whether the printed GAN is AnoGAN trained by others is "
    "not sure; the score of a discriminator alone, okng's `gan`, is in okng/one-vs-rest",
    "DAE is taken for a denoising autoencoder; its name is not spelt out",
)
_WITHOUT = {"latent_weight": 0.0, "visual_weight": 0.0, "mining_steps": 0}
_ABLATION = {
    "without any of them": Run("ocgan", _WITHOUT),
    "with the latent discriminator": Run("ocgan", {"visual_weight": 0.0, "mining_steps": 0}),
    "with both discriminators": Run("ocgan", {"mining_steps": 0}),
    "with classifier and mining": Run("ocgan"),
}
_CORRUPTIONS = ("none", "gaussian", "scratch", "drops", "stain")
_AESC = {  # fitted for the score that needs more, then asked for either
    f"{net}, {corruption}, {score}": Run(
        "aesc", {"skips": net == "AESc", "corruption": corruption, "score": "uncertainty"}, {"score": score}
    )
    for net in ("AE", "AESc")
    for corruption in _CORRUPTIONS
    for score in ("residual", "uncertainty")
}
_CAVGA = {
    "AVID": Run("avid"),
    "AE L2": Run("autoencoder"),
    "AE SSIM": Run("ssim_autoencoder"),
    "AnoGAN": Run("anogan"),
    "γ-VAE-grad": Run("vae_grad"),
    "LSA": Run("lsa"),
    "ADVAE": Run("advae"),
    "CAVGA-u": Run("cavga_u"),
    "CAVGA-w": Run("cavga_w", labelled_ng=0.02),
}
_OWN = {
    "AESc, stain": Run("aesc"),
    "OCGAN with attention": Run("attention_ocgan"),
    "CAVGA-w": Run("cavga_w", labelled_ng=0.02),
    "f-AnoGAN": Run("f_anogan"),
    "GAN, discriminator alone": Run("gan"),
    "VGG11": Run("vgg11", labelled_ng=0.02),
    "GEOM": Run("geom"),
    "SSL-AD": Run("ssl_ad"),
    "GOAD": Run("goad"),
    "CSI": Run("csi"),
    "DROC": Run("droc"),
    "SSD": Run("ssd"),
    "GANomaly": Run("ganomaly"),
    "Skip-GANomaly": Run("skip_ganomaly"),
    "MemAE": Run("memae"),
    "DAAD": Run("daad"),
    "Metaformer": Run("metaformer"),
    "HTDG": Run("htdg"),
}
_OWN_MVTEC = {
    "DAE": Run("denoising_autoencoder"),
    "VAE": Run("vae"),
    "f-AnoGAN": Run("f_anogan"),
    "OCGAN": Run("ocgan"),
    "OCGAN with attention": Run("attention_ocgan"),
    "GANomaly": Run("ganomaly"),
    "Skip-GANomaly": Run("skip_ganomaly"),
    "MemAE": Run("memae"),
    "RIAD": Run("riad"),
    "DAAD": Run("daad"),
    "Metaformer": Run("metaformer"),
    **{
        f"γ-VAE-grad, {score}": Run("vae_grad", {}, {"score": score})
        for score in ("projection", "gradient", "residual")
    },
}


def _table(name: str, title: str, blocks: tuple[Block, ...], runs: dict[str, Run], *remarks: str) -> Table:
    return Table(name, title, blocks, runs, remarks)


TABLES: dict[str, Table] = {
    table.name: table
    for table in (
        _table(
            "oe-sdn/table1",
            "OE-SDN slides, table 1: image AUROC on MNIST and CIFAR-10",
            (_auroc("MNIST", DIGITS, tuple(_TABLE_1)), _auroc("CIFAR-10", CIFAR_10, tuple(_TABLE_1))),
            _TABLE_1,
            _TAUGHT_BY,
            "on CIFAR-10 the printed AE is far from DAE and VAE in ocgan/cifar10, whose errors are squared: automobile "
            "0.661, theirs 0.478 and 0.386",
        ),
        _table(
            "oe-sdn/table2",
            "OE-SDN slides, table 2: pixel AUROC on MVTec AD",
            (Block("MVTec AD", FOLDERS, "pixel_auroc", MVTEC, tuple(_TABLE_2), MVTEC_MEANS),),
            _TABLE_2,
            _TAUGHT_BY,
            "the last row, printed as the average, is the mean of the ten objects, not of all fifteen categories",
        ),
        _table(
            "oe-sdn/table3",
            "OE-SDN slides, table 3: image AUROC by auxiliary data, on MNIST and CIFAR-10",
            (_auroc("MNIST", DIGITS, tuple(_TABLE_3)), _auroc("CIFAR-10", CIFAR_10, tuple(_TABLE_3))),
            _TABLE_3,
            "only means are printed",
        ),
        _table(
            "ocgan/mnist",
            "OCGAN paper's table as printed in the attention-OCGAN slides: image AUROC on MNIST",
            (_auroc("MNIST", DIGITS, tuple(_OCGAN)),),
            _OCGAN,
            *_UNSAID,
        ),
        _table(
            "ocgan/cifar10",
            "OCGAN paper's table as printed in the attention-OCGAN slides: image AUROC on CIFAR-10",
            (_auroc("CIFAR-10", CIFAR_10, tuple(_OCGAN)),),
            _OCGAN,
            *_UNSAID,
        ),
        _table(
            "ocgan/ablation",
            "OCGAN paper, ablation: image AUROC on MNIST with and without the discriminators and the mining",
            (_auroc("MNIST", DIGITS, tuple(_ABLATION)),),
            _ABLATION,
            "only means are printed",
        ),
        _table(
            "attention-ocgan",
            "attention-OCGAN slides: image AUROC on CIFAR-10",
            (_auroc("CIFAR-10", CIFAR_10, ("OCGAN with attention",)),),
            {"OCGAN with attention": Run("attention_ocgan")},
            "the row is printed without names of classes; they are taken in the order of the table above it",
        ),
        _table(
            "vgg11-imbalance",
            "attention-OCGAN slides: a supervised classifier of CIFAR-10's airplane against the nine other classes",
            tuple(
                Block("CIFAR-10", "supervised, one class against nine", metric, ("airplane",), ("VGG11",))
                for metric in ("accuracy", "accuracy_ok")
            ),
            {"VGG11": Run("vgg11", labelled_ng=1.0, boundary=0.0)},
            "57.21 % of 1000 OK test images is not a whole number: how it was averaged is not said",
        ),
        _table(
            "coco-masks",
            "attention-OCGAN slides: a classifier of ten classes of COCO crops, with and without background",
            tuple(
                Block("COCO crops", "supervised, ten classes", metric, ALL, ("VGG11, original", "VGG11, masked"))
                for metric in ("accuracy", "epochs_to_80")
            ),
            {f"VGG11, {version}": Run("vgg11_classifier", {"version": version}) for version in ("original", "masked")},
            "95.247 and 96.672 % of 500 test images are not whole numbers: how they were averaged is not said",
        ),
        _table(
            "aesc/corruptions",
            "AESc and AE by corruption and by score, on MVTec AD and magnetic tile: nothing is printed",
            tuple(
                Block(dataset, FOLDERS, metric, classes, tuple(_AESC), means)
                for dataset, classes, means in (("MVTec AD", MVTEC, _mean(MVTEC)), ("magnetic tile", ALL, {}))
                for metric in ("image_auroc", "pixel_auroc")
            ),
            _AESC,
            "the review of AESc prints no figures; its claim is that stain beats none",
        ),
        _table(
            "cavga/comparison",
            "CAVGA and what it is compared with, on MVTec AD, ShanghaiTech Campus, MNIST, CIFAR-10, Fashion-MNIST: "
            "nothing is printed",
            (
                Block("MVTec AD", FOLDERS, "pixel_auroc", MVTEC, tuple(_CAVGA), _mean(MVTEC)),
                Block("ShanghaiTech Campus", "native split, by frame", "image_auroc", ALL, ("CAVGA-u",)),
                *(
                    _auroc(dataset, classes, tuple(name for name in _CAVGA if name != "CAVGA-w"))
                    for dataset, classes in (("MNIST", DIGITS), ("CIFAR-10", CIFAR_10), ("Fashion-MNIST", DIGITS))
                ),
            ),
            _CAVGA,
            "the review of CAVGA refers to tables that were pictures; CAVGA-w learns from labelled NG images too",
        ),
        _table(
            "okng/one-vs-rest",
            "okng's own table: methods for which the documents print nothing on MNIST or CIFAR-10",
            (_auroc("MNIST", DIGITS, tuple(_OWN)), _auroc("CIFAR-10", CIFAR_10, tuple(_OWN))),
            _OWN,
            "CAVGA-w and VGG11 learn from labelled NG images too",
        ),
        _table(
            "okng/mvtec-ad",
            "okng's own table: methods that localise and for which the documents print nothing on MVTec AD",
            tuple(
                Block("MVTec AD", FOLDERS, metric, MVTEC, tuple(_OWN_MVTEC), _mean(MVTEC))
                for metric in ("image_auroc", "pixel_auroc")
            ),
            _OWN_MVTEC,
        ),
    )
}
