"""The parameters of ``k12cv`` as JSON Schema, in both languages."""

from collections.abc import Mapping
from typing import Any

from k12ai.frameworks.base import EVALUATE, PREDICT, TRAIN, Schema
from k12ai.frameworks.fields import choice, described, document, flag, group, number, text, whole
from k12ai.frameworks.neural import fields
from k12ai.frameworks.neural.fields import AUTO, MAX_ITEMS
from k12ai.texts import Text

DIGITS, FILES = "digits", "files"
CNN, RESNET, PRETRAINED = "cnn", "resnet", "pretrained"
MAX_BASE64 = 4 << 20

DATASETS: Mapping[str, Text] = {
    DIGITS: Text("Handwritten digits, 8 by 8 pixels", "手写数字，8×8 像素"),
    FILES: Text("Pictures of the project, by class", "项目中按类别存放的图片"),
}
MODELS: Mapping[str, Text] = {
    CNN: Text("Small CNN", "小型卷积网络"),
    RESNET: Text("Small ResNet", "小型残差网络"),
    PRETRAINED: Text("A pretrained model of the project", "项目中的预训练模型"),
}
HYPERPARAMETERS: Mapping[str, Mapping[str, Schema]] = {
    CNN: {
        "width": described(
            "Width",
            "宽度",
            "How many filters the first layer has; each further one has twice as many.",
            "第一层的卷积核数，之后每层翻倍。",
        )
        | whole(4, 256, 32),
        "blocks": described("Blocks", "层数", "How many pairs of layers there are.", "有多少组卷积层。")
        | whole(1, 6, 3),
        "dropout": described(
            "Dropout",
            "随机失活",
            "Which part of the last layer is left out at random.",
            "最后一层随机失活的比例。",
        )
        | number(0, 0.9, 0.1),
    },
    RESNET: {
        "width": described(
            "Width",
            "宽度",
            "How many filters the first stage has; each further one has twice as many.",
            "第一级的卷积核数，之后每级翻倍。",
        )
        | whole(4, 256, 16),
        "stages": described("Stages", "级数", "How often the picture is halved.", "图片缩小多少次。")
        | whole(1, 4, 3),
        "depth": described("Depth", "每级块数", "How many blocks each stage has.", "每级有多少个残差块。")
        | whole(1, 8, 1),
    },
    PRETRAINED: {"directory": fields.DIRECTORY, "frozen": fields.FROZEN},
}

_PATH = described(
    "Pictures",
    "图片",
    "A folder or a zip of the project in which each class is a folder.",
    "项目中的文件夹或 zip，其中每个类别一个文件夹。",
) | text(1024)


def defaults_of(model: str) -> dict[str, Any]:
    """Return a model's hyperparameters where nothing else is said."""
    return {name: part["default"] for name, part in HYPERPARAMETERS.get(model, {}).items()}


def _train() -> Schema:
    auto = Text("What is there: the pictures, or the digits", "自动：所给图片或手写数字")
    data = {
        "dataset": described("Data set", "数据集", "What to learn from.", "用什么数据训练。")
        | choice(AUTO, **{AUTO: auto}, **DATASETS),
        "path": _PATH,
        "image_size": described(
            "Size",
            "图片边长",
            "To how many pixels pictures are scaled; 0: what suits the model.",
            "图片缩放到多少像素；0 表示按模型选择。",
        )
        | whole(0, 512, 0),
        "test_fraction": fields.TEST,
        "validation_fraction": fields.VALIDATION,
    }
    augmentation = {
        "flip": described(
            "Flip", "水平翻转", "Whether left and right are exchanged at random.", "是否随机左右翻转。"
        )
        | flag(False),
        "rotate": described(
            "Rotate", "旋转", "By how many degrees pictures are turned at most.", "最多旋转多少度。"
        )
        | number(0, 180, 0),
        "shift": described(
            "Shift", "平移", "By which part of their size pictures are moved at most.", "最多平移边长的多少。"
        )
        | number(0, 0.5, 0),
        "zoom": described("Zoom", "缩放", "By which part pictures are enlarged at most.", "最多放大多少。")
        | number(0, 0.9, 0),
        "brightness": described(
            "Brightness", "亮度", "By which part the brightness changes at most.", "亮度最多变化多少。"
        )
        | number(0, 0.9, 0),
    }
    properties: dict[str, Schema] = {
        "data": group(described("Data", "数据", "What to learn from.", "训练所用的数据。"), data),
        "augmentation": group(
            described(
                "Augmentation",
                "数据增强",
                "How pictures to train with are changed at random.",
                "如何随机改变训练图片。",
            ),
            augmentation,
        ),
        "model": described("Model", "模型", "The network that learns.", "使用的网络。") | choice(CNN, **MODELS),
    }
    for model, parameters in HYPERPARAMETERS.items():
        title = MODELS[model]
        words = described(
            title.en, title.zh, f"Parameters where model is {model}.", f"模型为 {model} 时的参数。"
        )
        properties[model] = group(words, parameters)
    properties |= {
        "training": fields.training(10, 32),
        "save_as": fields.SAVE_AS,
        "seed": fields.SEED,
        "resume": fields.RESUME,
    }
    words = described("Train", "训练", "Trains a model on pictures and saves it.", "用图片训练模型并保存。")
    return document(words, properties)


def _evaluate() -> Schema:
    test = Text("The part it was tested with", "训练时留出的测试数据")
    data = {
        "dataset": described("Data set", "数据集", "What to evaluate with.", "用什么数据评估。")
        | choice(AUTO, **{AUTO: test, FILES: DATASETS[FILES]}),
        "path": _PATH,
    }
    properties = {
        "model": fields.MODEL_NAME,
        "data": group(described("Data", "数据", "What to evaluate with.", "评估所用的数据。"), data),
    }
    return document(
        described("Evaluate", "评估", "Tests a saved model on pictures.", "用图片评估已保存的模型。"),
        properties,
    )


def _predict() -> Schema:
    properties = {
        "model": fields.MODEL_NAME,
        "images": described(
            "Pictures",
            "图片",
            "Pictures to predict, each a file's bytes as base64.",
            "要预测的图片，每张为文件内容的 base64。",
        )
        | {
            "type": "array",
            "maxItems": MAX_ITEMS,
            "items": {"type": "string", "maxLength": MAX_BASE64},
            "default": [],
        },
        "files": described(
            "Files",
            "文件",
            "Pictures of the project, folders and zips of them, instead of images.",
            "项目中的图片、文件夹或 zip，用来代替 images。",
        )
        | {
            "type": "array",
            "maxItems": MAX_ITEMS,
            "items": {"type": "string", "minLength": 1, "maxLength": 1024},
            "default": [],
        },
        "save_as": fields.PREDICTIONS_NAME,
    }
    return document(
        described("Predict", "预测", "Uses a saved model on new pictures.", "用已保存的模型预测新图片。"),
        properties,
    )


def schema(op: str) -> Schema:
    """Return the JSON Schema of an op's parameters."""
    return {TRAIN: _train, EVALUATE: _evaluate, PREDICT: _predict}[op]()
