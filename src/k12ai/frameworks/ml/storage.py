"""Models on disk: what skops writes, which runs no code when it is read, and what it was trained on."""

import platform
import re
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import sklearn
import skops
import skops.io
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import LabelEncoder, OneHotEncoder, StandardScaler

from k12ai.frameworks import csvfile
from k12ai.frameworks.fields import NAME_PATTERN
from k12ai.frameworks.ml.models import ESTIMATORS, Estimator
from k12ai.frameworks.ml.preparing import Column
from k12ai.frameworks.problems import NO_FILE, VALUE, DataProblem, Notes, refuse

FOLDER = "models"
MAX_UNPACKED_BYTES = 1 << 30

# Whatever a file names is on these lists, or nothing of it is built. skops' own list is far longer.
_TREE = "sklearn.tree._tree.Tree"
_PREDICTOR = "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor"
_BINS = "sklearn.ensemble._hist_gradient_boosting.binning._BinMapper"
_PARTS: tuple[type, ...] = (
    ColumnTransformer,
    LabelEncoder,
    OneHotEncoder,
    Pipeline,
    SimpleImputer,
    StandardScaler,
    *ESTIMATORS,
)
_NAMES = frozenset({f"{part.__module__}.{part.__name__}" for part in _PARTS} | {_TREE, _PREDICTOR, _BINS})
_LOSS = re.compile(r"sklearn\._loss\.|_loss\.Cy\w+$")  # older ones leave out where it lies; skops knows
_VALUES = frozenset(
    f"builtins.{name}" for name in ("str", "int", "float", "bool", "dict", "list", "tuple", "slice")
)
_ARRAYS = re.compile(
    r"numpy\.(ndarray|dtype|bool_?|object_|str_|u?int\d+|float\d+|random\._generator\.Generator)"
)
_BIT_GENERATORS = re.compile(r"numpy\.random\.\w+\.(PCG64|PCG64DXSM|MT19937|Philox|SFC64)")
_LOADERS = frozenset(
    {
        "CachedNode",
        "DTypeNode",
        "DictNode",
        "JsonNode",
        "ListNode",
        "LossNode",
        "NdArrayNode",
        "ObjectNode",
        "RandomGeneratorNode",
        "SliceNode",
        "TreeNode",
        "TupleNode",
        "TypeNode",
    }
)


class Card(msgspec.Struct, frozen=True, kw_only=True):
    """What a model was trained on, and how good it was then."""

    task: str
    model: str
    parameters: dict[str, Any]
    data: dict[str, Any]
    seed: int
    columns: list[Column]
    target: str = ""
    classes: list[int | str] | None = None
    rows: dict[str, int] = {}
    sha256: str = ""
    scores: dict[str, Any] = {}
    versions: dict[str, str] = {}


def versions() -> dict[str, str]:
    """Return the versions of what a model depends on."""
    return {
        "python": platform.python_version(),
        "scikit-learn": sklearn.__version__,
        "numpy": np.__version__,
        "skops": skops.__version__,
    }


def save(name: str, model: Estimator, card: Card) -> list[str]:
    """Write a model and its card; there is the old pair or the new one, never half of a file."""
    folder = csvfile.inside(FOLDER)
    folder.mkdir(exist_ok=True)
    model_file, card_file = _files(name)
    with csvfile.replacing(model_file) as path:
        skops.io.dump(model, path, compression=zipfile.ZIP_DEFLATED)
    with csvfile.replacing(card_file) as path:
        path.write_bytes(msgspec.json.format(msgspec.json.encode(card), indent=2))
    return [f"{FOLDER}/{name}.skops", f"{FOLDER}/{name}.json"]


def load(name: str, notes: Notes) -> tuple[Estimator, Card]:
    """Return a saved model and its card. Raises `DataProblem` where they are absent, foreign or hostile."""
    model_file, card_file = _files(name)
    if not model_file.is_file() or not card_file.is_file():
        there = sorted(path.stem for path in csvfile.inside(FOLDER).glob("*.skops"))
        known = ", ".join(there[:20])
        refuse(
            f"There is no model named {name!r} in the project.",
            f"项目中没有名为 {name!r} 的模型。",
            code=NO_FILE,
            step=(f"Use one that is there: {known}.", f"请使用已有的模型：{known}。")
            if there
            else ("Train one first.", "请先训练一个模型。"),
        )
    try:
        card = msgspec.json.decode(card_file.read_bytes(), type=Card)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise _refused(name, f"{name}.json is not what training has written") from None
    model = _loaded(name, model_file)
    if card.versions.get("scikit-learn") != sklearn.__version__:
        old = card.versions.get("scikit-learn", "?")
        notes.add(
            f"The model was trained with scikit-learn {old}, this is {sklearn.__version__}; train it again.",
            f"该模型由 scikit-learn {old} 训练，当前版本为 {sklearn.__version__}，建议重新训练。",
        )
    return model, card


def _files(name: str) -> tuple[Path, Path]:
    assert re.fullmatch(NAME_PATTERN, name), name
    return csvfile.inside(f"{FOLDER}/{name}.skops"), csvfile.inside(f"{FOLDER}/{name}.json")


def _refused(name: str, why: str) -> DataProblem:
    return DataProblem(
        f"The model {name!r} cannot be trusted and was not loaded: {why}.",
        f"模型 {name!r} 不可信，未加载：{why}。",
        code=VALUE,
        step=("Train it again here.", "请在本平台重新训练。"),
    )


# --- reading what somebody may have forged ---------------------------------------------------------


def _loaded(name: str, file: Path) -> Estimator:
    try:
        _check_names(name, file)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the card tells of another version, in both languages
            model = skops.io.load(file, trusted=sorted(set(skops.io.get_untrusted_types(file=file))))
        is_whole = isinstance(model, Pipeline) and [each[0] for each in model.steps] == ["prepare", "model"]
        if not is_whole or not isinstance(model.steps[1][1], ESTIMATORS):
            raise _refused(name, "it is no model that training has saved")
        _check_trees(name, model.steps[1][1])
    except DataProblem:
        raise
    except Exception as error:
        # The file may be anything, and so may be what reading it trips over.
        raise _refused(name, f"the file is damaged ({type(error).__name__})") from error
    return model


def _check_names(name: str, file: Path) -> None:
    """Refuse a file that names anything which is not on the lists, before anything is built of it."""
    with zipfile.ZipFile(file) as archive:
        if sum(member.file_size for member in archive.infolist()) > MAX_UNPACKED_BYTES:
            raise _refused(name, "it is too large")
        schema = msgspec.json.decode(archive.read("schema.json"))
    waiting = [schema]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            if "__loader__" in node or "__class__" in node:
                _check_node(name, node)
            waiting += node.values()
        elif isinstance(node, list):
            waiting += node


def _check_node(name: str, node: dict[str, Any]) -> None:
    loader, of = node.get("__loader__"), f"{node.get('__module__')}.{node.get('__class__')}"
    if loader == "CachedNode":
        return
    is_known = of in _NAMES or of in _VALUES or _LOSS.match(of) or _ARRAYS.fullmatch(of)
    if loader not in _LOADERS or not (is_known or _BIT_GENERATORS.fullmatch(of)):
        raise _refused(name, f"it has {of[:100]!r} ({str(loader)[:40]})")


def _check_trees(name: str, model: Estimator) -> None:
    """Refuse trees that lead outside of their arrays: scikit-learn follows them without looking."""
    for tree in _trees(model):
        count = tree.node_count
        inner = np.flatnonzero(tree.children_left != -1)
        children = np.stack([tree.children_left[inner], tree.children_right[inner]])
        features = tree.feature[inner]
        if not _leads_on(inner, children, count) or not _within(features, tree.n_features):
            raise _refused(name, "its trees are broken")
    for rounds in getattr(model, "_predictors", ()):
        for predictor in rounds:
            nodes = predictor.nodes
            inner = np.flatnonzero(nodes["is_leaf"] == 0)
            children = np.stack([nodes["left"][inner], nodes["right"][inner]]).astype(np.int64)
            features = nodes["feature_idx"][inner]
            if nodes["is_categorical"].any() or not len(nodes) or not _leads_on(inner, children, len(nodes)):
                raise _refused(name, "its trees are broken")
            if not _within(features, model.n_features_in_):
                raise _refused(name, "its trees are broken")


def _trees(model: Estimator) -> Iterator[Any]:
    for each in [model, *getattr(model, "estimators_", ())]:
        if (tree := getattr(each, "tree_", None)) is not None:
            yield tree


def _leads_on(inner: Any, children: Any, count: int) -> bool:
    """Return whether every child comes after its parent: no walk through such a tree is endless."""
    return bool((children > inner).all() and (children < count).all())


def _within(features: Any, count: int) -> bool:
    return bool((features >= 0).all() and (features < count).all())
