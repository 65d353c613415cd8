# SPDX-License-Identifier: MIT
"""Draws sheet.png: pictures, questions about them, and the maps for the answers.

    python3 docs/vqa/sheet.py NETWORK DATA OUT.png"""

import sys

import easy_vqa
import numpy as np
import pointing
from PIL import Image, ImageDraw, ImageFont

import gradcam  # found by easy_vqa

LAYER = "conv2d_2"
CELL, GAP, TEXT = 128, 6, 30
FORMS = (("what", "shape"), ("what", "colour"), ("is", "shape"), ("is", "colour"))
MAPS = (("Grad-CAM, signed", pointing.signed), ("gradient x activation", pointing.by_position))
LEGEND = "red: for the answer\nblue: against it\nring: the peak"
RED, BLUE = np.array([214, 39, 40.0]), np.array([31, 119, 180.0])


def colour(heat, image):
    """Red speaks for the answer, blue against it; a ring at the peak, a grey outline of the shape."""
    big = gradcam.resize(heat, (CELL, CELL))
    strength = (np.abs(big) / max(np.abs(big).max(), 1e-30))[..., None]
    out = 255 * (1 - strength) + np.where(big[..., None] > 0, RED, BLUE) * strength
    mask = np.kron(easy_vqa.shape_mask(image), np.ones((CELL // easy_vqa.SIDE,) * 2, bool))
    inside = np.pad(mask, 1)
    inner = inside[:-2, 1:-1] & inside[2:, 1:-1] & inside[1:-1, :-2] & inside[1:-1, 2:]
    out[mask & ~inner] = 90
    panel = Image.fromarray(out.astype(np.uint8))
    y, x = pointing.peak(heat)
    y, x = (y + 0.5) * CELL / easy_vqa.SIDE, (x + 0.5) * CELL / easy_vqa.SIDE
    ImageDraw.Draw(panel).ellipse((x - 4, y - 4, x + 4, y + 4), outline="black", width=2)
    return panel


def chosen(data, player, count):
    """The first pictures about which a question of every form is answered right, shapes
    and colours not twice."""
    by_image, seen = {}, set()
    for question, answer, number in data.questions:
        by_image.setdefault(number, []).append((question, answer))
    for number, questions in by_image.items():
        rows = {}
        for question, answer in questions:
            it = player.ask(data.image(number), question)
            if easy_vqa.ANSWERS[it.answer] == answer:
                rows.setdefault(easy_vqa.evidence(question)[:2], (question, answer, it))
        if all(form in rows for form in FORMS):
            facts = {rows["what", "shape"][1], rows["what", "colour"][1]}
            if rows["what", "colour"][1] not in seen and len(seen & facts) < 2:
                seen |= {rows["what", "colour"][1]}
                yield number, [rows[form] for form in FORMS]
                count -= 1
        if count == 0:
            return


def wrapped(text, width=24):
    lines = [""]
    for word in text.split():
        lines = lines[:-1] + [f"{lines[-1]} {word}".strip()] if len(lines[-1]) + len(word) < width else [*lines, word]
    return "\n".join(lines)


def draw(rows):
    step, band = CELL + GAP, len(MAPS) * (CELL + GAP) + TEXT
    sheet = Image.new("RGB", ((len(FORMS) + 1) * step + GAP, len(rows) * band + GAP), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(10)
    for k, (image, questions) in enumerate(rows):
        top = GAP + k * band
        sheet.paste(Image.fromarray(image).resize((CELL, CELL), Image.NEAREST), (GAP, top + TEXT))
        for j, (title, _) in enumerate(MAPS):
            pen.text((GAP + 4, top + TEXT + CELL + 12 + 14 * j), f"{('above', 'below')[j]}: {title}", "black", font)
        pen.text((GAP + 4, top + TEXT + CELL + 44), LEGEND, "black", font)
        for i, (question, answer, heats) in enumerate(questions):
            left = GAP + (i + 1) * step
            pen.text((left, top), wrapped(f"{question} {answer}"), "black", font)
            for j, heat in enumerate(heats):
                sheet.paste(colour(heat, image), (left, top + TEXT + j * step))
    return sheet


def main(network, path, out):
    data, player = easy_vqa.Data(path), pointing.Player(network)
    rows = []
    for number, questions in chosen(data, player, 5):
        rows.append((data.image(number), [(question, answer, [method(it)[LAYER] for _, method in MAPS])
                                          for question, answer, it in questions]))
    draw(rows).quantize(128, dither=Image.Dither.NONE).save(out, optimize=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
