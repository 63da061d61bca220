# %% [markdown]
# # Tutorial: solar cells
#
# Real photographs of solar cells: learn from good ones, find cracked ones, see where, lower the false alarms, compare
# methods. Run it whole: `python solar_cells.py` takes some minutes on two CPU cores, `python solar_cells.py quick` a
# quarter of a minute, on fewer and smaller images: with so few the p-values and thresholds are coarse. Or copy it
# piece by piece into Python. It writes `solar-cells.webp` and `cells.okng` into the folder where you are.
#
# You need `pip install '.[train,demo]'`. The cells are those of the ELPV data set (CC BY-NC-SA 4.0: not for
# commercial use); so are the pictures on this page.

# %%
import sys
from dataclasses import replace

import okng
from okng.datasets import open_dataset

quick = "quick" in sys.argv
size, part = (64, 20) if quick else (256, 2)

cells = open_dataset("elpv/mono")
print(cells.protocol)
if quick:
    cells = replace(cells, test=cells.test[::10])
ok = [sample.image for sample in cells.train[::part]]
print(len(ok), "OK cells to learn from, such as", ok[0].name)

# %% [markdown]
# We take each second cell, and not the first half: neighbours in a list are often of one panel, and the model has to
# see all that is normal.
#
# ## Learn what OK looks like
#
# `okng.fit` sees OK images alone: files, a folder, or arrays. `size=256` is the side of the square that the network
# looks at; leave it out, and okng decides. The threshold is found by OK cells that the model has *not* learnt, at the
# false-alarm rate that you ask for. "Cross-fitted" means: ten times another tenth of the cells is held out and judged
# by a model of the others. What it promises is one sentence; a guarantee takes `promise="strict"` in Python:

# %%
inspector = okng.fit(ok, size=size, false_alarm_rate=0.05)
print(inspector.promise())

# %% [markdown]
# ## Inspect new cells
#
# A score says how odd a cell is; only the order of scores matters. The p-value is the share of OK cells that look at
# least as odd. At a p-value of 0.05 or less the verdict is NG.

# %%
good = [sample.image for sample in cells.test if sample.label == 0]
cracked = [sample.image for sample in cells.test if sample.label == 1]
seen = list(inspector.inspect([*good[:2], *cracked[:4]]))
for one in seen:
    print(one.verdict, f"score {one.score:.3f}, p-value {one.p_value:.3f}, {len(one.regions)} regions")

# %% [markdown]
# ## See where
#
# The first two cells are OK ones. Where they are called NG, it is a false alarm: more on those below. A cell may be NG
# without a region: the image's score and the heat of a place have thresholds of their own.
#
# `overlay` draws the heatmap over the image and outlines the regions. One scale of heat serves all images of a model,
# so that their colours can be compared. Nothing is coloured where a place looks as usual. Look at it before you trust
# a verdict: an NG for the wrong place is luck, not a find.

# %%
from PIL import Image

from okng.inspection.overlay import heat_range, overlay

low, high = heat_range(inspector.calibration)
picture = Image.new("RGB", (6 * 160, 2 * 160))
for column, one in enumerate(seen):
    cell = Image.open(one.path).convert("RGB")
    heat = overlay(cell, one, low, high)
    for row, part in enumerate((cell, heat)):
        picture.paste(part.resize((156, 156)), (160 * column, 160 * row))
picture.save("solar-cells.webp")  # Six solar cells, two OK and four NG, and below each its heatmap

# %% [markdown]
# ## Measure it
#
# With labelled images you can count. AUROC is the chance that an NG cell has a higher score than an OK one: 0.5 is
# guessing, 1 is perfect. The two shares below it are those of the threshold. Look at the intervals: they say how far
# off a share of so few cells may be.


# %%
def measure(inspector):
    found = okng.evaluate(inspector, cells)
    print(f"AUROC {found['image_auroc']:.3f}, of {found['n_ok']} OK and {found['n_ng']} NG cells")
    for said, share in (("OK cells called NG", "measured_false_alarm"), ("NG cells called NG", "caught")):
        value = found.get(f"{share}_rate", found.get(share))
        least, most = found[f"{share}_interval"]
        print(f"  {said}: {value:.1%}, 95 % interval {least:.1%} to {most:.1%}")


measure(inspector)

# %% [markdown]
# ## Lower the false alarms
#
# **Teach them.** Take half of the OK cells that the model has not seen, find its false alarms there, and teach it
# those. The model learns them without the old images. What counts is the other half: a model must not be measured on
# what it has learnt. On a line a person looks at each image first: what is taught is never found again.

# %%
first, second = good[::2], good[1::2]
alarms = [one.path for one in inspector.inspect(first) if one.is_ng]
print(len(alarms), "false alarms among", len(first))
taught = okng.update(inspector, alarms) if alarms else inspector


def share_ng(inspector, images):
    return sum(one.is_ng for one in inspector.inspect(images)) / len(images)


for said, model in (("before", inspector), ("taught", taught)):
    print(f"{said}: NG are {share_ng(model, second):.1%} of the other OK cells,", end=" ")
    print(f"{share_ng(model, cracked):.1%} of the NG ones")

# %% [markdown]
# Taught cells are OK from now on. For *other* cells a handful changes next to nothing: here each false alarm is odd
# in its own way. Teaching helps where the same thing will come again, such as parts of a new supplier.
#
# **Or ask for fewer.** The threshold is a number in the model. Changing it fits nothing, and the scores stay as they
# are. Fewer false alarms are fewer finds:

# %%
ok_scores, ng_scores = inspector.score_samples(good), inspector.score_samples(cracked)
for rate in (0.1, 0.05, 0.02):
    threshold = inspector.at(rate).calibration.threshold
    print(f"asked {rate:.0%}, threshold {threshold:.3f}: NG are", end=" ")
    print(f"{(ok_scores > threshold).mean():.1%} of the OK cells, {(ng_scores > threshold).mean():.1%} of the NG ones")

# %% [markdown]
# ## Compare two methods
#
# `okng list` has all methods. Here are two of the quickest, on the same cells. On so few cells a difference of 0.01 or
# 0.02 may be luck: `okng.compare` makes a page with paired tests, times, memory and the same heatmaps side by side
# ([guide](../guides/compare.md)).

# %%
for name in ("mahalanobis", "padim"):
    print(name)
    measure(okng.fit(ok, name, size=size))

# %% [markdown]
# ## Keep it
#
# One file has the network, the threshold and the promise. `okng inspect cells.okng FOLDER` takes it from here, or
# [the line](../guides/line.md).

# %%
inspector.save("cells.okng")
print(okng.load("cells.okng"))
