"""The parameters of every training with PyTorch, as JSON Schema."""

from collections.abc import Mapping

from k12ai.frameworks.base import Schema
from k12ai.frameworks.fields import choice, described, flag, group, number, saved_name, text, whole
from k12ai.texts import Text

AUTO = "auto"
MAX_ITEMS = 1000

SEED = described(
    "Seed", "随机种子", "The same seed gives the same result again.", "相同的种子得到相同的结果。"
) | whole(0, 2**31 - 1, 0)
MODEL_NAME = described("Model", "模型", "The name it was saved under.", "保存模型时使用的名称。") | saved_name(
    "model"
)
PREDICTIONS_NAME = described(
    "Save as",
    "保存为",
    "All of it goes to predictions/NAME.csv.",
    "全部结果保存为 predictions/名称.csv。",
) | saved_name("predictions")
SAVE_AS = described(
    "Save as", "保存为", "The model goes to the folder models/NAME.", "模型保存到文件夹 models/名称。"
) | saved_name("model")
RESUME = described(
    "Go on",
    "继续训练",
    "Whether to go on where a training with the same parameters was stopped.",
    "是否从相同参数的上次训练停下的地方继续。",
) | flag(True)
DIRECTORY = described(
    "Directory",
    "模型目录",
    "Where model is pretrained: its directory in the project, with config.json and model.safetensors.",
    "模型为 pretrained 时：它在项目中的目录，其中有 config.json 和 model.safetensors。",
) | text(1024)
FROZEN = described(
    "Head only",
    "只训练分类头",
    "Whether everything but the head of a pretrained model stays as it is.",
    "是否固定预训练模型除分类头以外的部分。",
) | flag(False)
TEST = described(
    "Test part", "测试集比例", "Which part is kept aside to test with.", "留作测试的数据比例。"
) | number(0.05, 0.5, 0.2)
VALIDATION = described(
    "Validation part",
    "验证集比例",
    "Which part of the rest chooses the best epoch.",
    "其余数据中用来挑选最佳轮次的比例。",
) | number(0.05, 0.5, 0.1)


def training(epochs: int, batch_size: int, smoothing: float = 0) -> Schema:
    """Return the group that says how to train."""
    properties: Mapping[str, Schema] = {
        "epochs": described(
            "Epochs", "轮数", "How often all of the data is gone through.", "把全部数据过多少遍。"
        )
        | whole(1, 1000, epochs),
        "batch_size": described(
            "Batch size", "批大小", "How many examples make one step.", "每一步使用多少个样本。"
        )
        | whole(1, 4096, batch_size),
        "learning_rate": described(
            "Learning rate",
            "学习率",
            "How large the steps are; 0: what suits the model.",
            "每一步的大小；0 表示按模型选择。",
        )
        | number(0, 1, 0),
        "weight_decay": described(
            "Weight decay", "权重衰减", "How much large weights are punished.", "对过大权重的惩罚强度。"
        )
        | number(0, 1, 0.01),
        "label_smoothing": described(
            "Label smoothing",
            "标签平滑",
            "How much the labels are doubted: with wrong ones among them, it learns less of those by heart.",
            "对标签的怀疑程度：标签有错误时，可减少对错误标签的死记硬背。",
        )
        | number(0, 0.5, smoothing),
        "warmup": described(
            "Warm-up",
            "预热比例",
            "In which part of the steps the learning rate rises; it falls in the rest.",
            "学习率上升的步数比例，其余步数逐渐下降。",
        )
        | number(0, 0.9, 0.1),
        "patience": described(
            "Stop early",
            "提前停止",
            "After how many epochs without improvement it ends; 0: never.",
            "连续多少轮没有改进就停止；0 表示不提前停止。",
        )
        | whole(0, 1000, 0),
        "device": described("Device", "计算设备", "Where to calculate.", "在哪里计算。")
        | choice(
            AUTO,
            auto=Text("The GPU where there is one", "有 GPU 时用 GPU"),
            cpu=Text("The processor", "处理器"),
            cuda=Text("The GPU", "GPU"),
        ),
        "precision": described("Precision", "计算精度", "How exactly a GPU calculates.", "GPU 计算的精度。")
        | choice(
            AUTO,
            auto=Text("Mixed on a GPU", "GPU 上用混合精度"),
            full=Text("32 bits everywhere", "全部 32 位"),
        ),
    }
    return group(described("Training", "训练设置", "How to train.", "如何训练。"), properties)
