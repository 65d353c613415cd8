# SPDX-License-Identifier: MIT
"""transformers, built from a configuration; questions about pictures and captions, own."""

import torch
import transformers
from torch import nn
from torch.nn import functional

from .case import case

WORDS = 50
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
TEXT = {**SIZES, "vocab_size": WORDS, "max_position_embeddings": 16}


def hugging(net, config):
    """One network of the library; its masks and caches stay at their defaults."""
    def make():
        return getattr(transformers, net)(config)
    return make


class Named(nn.Module):
    """Inputs by position, which not every network of transformers allows."""

    def __init__(self, net, *names):
        super().__init__()
        self.net, self.names = net, names

    def forward(self, *inputs):
        return self.net(**dict(zip(self.names, inputs)))


def named(make, *names):
    return lambda: Named(make(), *names)


bert = hugging("BertForSequenceClassification", transformers.BertConfig(**TEXT, num_labels=5))
gpt = hugging("GPT2ForSequenceClassification", transformers.GPT2Config(
    n_embd=32, n_layer=2, n_head=4, vocab_size=WORDS, n_positions=16, num_labels=5, pad_token_id=0, bos_token_id=0,
    eos_token_id=0))
clip_text = hugging("CLIPTextModelWithProjection", transformers.CLIPTextConfig(
    **TEXT, projection_dim=12, eos_token_id=WORDS - 1, bos_token_id=0, pad_token_id=1))
clip_image = hugging("CLIPVisionModelWithProjection", transformers.CLIPVisionConfig(
    **SIZES, image_size=32, patch_size=8, projection_dim=12))
vit = hugging("ViTForImageClassification", transformers.ViTConfig(
    **SIZES, image_size=32, patch_size=8, num_labels=5))
segformer = hugging("SegformerForSemanticSegmentation", transformers.SegformerConfig(
    depths=[1, 1, 1, 1], hidden_sizes=[8, 16, 24, 32], num_attention_heads=[1, 2, 2, 4], decoder_hidden_size=16,
    num_labels=4))

QUESTION = ((1, 7), WORDS)
case("bert", named(bert, "input_ids"), layer="net.bert.embeddings", tokens=(QUESTION,), free=(0, 1), other=((3, 11),))
case("bert_masked", named(bert, "input_ids", "attention_mask"), layer="net.bert.embeddings",
     tokens=(QUESTION, ((1, 7), 2)))
case("gpt2", named(gpt, "input_ids"), layer="net.transformer.h.1.ln_1", tokens=(QUESTION,))
case("clip_text", named(clip_text, "input_ids"), layer="net.text_model.encoder.layers.1.layer_norm1", tokens=(QUESTION,),
     free=(0, 1), other=((3, 11),))
case("clip_image", named(clip_image, "pixel_values"), (1, 3, 32, 32), layer="net.vision_model.encoder.layers.1.layer_norm1")
case("hf_vit", named(vit, "pixel_values"), (1, 3, 32, 32), layer="net.vit.layernorm")
case("segformer", named(segformer, "pixel_values"), (1, 3, 64, 64), layer="net.segformer")


# ---- pictures and words ----

class Eye(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU(), nn.MaxPool2d(2),
                         nn.Conv2d(16, 24, 3, 1, 1), nn.ReLU())


class Vqa(nn.Module):
    """A question read by an LSTM of two layers, multiplied with the picture (Antol 2015)."""

    def __init__(self):
        super().__init__()
        self.eye, self.words = Eye(), nn.Embedding(WORDS, 12)
        self.lstm, self.see, self.answer = nn.LSTM(12, 16, 2, batch_first=True), nn.Linear(24, 16), nn.Linear(16, 8)

    def forward(self, question, image):
        seen = torch.tanh(self.see(functional.normalize(self.eye(image).mean((2, 3)), dim=1)))
        _, (h, _) = self.lstm(self.words(question))
        return self.answer(seen * h[-1])


class Attended(nn.Module):
    """The same with the question choosing places of the picture, in both directions with a GRU (Yang 2016)."""

    def __init__(self):
        super().__init__()
        self.eye, self.words = Eye(), nn.Embedding(WORDS, 12)
        self.gru, self.answer = nn.GRU(12, 12, batch_first=True, bidirectional=True), nn.Linear(24, 8)

    def forward(self, question, image):
        places = self.eye(image).flatten(2)
        read = self.gru(self.words(question))[0].amax(1)
        weights = torch.bmm(read.unsqueeze(1), places).softmax(2)
        return self.answer(read + (places * weights).sum(2))


class Caption(nn.Module):
    """A GRU that begins with the picture and is told the words so far: scores [N, word, place]."""

    def __init__(self):
        super().__init__()
        self.eye, self.words, self.begin = Eye(), nn.Embedding(WORDS, 12), nn.Linear(24, 16)
        self.gru, self.say = nn.GRU(12, 16, batch_first=True), nn.Linear(16, WORDS)

    def forward(self, words, image):
        h = torch.tanh(self.begin(self.eye(image).mean((2, 3))))
        out, _ = self.gru(self.words(words), h.unsqueeze(0))
        return self.say(out).log_softmax(2).transpose(1, 2)


class Spelled(nn.Module):
    """An LSTM cell that hears its own best words: four steps, written out."""

    def __init__(self):
        super().__init__()
        self.eye, self.words, self.begin = Eye(), nn.Embedding(WORDS, 16), nn.Linear(24, 16)
        self.cell, self.say = nn.LSTMCell(16, 16), nn.Linear(16, WORDS)

    def forward(self, image):
        x = self.begin(self.eye(image).mean((2, 3)))
        h = c = torch.zeros_like(x)
        said = []
        for _ in range(4):
            h, c = self.cell(x, (h, c))
            said.append(self.say(h))
            x = self.words(said[-1].argmax(1))
        return torch.stack(said, 2)


PICTURE = (1, 3, 32, 32)
case("vqa_lstm", Vqa, PICTURE, layer="eye", tokens=(QUESTION,))
case("vqa_attended", Attended, PICTURE, layer="eye", tokens=(QUESTION,))
case("caption_gru", Caption, PICTURE, layer="eye", tokens=(QUESTION,))
case("caption_greedy", Spelled, PICTURE, layer="eye")
