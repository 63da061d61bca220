# %% [markdown]
# # Tutorial: clothes
#
# No defects here but another question: of pictures of clothes, one kind is OK and all others are NG. That is how
# papers test methods for *other kinds of pictures*. It takes plain statistics and seconds, so you can try what each
# figure means.
#
# You need `pip install '.[train]'` and Fashion-MNIST: 70,000 pictures of 28 × 28 px in ten kinds (MIT licence). On
# Debian and Ubuntu `apt install dataset-fashion-mnist` brings it. Elsewhere take the four files whose names end in
# `-ubyte.gz` from github.com/zalandoresearch/fashion-mnist, and run `python clothes.py FOLDER`. The word `quick` at the
# end takes fewer pictures. The script writes `clothes.webp` into the folder where you are.

# %%
import sys
from dataclasses import replace

import numpy as np
from PIL import Image

import okng
from okng.datasets import open_dataset

quick = sys.argv[-1] == "quick"
folder = next((word for word in sys.argv[1:] if word != "quick"), "/usr/share/datasets/fashion-mnist")
KINDS = ("T-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot")

# %% [markdown]
# ## One kind against the rest
#
# `normal="7"` says that kind 7, sneakers, is OK. Of the training pictures only sneakers are learnt; of the test
# pictures all are judged.


# %%
def open_kind(kind):
    data = open_dataset(folder, normal=str(kind))
    few = 200 if quick else 2000
    return replace(data, train=data.train[:few], test=data.test[:: 100 if quick else 5])


shoes = open_kind(7)
print(len(shoes.train), "sneakers to learn from")
print(sum(sample.label == 0 for sample in shoes.test), "sneakers and", end=" ")
print(sum(sample.label == 1 for sample in shoes.test), "other clothes to judge")

# %% [markdown]
# ## Learn
#
# `gaussian` takes all pixels of a picture as one long vector, and learns the mean and how the pixels vary together:
# one Gaussian. The score of a picture is its distance from the mean, in units of that spread (Mahalanobis).

# %%
inspector = okng.fit([sample.image for sample in shoes.train], "gaussian")
print(inspector.promise())

# %% [markdown]
# ## What the figures mean
#
# - **AUROC**: take any sneaker and any other picture. How often has the other one the higher score? 0.5 is
#   guessing, 1 is always. It needs no threshold.
# - **OK called NG** is the false-alarm rate at the threshold. You asked for 5 %. One model may have a little more or
#   less, as the promise says: it is kept on average, over many models and many pictures.
# - **NG called NG** is the share caught at the same threshold. It is the price of that rate, and nobody can promise it.

# %%
found = okng.evaluate(inspector, shoes)
print(f"AUROC {found['image_auroc']:.3f}")
print(f"OK called NG {found['measured_false_alarm_rate']:.1%}")
print(f"NG called NG {found['caught']:.1%}")

# %% [markdown]
# AUROC is only a count of pairs. Here is the same figure by hand:

# %%
seen = list(inspector.inspect([sample.image for sample in shoes.test]))
labels = np.array([sample.label for sample in shoes.test])
scores = np.array([one.score for one in seen])
pairs = scores[labels == 1][:, None] - scores[labels == 0][None, :]  # each NG picture against each OK one
print(f"{(pairs > 0).mean() + (pairs == 0).mean() / 2:.3f}")

# %% [markdown]
# ## Look at what it gets wrong
#
# A figure hides what kind of mistakes there are. Above are the OK pictures with the highest scores, below the NG
# pictures with the lowest.

# %%
worst_ok = sorted(np.flatnonzero(labels == 0), key=lambda place: -scores[place])[:10]
worst_ng = sorted(np.flatnonzero(labels == 1), key=lambda place: scores[place])[:10]
picture = Image.new("L", (10 * 84, 2 * 84))
for row, places in enumerate((worst_ok, worst_ng)):
    for column, place in enumerate(places):
        part = Image.fromarray(shoes.test[place].image)
        picture.paste(part.resize((80, 80)), (84 * column, 84 * row))
picture.save("clothes.webp")  # The ten oddest sneakers, and below the ten other clothes that look least odd
print("the lower row:", ", ".join(KINDS[int(shoes.test[place].kind)] for place in worst_ng))

# %% [markdown]
# ## All ten kinds
#
# A paper's figure is the mean over all kinds, each OK once. One kind alone says little: some are easy. Compare two
# methods kind by kind, not only their means.

# %%
methods = ("gaussian", "isolation_forest")
table = np.zeros((len(KINDS), len(methods)))
for kind in (6,) if quick else range(len(KINDS)):
    data = open_kind(kind)
    for column, name in enumerate(methods):
        model = okng.fit([sample.image for sample in data.train], name)
        table[kind, column] = okng.evaluate(model, data)["image_auroc"]
print(f"{'AUROC':<10}" + "".join(f"{name:>18}" for name in methods))
for kind, row in zip(KINDS, table, strict=True):
    if row.any():
        print(f"{kind:<10}" + "".join(f"{value:>18.3f}" for value in row))
print(f"{'mean':<10}" + "".join(f"{value:>18.3f}" for value in table[table.any(1)].mean(0)))

# %% [markdown]
# ## From here
#
# - Pixels know nothing of shapes: `-p features=tf_efficientnet_lite0` gives these methods a network's features instead
#   ([the arguments](../methods/gaussian.md#arguments)).
# - Networks that learn from such pictures alone: [`geom`](../methods/geom.md), [`deep_svdd`](../methods/deep_svdd.md).
# - The tables of the papers, cell by cell: [Research: reproduce a table](../guides/reproduce.md).
