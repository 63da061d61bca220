"""Every method okng has: its public name, where it lives, and its card. Nothing is imported until it is created.

Two ways bring a detector from outside: a package names its class as an entry point of the group "okng.detectors", or
a program hands the class itself to `okng.fit`, `create` or `okng.load`. A name out of a model file is only ever looked
up among these: no module is imported because a file names it.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
import math
import re
import types
import typing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from okng.checks import plain
from okng.errors import OkngError, missing_package, nearest_names

if TYPE_CHECKING:
    from okng.detectors.base import Detector


@dataclass(frozen=True)
class Card:
    """What a person wants to know before choosing: `target` is module:Class below `okng.detectors`.

    Of a detector from outside the target is the whole module:Class, and what only its class knows is left blank.
    """

    target: str
    title: str
    family: str
    paper: str
    year: int | None
    idea: str
    good_for: str
    localizes: bool | None
    labels: str = "OK images only"


DEFAULT = "patch_memory"
CATALOGUE: dict[str, Card] = {
    "aesc": Card(
        target="reconstruction.aesc:AESc",
        title="AESc + stain",
        family="reconstruction",
        paper="Collin, De Vleeschouwer, Autoencoder with Skip Connections and Stain-shaped Noise, ICPR",
        year=2020,
        idea="A sharp autoencoder that wipes synthetic stains off OK images wipes off real defects too.",
        good_for="surfaces with stains and scratches, where no pretrained network fits",
        localizes=True,
    ),
    "anogan": Card(
        target="reconstruction.anogan:AnoGAN",
        title="AnoGAN",
        family="reconstruction",
        paper="Schlegl et al., Unsupervised Anomaly Detection with GANs to Guide Marker Discovery, IPMI",
        year=2017,
        idea="A GAN learns to generate OK images; what no code of it can generate is odd.",
        good_for="comparison with the literature; slow, each image is a search",
        localizes=True,
    ),
    "attention_ocgan": Card(
        target="reconstruction.attention_ocgan:AttentionOCGAN",
        title="OCGAN with attention",
        family="reconstruction",
        paper="Slides on one-class novelty detection, Vision and Display System Lab, Sogang University",
        year=2020,
        idea="A learnt mask leaves the background out; a second OCGAN learns masked images, both errors count.",
        good_for="one kind of small image before a background that changes",
        localizes=True,
    ),
    "autoencoder": Card(
        target="reconstruction.autoencoder:Autoencoder",
        title="Convolutional autoencoder (L2)",
        family="reconstruction",
        paper="Masci et al., Stacked Convolutional Auto-Encoders, ICANN",
        year=2011,
        idea="What a bottleneck that has only met OK images cannot copy is odd.",
        good_for="small simple images such as digits",
        localizes=True,
    ),
    "cavga_u": Card(
        target="reconstruction.cavga:CAVGAu",
        title="CAVGA-u",
        family="reconstruction",
        paper="Venkataramanan et al., Attention Guided Anomaly Localization in Images, ECCV",
        year=2020,
        idea="A variational autoencoder learns to attend to all of an OK image; the rest is odd.",
        good_for="comparison with the literature; pictures of attention",
        localizes=True,
    ),
    "cavga_w": Card(
        target="reconstruction.cavga:CAVGAw",
        title="CAVGA-w",
        family="reconstruction",
        paper="Venkataramanan et al., Attention Guided Anomaly Localization in Images, ECCV",
        year=2020,
        idea="As CAVGA-u, with attention that a few NG images teach what to look away from.",
        good_for="as cavga_u, where a few NG images are there to learn from",
        localizes=True,
        labels="OK and some NG images",
    ),
    "denoising_autoencoder": Card(
        target="reconstruction.denoising_autoencoder:DenoisingAutoencoder",
        title="Denoising autoencoder",
        family="reconstruction",
        paper="Vincent et al., Extracting and Composing Robust Features with Denoising Autoencoders, ICML",
        year=2008,
        idea="Taking noise off OK images teaches to pull every image towards them; what is moved most is odd.",
        good_for="small simple images, noisy ones too",
        localizes=True,
    ),
    "f_anogan": Card(
        target="reconstruction.f_anogan:FAnoGAN",
        title="f-AnoGAN",
        family="reconstruction",
        paper="Schlegl et al., f-AnoGAN, Medical Image Analysis 54",
        year=2019,
        idea="A GAN learns to generate OK images, an encoder to find their codes; what is not found again is odd.",
        good_for="as anogan, and quick to score",
        localizes=True,
    ),
    "gan": Card(
        target="reconstruction.gan:GAN",
        title="GAN (discriminator)",
        family="reconstruction",
        paper="Goodfellow et al., Generative Adversarial Nets, NIPS 2014; Radford et al., its networks (DCGAN), ICLR",
        year=2016,
        idea="A discriminator learns to tell OK images from generated ones; what it calls generated is odd.",
        good_for="comparison only: a weak baseline",
        localizes=False,
    ),
    "ocgan": Card(
        target="reconstruction.ocgan:OCGAN",
        title="OCGAN",
        family="reconstruction",
        paper="Perera et al., OCGAN: One-class Novelty Detection Using GANs, CVPR",
        year=2019,
        idea="Every code of a bounded cube is made to decode to an OK image; odd images cannot be rebuilt.",
        good_for="small images of one kind, all others odd",
        localizes=True,
    ),
    "oe_sdn": Card(
        target="reconstruction.style_distillation:OESDN",
        title="OE-SDN (style distillation with outlier exposure)",
        family="reconstruction",
        paper="Chung et al., Unsupervised Anomaly Detection Using Style Distillation, IEEE Access",
        year=2020,
        idea="As SDN, with a student that also learns to leave other images, such as rotated ones, as they are.",
        good_for="as sdn, where turned or blurred images would be odd",
        localizes=True,
    ),
    "padim": Card(
        target="feature_matching.padim:PaDiM",
        title="PaDiM",
        family="feature matching",
        paper="Defard et al., PaDiM, ICPR Workshops (arXiv 2011.08785)",
        year=2021,
        idea="One Gaussian per position over pretrained features; odd is far in Mahalanobis distance.",
        good_for="parts that lie alike in every image; fits quickest",
        localizes=True,
    ),
    "patch_memory": Card(
        target="feature_matching.patch_memory:PatchMemory",
        title="Patch memory with context",
        family="feature matching",
        paper="okng's own, after PatchCore (Roth et al., CVPR 2022)",
        year=2026,
        idea="A thinned memory of OK patches, each with its surroundings at half weight; odd is far from the nearest.",
        good_for="parts and surfaces of any kind, from 20 images on: try it first",
        localizes=True,
    ),
    "patchcore": Card(
        target="feature_matching.patchcore:PatchCore",
        title="PatchCore",
        family="feature matching",
        paper="Roth et al., Towards Total Recall in Industrial Anomaly Detection, CVPR",
        year=2022,
        idea="A thinned memory of pretrained OK patches; odd is far from the nearest one.",
        good_for="parts and surfaces of any kind, as the paper has it",
        localizes=True,
    ),
    "sdn": Card(
        target="reconstruction.style_distillation:SDN",
        title="SDN (style distillation)",
        family="reconstruction",
        paper="Chung et al., Unsupervised Anomaly Detection Using Style Distillation, IEEE Access",
        year=2020,
        idea="A student copies how an autoencoder blurs OK images; odd is where the two differ.",
        good_for="small simple images whose details an autoencoder blurs",
        localizes=True,
    ),
    "ssim_autoencoder": Card(
        target="reconstruction.ssim_autoencoder:SSIMAutoencoder",
        title="Convolutional autoencoder (SSIM)",
        family="reconstruction",
        paper="Bergmann et al., Structural Similarity to Autoencoders, VISAPP (arXiv 1807.02011)",
        year=2019,
        idea="An autoencoder judged by structural similarity: shifted edges cost little, changed structure much.",
        good_for="as autoencoder, where structure counts and brightness varies",
        localizes=True,
    ),
    "stfpm": Card(
        target="distillation.stfpm:STFPM",
        title="STFPM",
        family="distillation",
        paper="Wang et al., Student-Teacher Feature Pyramid Matching, BMVC",
        year=2021,
        idea="A student copies a pretrained teacher's features on OK images and fails on what it never saw.",
        good_for="parts and surfaces, where time or a GPU to train is there",
        localizes=True,
    ),
    "vae": Card(
        target="reconstruction.vae:VAE",
        title="Variational autoencoder",
        family="reconstruction",
        paper="Kingma, Welling, ICLR 2014; An, Cho, reconstruction probability, SNU technical report",
        year=2015,
        idea="A code that OK images fill like a Gaussian; odd is what it copies badly or finds improbable.",
        good_for="as autoencoder, with a choice of score",
        localizes=True,
    ),
    "vgg11": Card(
        target="supervised.vgg11:VGG11",
        title="VGG-11 classifier",
        family="supervised",
        paper="Simonyan and Zisserman, Very Deep Convolutional Networks, ICLR",
        year=2015,
        idea="A classifier taught with labelled OK and NG images: it knows only the NG it met.",
        good_for="known kinds of NG, many of them labelled: the supervised baseline",
        localizes=False,
        labels="OK and some NG images",
    ),
}


ENTRY_POINTS = "okng.detectors"
_handed: dict[str, type[Detector]] = {}  # classes that this process was given, by module:Class


def name_of(detector: str | type[Detector]) -> str:
    """The one name of `detector`, a class or a name in anyone's spelling: PatchCore, OE-SDN, "f-AnoGAN".

    A class that okng does not have is known from now on, in this process, as module:Class. The error names the nearest.
    """
    if isinstance(detector, type):
        return _name_of_class(detector)
    if detector in CATALOGUE or detector in _handed:
        return detector
    others = installed()
    if detector in others:
        return detector
    for name in (*CATALOGUE, *others, *_handed):
        if _bare(name) == _bare(detector):
            return name
    raise OkngError(f"there is no detector {detector!r}; {nearest_names(detector.lower(), [*CATALOGUE, *others])}")


def installed() -> dict[str, importlib.metadata.EntryPoint]:
    """The detectors that installed packages bring, by name; a name that okng has itself stays okng's."""
    points = importlib.metadata.entry_points(group=ENTRY_POINTS)
    return {point.name: point for point in points if point.name not in CATALOGUE}


def find(name: str) -> Card:
    """The card of detector `name`; the error names the nearest ones."""
    name = name_of(name)
    if name in CATALOGUE:
        return CATALOGUE[name]
    if name in _handed:
        said = inspect.getdoc(_handed[name]) or ""
        return _card_from_outside(name, name, said.partition("\n")[0])
    point = installed()[name]
    bringer = f"{point.dist.name} {point.dist.version}" if point.dist is not None else point.module
    return _card_from_outside(name, point.value, f"Brought by the package {bringer}.")


def detector_class(detector: str | type[Detector]) -> type[Detector]:
    """Import the class of `detector`, a name or the class itself."""
    name = name_of(detector)
    if name in _handed:
        return _handed[name]
    point = None if name in CATALOGUE else installed()[name]
    try:
        if point is None:
            module, _, attribute = CATALOGUE[name].target.partition(":")
            found = getattr(importlib.import_module(f"okng.detectors.{module}"), attribute)
        else:
            found = point.load()
    except ModuleNotFoundError as error:
        raise missing_package(error) or OkngError(f"{name} can't be imported: {error}; install it") from error
    except Exception as error:  # a package from outside may fail in any way
        if point is None:
            raise
        raise OkngError(f"{name} can't be imported from {point.value} ({error}); reinstall or repair it") from error
    return _checked(found)


def parameters(detector: str | type[Detector]) -> dict[str, inspect.Parameter]:
    """The constructor's keyword arguments of `detector`, which are its whole configuration."""
    return dict(inspect.signature(detector_class(detector), eval_str=True).parameters)


def explanations(detector: str | type[Detector]) -> dict[str, str]:
    """What the class's docstring says of each parameter, blank where it says nothing.

    It says it as "`name`, `other`: what they are", up to the next such names or the paragraph's end; else it is the
    first explanation of another, or the first sentence, that has the parameter's name.
    """
    kind = detector_class(detector)
    known = parameters(kind)
    paragraphs = [" ".join(text.split()) for text in (inspect.getdoc(kind) or "").split("\n\n")]
    found: dict[str, str] = {}
    for paragraph in paragraphs:
        heads = list(re.finditer(r"(?:`\w+`(?:, | and )?)+: ", paragraph))
        starts = [head.start() for head in heads] + [len(paragraph)]
        for head, end in zip(heads, starts[1:], strict=True):
            for name in re.findall(r"\w+", head[0]):
                found.setdefault(name, paragraph[head.end() : end].rstrip(" ;,"))
    sentences = [sentence for text in paragraphs for sentence in re.split(r"(?<=\.) (?=[A-Z`])", text)]
    for name in known:
        found.setdefault(name, next((text for text in (*found.values(), *sentences) if f"`{name}`" in text), ""))
    return {name: found[name] for name in known}


def create(detector: str | type[Detector], /, **arguments: Any) -> Detector:
    """Build an unfitted detector, by name or class; `arguments` are its constructor's, checked by name and type.

    One number serves where several are taken, a list as a tuple, and a NumPy scalar as the number it is.

    >>> create("patchcore", coreset=0.05)  # doctest: +SKIP
    """
    name = name_of(detector)
    known = parameters(name)
    taken = {}
    for key, value in arguments.items():
        if key not in known:
            raise OkngError(f"{name} has no parameter {key!r}; {nearest_names(key, known)}")
        wanted = known[key].annotation
        taken[key] = _several(plain(f"{name}: {key}", value), wanted)
        if not _fits(taken[key], wanted):
            raise OkngError(f"{name}: {key} takes {_spell(wanted)}, not {value!r}")
    try:
        built = detector_class(name)(**taken)
    except OkngError as error:
        raise OkngError(f"{name}: {error}") from error
    built.name = name
    built.arguments = {key: taken.get(key, p.default) for key, p in known.items()}
    return built.eval()


def _name_of_class(kind: type[Detector]) -> str:
    target = f"{_checked(kind).__module__}:{kind.__qualname__}"
    for name, card in CATALOGUE.items():
        if target == f"okng.detectors.{card.target}":
            return name
    for name, point in installed().items():
        if target == point.value:
            return name
    _handed[target] = kind
    return target


def _checked(kind: Any) -> type[Detector]:
    from okng.detectors.base import Detector

    if not (isinstance(kind, type) and issubclass(kind, Detector)):
        what = getattr(kind, "__name__", repr(kind))
        raise OkngError(f"{what} is no detector; make it a subclass of okng.detectors.base.Detector")
    return kind


def _card_from_outside(name: str, target: str, idea: str) -> Card:
    title = name.rpartition(":")[2]
    return Card(target, title, "from outside", paper="", year=None, idea=idea, good_for="", localizes=None, labels="")


def _bare(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "").replace(" ", "")


def _fits(value: Any, wanted: Any) -> bool:
    """Whether `value` is of the annotated type; a float is finite, a whole number serves as one, a list as a tuple."""
    origin, inner = typing.get_origin(wanted), typing.get_args(wanted)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, choice) for choice in inner)
    if origin is typing.Literal:
        return value in inner
    if origin is tuple:
        if not isinstance(value, list | tuple):
            return False
        if len(inner) == 2 and inner[1] is Ellipsis:
            return all(_fits(v, inner[0]) for v in value)
        return len(value) == len(inner) and all(_fits(v, w) for v, w in zip(value, inner, strict=True))
    if wanted is float:
        return _fits(value, int) or (isinstance(value, float) and math.isfinite(value))
    if wanted is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, wanted)


def _several(value: Any, wanted: Any) -> Any:
    """`value`, or where the annotation takes several and it is one of them, a tuple of it."""
    several = typing.get_origin(wanted) is tuple and Ellipsis in typing.get_args(wanted)
    return (value,) if several and not isinstance(value, tuple) and _fits(value, typing.get_args(wanted)[0]) else value


def _spell(wanted: Any) -> str:
    """An annotation in words a person can act on."""
    origin, inner = typing.get_origin(wanted), typing.get_args(wanted)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_spell(choice) for choice in inner)
    if origin is typing.Literal:
        return "one of " + ", ".join(str(choice) for choice in inner)
    if origin is tuple and Ellipsis in inner:
        return "a number or several, such as 8,16"
    if origin is tuple:
        return f"numbers such as {','.join(['1'] * len(inner))}"
    names = {
        int: "a whole number",
        float: "a number",
        str: "a text",
        bool: "true or false",
        types.NoneType: "none",
    }
    return names.get(wanted, str(wanted))
