"""okng's methods beside their public code: the same images, backbone, weights, batches and steps.

    python benchmarks/official.py CHECKOUTS DATA [--only METHOD …] [--seeds 0 1 2] [--same]

CHECKOUTS holds the repositories of official_code.py under their own names, at the commits that it names; DATA holds
mvtec_ad/transistor. FastFlow needs anomalib 2.7.0, CFLOW FrEIA 0.2, and the authors' imports OpenCV, pandas,
scikit-image and matplotlib. 192 OK images are learnt at 128 px and the 100 test images scored, by both, and okng's
metrics judge both. Every fit ends with its last epoch.

`--same` measures instead how far both compute the same, for eight methods: from the same first weights both take the
same steps on the same batches, and then score the test images. Writes results/official.csv.
"""

from __future__ import annotations

import argparse
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import RESULTS, row
from official_code import OFFICIAL, Official, Rectified, seeded, stay_on_cpu
from peer_worker import judged
from torch import Tensor, nn

from okng.benchmark.rows import read_rows, write_rows
from okng.datasets import open_dataset
from okng.detectors.base import Batch, Detector, Train
from okng.detectors.catalogue import create, detector_class
from okng.inspection.reading.images import Preprocess
from okng.training.images.data import TrainingImages
from okng.training.loop.phases import run_phases

PATH = RESULTS / "official.csv"
# Others than those of okng's own figures, for which nobody may take these.
COLUMNS = (
    "experiment", "method", "implementation", "dataset", "protocol", "figure", "value", "arguments", "seed", "seconds",
    "command", "code", "versions", "machine", "date",
)  # fmt: skip
KEY = ("experiment", "seed", "implementation", "figure")
LEARNT, SIZE = 192, 128
SAME_STEPS, SAME_BATCH = 20, 16
SLOW = ("mkd", "draem", "cutpaste", "patch_svdd")  # whose networks learn from pixels: 8 steps of 8 images
PRECISE = ("reverse_distillation", *SLOW)  # in float64, for of these rounding to float32 alone soon parts the two
# Sizes for one core; batches and optimisers as the authors', but for what is said in docs/benchmarks.md.
SETTINGS: dict[str, dict[str, Any]] = {
    "reverse_distillation": {"strides": (4, 8, 16), "epochs": 10, "batch_size": 16, "learning_rate": 5e-3},
    "cflow": {"blocks": 4, "condition": 32, "epochs": 12, "batch_size": 1, "learning_rate": 2e-3},
    "fastflow": {"strides": (8, 16), "flow_steps": 4, "epochs": 24, "batch_size": 32, "learning_rate": 5e-3},
    "csflow": {"stride": 16, "kernels": (3, 3), "hidden": 64, "epochs": 10, "batch_size": 16, "learning_rate": 1e-3},
    "mkd": {"strides": (2, 4, 8, 16), "width": 16, "magnitude_weight": 0.5, "learning_rate": 1e-3},
    "draem": {"width": 8, "discriminator_width": 8, "window": 11, "learning_rate": 1e-3},
    "cutpaste": {"backbone": "resnet18", "head": (512, 128), "learning_rate": 0.03},
    "patch_svdd": {"patch": 64, "code": 64, "svdd_weight": 0.001, "samples": 1, "learning_rate": 1e-3},
}  # fmt: skip
FITTED = ("reverse_distillation", "cflow", "fastflow")  # by both sides' whole training
SIZES = {"cutpaste": 96, "patch_svdd": 256}
RECTIFIED = ("reverse_distillation", "mkd")  # methods whose authors' decoders end in a ReLU


def line(experiment: str, method: str, dataset: str, protocol: str, figure: str, value: str, **more: Any) -> dict:
    """A row of results/official.csv."""
    known = row(experiment, method, dataset, protocol, figure, 0.0, **more)
    return {**{key: known.get(key, "") for key in COLUMNS}, "method": method, "figure": figure, "value": value}


def arguments(method: str) -> dict[str, Any]:
    size = SIZES.get(method, SIZE)
    shape = {"image_size": (size, size)} if method in ("fastflow", "draem", "patch_svdd") else {}
    return {**SETTINGS[method], **shape}


def told(method: str) -> dict[str, Any]:
    return {**SETTINGS[method], "size": SIZES.get(method, SIZE)}


def preprocessing(method: str) -> Preprocess:
    return Preprocess("RGB", (SIZES.get(method, SIZE),) * 2)


def pixels(samples: Any, preprocess: Preprocess) -> Tensor:
    """(N, 3, H, W) in [0, 1], as okng decodes and resizes them."""
    arrays = np.stack([preprocess.load(sample.image)[0] for sample in samples])
    return torch.from_numpy(arrays).permute(0, 3, 1, 2).contiguous().to(torch.get_default_dtype()) / 255


def built(method: str) -> Detector:
    """okng's, before it learns; of methods whose authors' decoders end in a ReLU the teacher does, too."""
    import importlib

    module = importlib.import_module(detector_class(method).__module__)
    before = getattr(module, "Backbone", None)
    if method in RECTIFIED:
        module.Backbone = Rectified  # type: ignore[attr-defined]
    try:
        return create(method, **arguments(method))
    finally:
        if before is not None:
            module.Backbone = before  # type: ignore[attr-defined]


def scored(detector: Detector, images: Tensor) -> tuple[np.ndarray, np.ndarray | None]:
    detector.eval()
    with torch.no_grad():
        found = [detector(part) for part in images.split(5)]
    scores = torch.cat([each.image for each in found]).numpy()
    return scores, None if found[0].map is None else torch.cat([each.map for each in found]).numpy()


def theirs(method: str, checkouts: Path) -> Official:
    kind = OFFICIAL[method]
    return kind(checkouts / kind.folder, SETTINGS[method], SIZES.get(method, SIZE))


def ours_fitted(method: str, samples: Any, seed: int) -> Detector:
    preprocess = preprocessing(method)
    torch.manual_seed(seed)
    detector = built(method)
    run_phases(detector, TrainingImages(samples, preprocess), seed=seed, device="cpu")
    return detector


def compared(method: str, dataset: Any, seed: int, asked: argparse.Namespace) -> list[dict]:
    """The rows of one seed."""
    learnt, rows = dataset.train[:LEARNT], []
    test = pixels(dataset.test, preprocessing(method))
    for side in asked.whose:
        start = time.monotonic()
        if side == "okng":
            detector = ours_fitted(method, [sample.image for sample in learnt], seed)
            seconds, (scores, maps) = time.monotonic() - start, scored(detector, test)
        else:
            seeded(seed)
            official = theirs(method, asked.checkouts)
            seeded(seed)
            official.fit(pixels(learnt, preprocessing(method)))
            seconds, (scores, maps) = time.monotonic() - start, official.scores(test)
        figures = judged(dataset.test, list(scores), [] if maps is None else list(maps))
        kind = OFFICIAL[method]
        named = "okng" if side == "okng" else f"{kind.repository}@{kind.commit[:7]}"
        print(
            method,
            seed,
            named,
            {key: round(value, 4) for key, value in figures.items()},
            f"{seconds:.0f} s",
            flush=True,
        )
        more = {
            "seed": str(seed), "seconds": f"{seconds:.1f}", "arguments": told(method),
            "command": f"python benchmarks/official.py CHECKOUTS DATA --only {method} --seeds {seed}",
            "implementation": named,
        }  # fmt: skip
        place = (f"official-{method}", method, dataset.name, f"The first {LEARNT} OK images learnt, all test images.")
        rows += [line(*place, figure, f"{value:.4f}", **more) for figure, value in figures.items()]
    return rows


def given_over(official: Official, detector: Detector) -> None:
    """okng's networks get the authors' weights."""
    for one, other in official.pairs(detector):
        mine = other.state_dict()
        taken = list(one.state_dict().values())
        if [tuple(t.shape) for t in taken] != [tuple(t.shape) for t in mine.values()]:
            raise SystemExit(f"{one} and {other} differ in shape")
        other.load_state_dict(dict(zip(mine, taken, strict=True)))


def same(method: str, dataset: Any, checkouts: Path) -> list[dict]:
    """How far both go the same way, from the same first weights by the same batches, at one rate."""
    from scipy.stats import spearmanr

    kind = torch.float64 if method in PRECISE else torch.float32
    torch.set_default_dtype(kind)
    learnt = pixels(dataset.train[:LEARNT], preprocessing(method))
    test = pixels(dataset.test, preprocessing(method))
    seeded(0)
    official, detector = theirs(method, checkouts), built(method)
    for module in official.modules:
        module.to(kind)
    given_over(official, detector)
    phases = detector.phases()
    phase = next(phase for phase in phases if isinstance(phase, Train))
    (update,) = phase.updates
    for module in (*official.modules, *phase.trains):
        module.train()
    falls: list[tuple[float, float]] = []
    steps, count = (8, 8) if method in SLOW else (SAME_STEPS, SAME_BATCH)
    for number in range(steps):
        chosen = torch.randperm(len(learnt), generator=torch.Generator().manual_seed(number))[:count]
        images = learnt[chosen]
        with torch.no_grad():
            prepared = tuple(phase.prepare(images)) if phase.prepare else ()
        views: tuple[Tensor, ...] = ()
        if phase.augment:
            torch.set_default_dtype(torch.float32)  # torchvision turns nothing else
            pairs = zip(images.float(), chosen.tolist(), strict=True)
            made = [phase.augment(image, torch.Generator().manual_seed(place)) for image, place in pairs]
            torch.set_default_dtype(kind)
            views = tuple(cast(torch.stack(parts), kind) for parts in zip(*made, strict=True))
        batch = Batch(images, chosen, prepared, views=views)
        inputs = official.as_theirs(detector, batch)
        loss = update.loss(batch)
        loss = sum(loss.values()) if isinstance(loss, dict) else loss
        update.optimizer.zero_grad()
        loss.backward()
        if update.clip is not None:
            nn.utils.clip_grad_norm_(
                [p for group in update.optimizer.param_groups for p in group["params"]], update.clip
            )
        update.optimizer.step()
        falls.append((official.step(inputs), float(loss.detach())))
    for module in (*official.modules, *phase.trains):
        module.eval()
    print(
        method,
        "losses, theirs and okng's, at the first, second and last step:",
        falls[0],
        falls[1],
        falls[-1],
        flush=True,
    )
    gaps = [abs(a - falls[0][0] - b + falls[0][1]) for a, b in falls]  # some leave a constant out of a likelihood
    found = {"fall_of_theirs": falls[0][0] - falls[-1][0], "largest_gap": max(gaps)}
    with suppress(NotImplementedError):
        both = official.scores(test), scored_after(phases, detector, learnt, test)
        found["rank_correlation"] = float(spearmanr(both[0][0], both[1][0]).statistic)
        for side, (scores, maps) in zip(("theirs", "okng"), both, strict=True):
            figures = judged(dataset.test, list(scores), [] if maps is None else list(maps))
            found |= {f"{side}_{name}": value for name, value in figures.items()}
    print(method, found, flush=True)
    named = f"{official.repository}@{official.commit[:7]}"
    more = {
        "arguments": told(method), "seed": "0", "seconds": "",
        "command": f"python benchmarks/official.py CHECKOUTS DATA --only {method} --same",
        "implementation": f"{named} and okng",
    }  # fmt: skip
    protocol = (
        f"The same first weights and {steps} batches of {count} OK images, in {str(kind)[6:]}; all test images scored."
    )
    place = (f"same-{method}", method, dataset.name, protocol)
    return [line(*place, figure, f"{value:.6g}", **more) for figure, value in found.items()]


def cast(values: Tensor, kind: torch.dtype) -> Tensor:
    return values.to(kind) if values.is_floating_point() else values


def scored_after(phases: Any, detector: Detector, learnt: Tensor, test: Tensor) -> tuple[np.ndarray, np.ndarray | None]:
    """Scores once the phases after the training have collected what they need."""
    with torch.no_grad():
        for phase in phases:
            for part in learnt.split(16):
                index = torch.arange(len(part))
                phase.visit(Batch(part, index, tuple(phase.prepare(part)) if phase.prepare else ()))
            phase.finish()
    return scored(detector, test)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkouts", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--only", nargs="+", choices=SETTINGS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--whose", nargs="+", default=["okng", "official"], choices=["okng", "official"])
    parser.add_argument("--same", action="store_true")
    asked = parser.parse_args()
    stay_on_cpu()
    dataset = open_dataset(str(asked.data / "mvtec_ad" / "transistor"))
    for seed in [0] if asked.same else asked.seeds:
        for method in asked.only or (SETTINGS if asked.same else FITTED):
            if not asked.same and method not in FITTED:
                raise SystemExit(f"{method} is compared with --same alone")
            rows = same(method, dataset, asked.checkouts) if asked.same else compared(method, dataset, seed, asked)
            new = {tuple(r[key] for key in KEY) for r in rows}
            others = [r for r in read_rows(PATH) if tuple(r[key] for key in KEY) not in new]
            write_rows(PATH, COLUMNS, [*others, *rows])


if __name__ == "__main__":
    main()
