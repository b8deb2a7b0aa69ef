"""The parameters of ``k12ml`` as JSON Schema, in both languages."""

from collections.abc import Mapping
from typing import Any

from k12ai.frameworks.base import EVALUATE, PREDICT, TRAIN, Schema
from k12ai.frameworks.fields import choice, described, document, flag, group, number, saved_name, text, whole
from k12ai.texts import Text

AUTO = "auto"
CSV = "csv"
CLASSIFICATION, REGRESSION, CLUSTERING = "classification", "regression", "clustering"
MAX_ROWS = 1000

TASKS: Mapping[str, Text] = {
    CLASSIFICATION: Text("Classification: which class", "分类"),
    REGRESSION: Text("Regression: which number", "回归"),
    CLUSTERING: Text("Clustering: which rows are alike", "聚类"),
}
DATASETS: Mapping[str, Text] = {
    "iris": Text("Iris flowers, 3 species", "鸢尾花，3 个品种"),
    "digits": Text("Handwritten digits, 8 by 8 pixels", "手写数字，8×8 像素"),
    "wine": Text("Wines of 3 growers", "葡萄酒，3 个产地"),
    "breast_cancer": Text("Breast tumours, benign or malignant", "乳腺肿瘤，良性或恶性"),
    "moons": Text("Two half moons (generated)", "两个半月形（生成）"),
    "circles": Text("Two circles (generated)", "两个同心圆（生成）"),
    "blobs": Text("Heaps of points (generated)", "点堆（生成）"),
    "diabetes": Text("Diabetes, progress after a year", "糖尿病，一年后的病情"),
    "waves": Text("A noisy wave (generated)", "带噪声的波形（生成）"),
    CSV: Text("A CSV file of the project", "项目中的 CSV 文件"),
}
_CLASSES = ("iris", "digits", "wine", "breast_cancer", "moons", "circles", "blobs")
DATASETS_OF = {
    CLASSIFICATION: (*_CLASSES, CSV),
    REGRESSION: ("diabetes", "waves", CSV),
    CLUSTERING: (*_CLASSES, CSV),
}
DEFAULT_DATASETS = {CLASSIFICATION: "iris", REGRESSION: "diabetes", CLUSTERING: "blobs"}

MODELS: Mapping[str, Text] = {
    "decision_tree": Text("Decision tree", "决策树"),
    "random_forest": Text("Random forest", "随机森林"),
    "hist_gradient_boosting": Text("Gradient boosting", "梯度提升树"),
    "ada_boost": Text("AdaBoost", "AdaBoost"),
    "knn": Text("Nearest neighbours", "K 近邻"),
    "naive_bayes": Text("Naive Bayes", "朴素贝叶斯"),
    "svm": Text("Support vector machine", "支持向量机"),
    "logistic": Text("Logistic regression", "逻辑回归"),
    "linear": Text("Linear regression", "线性回归"),
    "ridge": Text("Ridge regression", "岭回归"),
    "k_means": Text("K-means", "K 均值"),
}
_BOTH = ("decision_tree", "random_forest", "hist_gradient_boosting", "ada_boost", "knn", "svm")
MODELS_OF = {
    CLASSIFICATION: (*_BOTH, "naive_bayes", "logistic"),
    REGRESSION: (*_BOTH, "linear", "ridge"),
    CLUSTERING: ("k_means",),
}
DEFAULT_MODELS = {CLASSIFICATION: "random_forest", REGRESSION: "random_forest", CLUSTERING: "k_means"}


_DEPTH = described(
    "Depth", "最大深度", "How deep a tree may grow; 0: no limit.", "树的最大深度；0 表示不限制。"
)
_LEAF = described(
    "Rows in a leaf",
    "叶节点最少样本数",
    "How many rows a leaf has at least; more of them makes it simpler.",
    "每个叶节点至少包含的样本数，越大模型越简单。",
)
_RATE = described(
    "Learning rate",
    "学习率",
    "How much each round counts; a small one needs more rounds.",
    "每一轮的权重；越小需要的轮数越多。",
)
_ROUNDS = described("Rounds", "轮数", "How many trees are added one after another.", "依次加入多少棵树。")
_C = described(
    "C",
    "C（惩罚系数）",
    "How much errors count against simplicity; large fits closer.",
    "对错误的惩罚强度；越大越贴合训练数据。",
)
_ITERATIONS = described("Iterations", "最大迭代次数", "After how many iterations it ends.", "最多迭代多少次。")

HYPERPARAMETERS: Mapping[str, Mapping[str, Schema]] = {
    "decision_tree": {
        "max_depth": _DEPTH | whole(0, 50, 0),
        "min_samples_leaf": _LEAF | whole(1, 1000, 1),
    },
    "random_forest": {
        "trees": described("Trees", "树的数量", "How many trees vote.", "有多少棵树参与投票。")
        | whole(1, 1000, 100),
        "max_depth": _DEPTH | whole(0, 50, 0),
        "min_samples_leaf": _LEAF | whole(1, 1000, 1),
        "max_features": described(
            "Columns per split",
            "每次划分的特征数",
            "Among how many columns a split chooses.",
            "每次划分时从多少个特征中选择。",
        )
        | choice(
            AUTO,
            auto=Text("As usual for the task", "按任务默认"),
            sqrt=Text("Square root of all", "全部的平方根"),
            log2=Text("Logarithm of all", "全部的对数"),
            all=Text("All", "全部"),
        ),
    },
    "hist_gradient_boosting": {
        "rounds": _ROUNDS | whole(1, 1000, 100),
        "learning_rate": _RATE | number(0.001, 1, 0.1),
        "max_leaf_nodes": described(
            "Leaves", "最大叶节点数", "How many leaves a tree may have.", "每棵树最多的叶节点数。"
        )
        | whole(2, 255, 31),
        "min_samples_leaf": _LEAF | whole(1, 1000, 20),
        "l2": described("L2", "L2 正则化", "How much large values are punished.", "对过大取值的惩罚强度。")
        | number(0, 1000, 0),
        "early_stopping": described(
            "Stop early",
            "提前停止",
            "Keeps a tenth of the rows aside, and ends when ten rounds have not helped there.",
            "留出十分之一的训练数据，若连续 10 轮没有改进则停止。",
        )
        | flag(False),
    },
    "ada_boost": {
        "rounds": _ROUNDS | whole(1, 500, 50),
        "learning_rate": _RATE | number(0.001, 5, 1),
        "max_depth": described(
            "Depth", "最大深度", "How deep each small tree may grow.", "每棵小树的最大深度。"
        )
        | whole(1, 10, 1),
    },
    "knn": {
        "neighbors": described(
            "Neighbours", "近邻数", "How many nearest rows are asked.", "参考多少个最近的样本。"
        )
        | whole(1, 100, 5),
        "weights": described("Weights", "权重", "Whether nearer rows count more.", "更近的样本是否更重要。")
        | choice("uniform", uniform=Text("All the same", "相同"), distance=Text("By distance", "按距离")),
        "metric": described("Distance", "距离", "How distance is measured.", "如何计算距离。")
        | choice(
            "euclidean",
            euclidean=Text("Straight line", "欧氏距离"),
            manhattan=Text("City blocks", "曼哈顿距离"),
        ),
    },
    "naive_bayes": {
        "smoothing": described(
            "Smoothing",
            "平滑系数",
            "How much the spread of the widest column is added to all.",
            "把最大方差的这一比例加到所有特征上。",
        )
        | number(1e-12, 1, 1e-9),
    },
    "svm": {
        "c": _C | number(0.001, 1000, 1),
        "kernel": described("Kernel", "核函数", "How two rows are compared.", "如何比较两个样本。")
        | choice(
            "rbf",
            rbf=Text("Gaussian", "高斯核"),
            linear=Text("Linear", "线性核"),
            poly=Text("Polynomial", "多项式核"),
            sigmoid=Text("Sigmoid", "Sigmoid 核"),
        ),
        "gamma": described(
            "Gamma",
            "Gamma",
            "How near rows must be to matter to each other, unless linear; 0: from the data.",
            "样本的影响范围（线性核不用）；0 表示由数据决定。",
        )
        | number(0, 100, 0),
        "degree": described("Degree", "多项式次数", "The power of the polynomial kernel.", "多项式核的次数。")
        | whole(1, 6, 3),
    },
    "logistic": {"c": _C | number(0.001, 1000, 1), "max_iterations": _ITERATIONS | whole(10, 5000, 200)},
    "ridge": {
        "alpha": described(
            "Alpha", "Alpha（正则化强度）", "How much large weights are punished.", "对过大权重的惩罚强度。"
        )
        | number(0, 1_000_000, 1),
    },
    "k_means": {
        "clusters": described("Clusters", "聚类数", "How many clusters to look for.", "要寻找多少个类。")
        | whole(2, 50, 3),
        "restarts": described(
            "Restarts",
            "重复次数",
            "How often it begins anew; the best is kept.",
            "从不同起点重复的次数，保留最好的一次。",
        )
        | whole(1, 50, 10),
        "max_iterations": _ITERATIONS | whole(10, 1000, 300),
    },
}


def defaults_of(model: str) -> dict[str, Any]:
    """Return a model's hyperparameters where nothing else is said."""
    return {name: part["default"] for name, part in HYPERPARAMETERS.get(model, {}).items()}


_TARGET = described(
    "Target",
    "目标列",
    "The column of the CSV to predict; empty: the last one, and none for clustering.",
    "CSV 中要预测的列；留空表示最后一列，聚类时表示没有。",
) | text(200)
_FILE = described(
    "File", "文件", "The CSV, as its path inside of the project.", "CSV 文件在项目中的路径。"
) | text(1024)
_HEADER = described(
    "Names first", "首行为列名", "Whether the first line of the CSV has the names.", "CSV 的第一行是否为列名。"
) | flag(True)
_MODEL_NAME = described("Model", "模型", "The name it was saved under.", "保存模型时使用的名称。") | saved_name(
    "model"
)


def _train_data() -> Schema:
    auto = Text("What fits: the file, or a small set", "自动：所给文件或适合任务的小数据集")
    properties = {
        "dataset": described("Data set", "数据集", "What to learn from.", "用什么数据训练。")
        | choice(AUTO, **{AUTO: auto}, **DATASETS),
        "file": _FILE,
        "target": _TARGET,
        "features": described(
            "Columns",
            "特征列",
            "The columns to learn from; empty: all others.",
            "用来学习的列；留空表示其余所有列。",
        )
        | {
            "type": "array",
            "items": {"type": "string", "maxLength": 200},
            "maxItems": 2000,
            "uniqueItems": True,
            "default": [],
        },
        "header": _HEADER,
        "test_fraction": described(
            "Test part", "测试集比例", "Which part is kept aside to test with.", "留作测试的数据比例。"
        )
        | number(0.05, 0.5, 0.25),
        "samples": described("Rows", "样本数", "How many rows are generated.", "生成多少个样本。")
        | whole(50, 20_000, 400),
        "noise": described("Noise", "噪声", "How blurred generated data is.", "生成数据的噪声大小。")
        | number(0, 1, 0.2),
    }
    return group(described("Data", "数据", "What to learn from.", "训练所用的数据。"), properties)


def _train() -> Schema:
    auto = Text("What fits the task", "按任务自动选择")
    properties: dict[str, Schema] = {
        "task": described("Task", "任务类型", "What the model is to find out.", "模型要解决的问题。")
        | choice(CLASSIFICATION, **TASKS),
        "data": _train_data(),
        "model": described("Model", "模型", "The method that learns.", "使用的学习方法。")
        | choice(AUTO, **{AUTO: auto}, **MODELS),
    }
    for name, parameters in HYPERPARAMETERS.items():
        title = MODELS[name]
        words = described(title.en, title.zh, f"Parameters where model is {name}.", f"模型为 {name} 时的参数。")
        properties[name] = group(words, parameters)
    properties |= {
        "save_as": described(
            "Save as", "保存为", "The model goes to models/NAME.skops.", "模型保存为 models/名称.skops。"
        )
        | saved_name("model"),
        "seed": described(
            "Seed", "随机种子", "The same seed gives the same result again.", "相同的种子得到相同的结果。"
        )
        | whole(0, 2**31 - 1, 0),
        "importance": described(
            "Importance of columns",
            "特征重要性",
            "Whether to find out which columns matter.",
            "是否计算各列的重要程度。",
        )
        | flag(True),
        "learning_curve": described(
            "Learning curve",
            "学习曲线",
            "Whether to train on 10, 25, 50, 75 and 100 % of the rows as well.",
            "是否另外用 10%、25%、50%、75% 和 100% 的数据训练。",
        )
        | flag(False),
    }
    return document(described("Train", "训练", "Trains a model and saves it.", "训练模型并保存。"), properties)


def _evaluate() -> Schema:
    test = Text("The part it was tested with", "训练时留出的测试数据")
    data = {
        "dataset": described("Data set", "数据集", "What to evaluate with.", "用什么数据评估。")
        | choice(AUTO, **{AUTO: test, CSV: DATASETS[CSV]}),
        "file": _FILE,
        "header": _HEADER,
    }
    properties = {
        "model": _MODEL_NAME,
        "data": group(described("Data", "数据", "What to evaluate with.", "评估所用的数据。"), data),
    }
    words = described("Evaluate", "评估", "Tests a saved model on data.", "用数据评估已保存的模型。")
    return document(words, properties)


def _predict() -> Schema:
    cell = {"type": ["string", "number", "boolean", "null"], "maxLength": 10_000}
    rows = {
        "type": "array",
        "maxItems": MAX_ROWS,
        "items": {"type": ["object", "array"], "additionalProperties": cell, "items": cell, "maxItems": 2000},
        "default": [],
    }
    properties = {
        "model": _MODEL_NAME,
        "rows": described(
            "Rows",
            "样本",
            'Rows to predict, as {"column": value} or as a list in the order of the columns.',
            '要预测的样本，写成 {"列名": 值} 或按列顺序的列表。',
        )
        | rows,
        "file": described(
            "File", "文件", "A CSV of the project, instead of rows.", "项目中的 CSV 文件，用来代替 rows。"
        )
        | text(1024),
        "header": _HEADER,
        "save_as": described(
            "Save as",
            "保存为",
            "All of it goes to predictions/NAME.csv.",
            "全部结果保存为 predictions/名称.csv。",
        )
        | saved_name("predictions"),
    }
    return document(
        described("Predict", "预测", "Uses a saved model on new rows.", "用已保存的模型预测新数据。"),
        properties,
    )


def schema(op: str) -> Schema:
    """Return the JSON Schema of an op's parameters."""
    return {TRAIN: _train, EVALUATE: _evaluate, PREDICT: _predict}[op]()
