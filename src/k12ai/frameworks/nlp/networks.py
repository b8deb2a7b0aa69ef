"""Networks that say which class a text is of, and how texts get into them."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import nn

from k12ai.frameworks import csvfile
from k12ai.frameworks.neural import pretrained, storage
from k12ai.frameworks.neural.examples import Batch
from k12ai.frameworks.neural.pretrained import Kind
from k12ai.frameworks.neural.storage import Card
from k12ai.frameworks.nlp.schema import CNN, PRETRAINED, TRANSFORMER

USUAL_RATES = {CNN: 3e-3, TRANSFORMER: 1e-3, PRETRAINED: 5e-5}
TOKENIZER = "tokenizer.json"

_MODEL_TYPE = "k12ai_text_cnn"
_PAD, _UNKNOWN, _START, _END = "[PAD]", "[UNK]", "[CLS]", "[SEP]"
_PADS = (_PAD, "<pad>", "<|endoftext|>", "</s>")
_FROZEN_RATE = 1e-2


class Form(msgspec.Struct, frozen=True):
    """The form that a network wants texts in."""

    max_length: int
    pad: int
    vocabulary: int


class TextCnn(nn.Module):
    """Two networks whose logits are added: one of patterns of tokens, one of which pairs of tokens there are.

    While training, each text is answered by one of them, or by both, at random; so neither leaves the work to
    the other. Pairs are rows of a table by a hash, as in fastText (Joulin and others, 2016).
    """

    def __init__(self, parameters: Mapping[str, Any], form: Form, classes: int) -> None:
        super().__init__()
        width, filters = parameters["width"], parameters["filters"]
        self.embedding = nn.Embedding(form.vocabulary, width, padding_idx=form.pad)
        nn.init.normal_(self.embedding.weight, std=0.1)
        self.convolutions = nn.ModuleList(nn.Conv1d(width, filters, size, padding=size - 1) for size in (2, 3))
        self.dropout = nn.Dropout(parameters["dropout"])
        self.head = nn.Linear(2 * filters + width, classes)
        self.pairs = (
            _Pairs(parameters["pairs"], form.vocabulary, self.dropout, classes) if parameters["pairs"] else None
        )

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        mask = attention_mask[:, :, None].float()
        tokens = self.embedding(input_ids) * mask
        mean = tokens.sum(1) / mask.sum(1).clamp_min(1)
        rows = tokens.transpose(1, 2)
        found = [torch.relu(each(rows)).amax(2) for each in self.convolutions]
        logits: torch.Tensor = self.head(self.dropout(torch.cat([*found, mean], dim=1)))
        if self.pairs is None:
            return logits
        others: torch.Tensor = self.pairs(input_ids, mask)
        if not self.training:
            return logits + others
        chance = torch.rand(len(logits), 1, device=logits.device) * 3
        return torch.where(chance < 1, 2 * logits, torch.where(chance < 2, 2 * others, logits + others))


class _Pairs(nn.Module):
    """The sum of what single tokens and pairs of them stand for."""

    def __init__(self, rows: int, vocabulary: int, dropout: nn.Module, classes: int) -> None:
        super().__init__()
        width = 16
        self.tokens, self.couples = nn.Embedding(vocabulary, width), nn.Embedding(rows, width)
        for table in (self.tokens, self.couples):
            nn.init.normal_(table.weight, std=0.05)
        self.dropout = dropout
        self.head = nn.Linear(width, classes)

    def forward(self, input_ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        places = (input_ids[:, :-1] * 1_000_003 + input_ids[:, 1:] * 7_919) % self.couples.num_embeddings
        both = mask[:, 1:]
        found = (self.tokens(input_ids) * mask).sum(1) + (self.couples(places) * both).sum(1)
        logits: torch.Tensor = self.head(self.dropout(found / (mask.sum(1) + both.sum(1)).sqrt()))
        return logits


# --- tokenizers ------------------------------------------------------------------------------------


def trained_tokenizer(texts: Sequence[str], vocabulary: int) -> Tokenizer:
    """Return a tokenizer that has learnt its tokens, words and parts of them, from texts."""
    tokenizer = Tokenizer(models.BPE(unk_token=_UNKNOWN))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()]
    )
    tokenizer.decoder = decoders.BPEDecoder()
    alphabet = _alphabet(tokenizer.normalizer, texts, max(50, vocabulary // 2))
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[_PAD, _UNKNOWN, _START, _END],
        show_progress=False,
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        max_token_length=8,
    )
    tokenizer.train_from_iterator(iter(texts), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{_START} $A {_END}", special_tokens=[(_START, 2), (_END, 3)]
    )
    return tokenizer


def _alphabet(normalizer: Any, texts: Sequence[str], most: int) -> list[str]:
    """Return the characters that are the most frequent, always the same of those that are equally so.

    The library chooses among those by chance, and a training that goes on needs the tokens that it began with.
    """
    counts = Counter(sign for text in texts for sign in normalizer.normalize_str(text) if not sign.isspace())
    return sorted(counts, key=lambda sign: (-counts[sign], sign))[:most]


def tokenizer_of(name: str, folder: Path) -> Tokenizer:
    """Return the tokenizer of a directory. Raises `DataProblem` where it has none that can be read."""
    try:
        tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
    except Exception as error:  # noqa: BLE001 - the library raises nothing more exact
        why = " ".join(str(error).split())[:200]
        raise storage.refused(name, (f"its {TOKENIZER}: {why}", f"{TOKENIZER}：{why}")) from None
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def form_of(params: Mapping[str, Any], tokenizer: Tokenizer) -> Form:
    """Return the form of texts for a network; a pretrained one may know of fewer places than were asked for."""
    length, pads = params["data"]["max_length"], [tokenizer.token_to_id(each) for each in _PADS]
    pad = next((each for each in pads if each is not None), 0)
    if params["model"] == PRETRAINED:
        directory = params["parameters"]["directory"]
        config = storage.check_directory(directory, csvfile.inside(directory))
        places = config.get("max_position_embeddings", length + 2)
        length = min(length, places - 2) if isinstance(places, int) and places > 10 else length
        pad = config["pad_token_id"] if isinstance(config.get("pad_token_id"), int) else pad
    return Form(length, pad, tokenizer.get_vocab_size())


# --- networks --------------------------------------------------------------------------------------


def build(params: Mapping[str, Any], form: Form, classes: Sequence[str]) -> nn.Module:
    """Return a network that has not learnt these classes yet; the seed says how it begins."""
    torch.manual_seed(params["seed"])
    parameters = params["parameters"]
    if params["model"] == CNN:
        return TextCnn(parameters, form, len(classes))
    if params["model"] == PRETRAINED:
        directory, frozen = parameters["directory"], parameters["frozen"]
        network = pretrained.tuned(Kind.TEXTS, directory, len(classes), frozen=frozen)
        return _fitting(directory, network, form)
    return _transformer(parameters, form, classes)


def usual_rate(params: Mapping[str, Any]) -> float:
    """Return the learning rate that suits a network."""
    if params["parameters"].get("frozen"):
        return _FROZEN_RATE
    return USUAL_RATES[params["model"]]


def load(name: str, card: Card, folder: Path, form: Form) -> nn.Module:
    """Return a network that was saved. Raises `DataProblem`."""
    if card.model == CNN:
        try:
            network = TextCnn(card.parameters, form, len(card.classes))
        except (KeyError, TypeError, ValueError, RuntimeError, AssertionError):
            raise storage.refused(name, ("its card is broken", "模型描述已损坏")) from None
        storage.fill(name, network, folder)
        return network
    loaded = pretrained.load(Kind.TEXTS, name, folder, len(card.classes), exact=True)
    return _fitting(name, loaded, form)


def writer(network: nn.Module, tokenizer: Tokenizer, card: Card) -> Callable[[Path], None]:
    """Return what writes a network's configuration and its tokenizer into its directory."""

    def write(folder: Path) -> None:
        tokenizer.save(str(folder / TOKENIZER))
        if isinstance(network, TextCnn):
            config = {"model_type": _MODEL_TYPE, **card.parameters, **card.input, "classes": len(card.classes)}
            (folder / storage.CONFIG).write_bytes(msgspec.json.format(msgspec.json.encode(config), indent=2))
            return
        network.config.save_pretrained(folder)  # type: ignore[operator, union-attr]
        pad = tokenizer.id_to_token(card.input["pad"])
        about = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": card.input["max_length"],
            "pad_token": pad,
        }
        (folder / "tokenizer_config.json").write_bytes(msgspec.json.encode(about))

    return write


def _transformer(parameters: Mapping[str, Any], form: Form, classes: Sequence[str]) -> nn.Module:
    library = pretrained.transformers()
    config = library.BertConfig(
        vocab_size=form.vocabulary,
        hidden_size=parameters["width"],
        num_hidden_layers=parameters["layers"],
        num_attention_heads=parameters["heads"],
        intermediate_size=4 * parameters["width"],
        hidden_dropout_prob=parameters["dropout"],
        attention_probs_dropout_prob=parameters["dropout"],
        max_position_embeddings=form.max_length + 2,
        pad_token_id=form.pad,
        num_labels=len(classes),
    )
    network: nn.Module = library.BertForSequenceClassification(config)
    return network


def _fitting(name: str, network: nn.Module, form: Form) -> nn.Module:
    """Return a network of transformers' that knows every token of its tokenizer. Raises `DataProblem`."""
    known = network.get_input_embeddings().num_embeddings  # type: ignore[operator]
    if form.vocabulary > known:
        why = f"its tokenizer has {form.vocabulary} tokens and the model {known}"
        raise storage.refused(name, (why, f"分词器有 {form.vocabulary} 个词元，而模型只有 {known} 个"))
    network.config.pad_token_id = form.pad  # type: ignore[union-attr]
    return network


# --- texts as tensors ------------------------------------------------------------------------------


class Examples:
    """Texts as numbers; each is looked up when its batch is made."""

    def __init__(self, texts: Sequence[str], labels: Sequence[int], tokenizer: Tokenizer, form: Form) -> None:
        self.labels = labels
        self._texts, self._tokenizer, self._form = texts, tokenizer, form

    def batch(self, places: Sequence[int], seed: int | None) -> Batch:
        """Return the numbers of the tokens, filled up to the longest text of the batch."""
        texts = [self._texts[place] for place in places]
        rows = [self._cut(each.ids) for each in self._tokenizer.encode_batch(texts)]
        longest = max(map(len, rows))
        pad = self._form.pad
        return {
            "input_ids": torch.tensor([row + [pad] * (longest - len(row)) for row in rows]),
            "attention_mask": torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows]),
            "labels": torch.tensor([self.labels[place] for place in places]),
        }

    def _cut(self, ids: list[int]) -> list[int]:
        """Return at most so many tokens, the last of them included, and one at least."""
        most = self._form.max_length
        return (ids if len(ids) <= most else ids[: most - 1] + ids[-1:]) or [self._form.pad]
