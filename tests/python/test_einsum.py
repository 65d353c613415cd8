# SPDX-License-Identifier: MIT
"""Einsum against PyTorch's, forward and backward to every operand."""

import numpy as np
import pytest
import torch

from one_op import check, refused

# Equation and shapes: products, traces, broadcasting, sums, order of the output.
CASES = [
    ("ij->ji", (3, 4)), ("ij", (3, 4)), ("ba", (3, 4)), ("ij->", (3, 4)), ("ij->j", (3, 4)), ("ii->i", (4, 4)),
    ("ii", (4, 4)), ("...ii->...i", (2, 3, 4, 4)), ("...ii->...", (2, 4, 4)), ("iij->j", (3, 3, 2)),
    ("iji->ij", (3, 2, 3)), ("iiii->i", (2, 2, 2, 2)), ("->", ()), ("...", (2, 3)), ("...->", (2, 3)),
    ("i...->...", (2, 3, 4)), ("...i->i...", (2, 3, 4)), ("Ab->bA", (2, 3)), ("bA", (2, 3)),
    ("ij,jk->ik", (2, 3), (3, 4)), ("ij,jk", (2, 3), (3, 4)), ("ij,jk->ki", (2, 3), (3, 4)), ("i,i", (5,), (5,)),
    ("i,j->ij", (3,), (4,)), ("i,j->ji", (3,), (4,)), ("ij,ij->ij", (3, 4), (3, 4)), ("ij,ij", (3, 4), (3, 4)),
    ("ij,ij->i", (3, 4), (3, 4)), ("ij,k->i", (3, 4), (5,)), ("ij,kl->", (2, 3), (4, 2)), ("ij,ik->jk", (40, 9), (40, 8)),
    ("bij, bjk -> bik", (2, 3, 4), (2, 4, 5)), ("bhid,bhjd->bhij", (2, 3, 9, 8), (2, 3, 10, 8)),
    ("bhij,bhjd->bhid", (2, 3, 9, 10), (2, 3, 10, 8)), ("bihd,bjhd->bhij", (2, 9, 3, 8), (2, 10, 3, 8)),
    ("bhij,bjhd->bihd", (2, 3, 9, 10), (2, 10, 3, 8)), ("bghid,bghjd->bghij", (2, 2, 3, 4, 5), (2, 2, 3, 6, 5)),
    ("...ij,...jk->...ik", (2, 3, 4), (4, 5)), ("...ij,...jk->...ik", (2, 1, 3, 4), (3, 4, 5)),
    ("...ij,...jk", (1, 3, 4), (2, 4, 5)), ("i...,i...->...", (3, 2, 4), (3, 4)), ("...,...->...", (2, 1), (3,)),
    ("...i,...i->", (2, 3), (1, 3)), ("ij,jk->ik", (2, 1), (3, 4)), ("ij,ij->ij", (1, 4), (3, 1)),
    ("ii,ij->j", (3, 3), (3, 2)), ("ii,jj->ij", (3, 3), (2, 2)), ("ij,->ij", (2, 3), ()), (",->", (), ()),
    ("bchw,rcw->bhcrw", (2, 3, 4, 5), (6, 3, 5)), ("abcd,cbe->ead", (2, 3, 4, 5), (4, 3, 2)),
    ("i,j,k->ijk", (2,), (3,), (4,)), ("i,j,k->kij", (2,), (3,), (4,)), ("ij,jk,kl->il", (2, 3), (3, 4), (4, 5)),
    ("ij,jk,ki->", (2, 3), (3, 4), (4, 2)), ("bn,anm,bm->ba", (2, 3), (4, 3, 5), (2, 5)),
    ("ij,ij,ij->j", (2, 3), (2, 3), (2, 3)), ("...i,ij,...j->...", (4, 2, 3), (3, 5), (2, 5)),
    ("ab,bc,cd,de,ef->fa", (2, 3), (3, 2), (2, 4), (4, 3), (3, 2)), ("a,b,c,d,e,f->fbdaec", (2,), (3,), (2,), (2,), (3,), (2,)),
    ("ij,jk->ik", (0, 3), (3, 4)), ("ij,jk->ik", (2, 0), (0, 4)), ("ij->i", (2, 0)), ("bij,bjk->bik", (0, 2, 3), (0, 3, 4)),
]


def draw(rng, shapes):
    return [rng.standard_normal(shape).astype(np.float32) for shape in shapes]


def hold(equation, inputs):
    check("Einsum", inputs, lambda *x: torch.einsum(equation, *x), range(len(inputs)), equation=equation)


@pytest.mark.parametrize("equation,shapes", [(case[0], case[1:]) for case in CASES])
def test_case(equation, shapes):
    hold(equation, draw(np.random.default_rng(len(equation)), shapes))


@pytest.mark.parametrize("seed", range(60))
def test_random(seed):
    rng = np.random.default_rng(seed)
    sizes = {letter: int(rng.integers(1, 5)) for letter in "abcdef"}
    terms = ["".join(rng.choice(list(sizes), int(rng.integers(0, 5)))) for _ in range(int(rng.integers(1, 5)))]
    letters = sorted(set("".join(terms)))
    rng.shuffle(letters)
    out = "".join(letters[:int(rng.integers(0, len(letters) + 1))])
    # Operands may have 1 where another has more, but not within a diagonal.
    shapes = [[1 if rng.random() < 0.1 and term.count(letter) == 1 else sizes[letter] for letter in term]
              for term in terms]
    inputs = draw(rng, shapes)
    hold(",".join(terms) + "->" + out, inputs)


def test_one_operand_twice():
    x = draw(np.random.default_rng(1), [(3, 3)])
    hold("ij,kj->ik", x * 2)


@pytest.mark.parametrize("equation,shapes,words", [
    ("ij,jk->ik", [(2, 3)], "does not describe 1 operands"), ("ij", [(2, 3), (3, 2)], "does not describe 2 operands"),
    ("ij->ik", [(2, 3)], "letter of the output"), ("ij->ii", [(2, 3)], "letter of the output"),
    ("ijk", [(2, 3)], "names 3 dimensions"), ("i", [(2, 3)], "names 1 dimensions"), ("i.j->", [(2, 3)], "describe"),
    ("...i...", [(2, 3)], "describe"), ("ij->i->j", [(2, 3)], "describe"), ("i1->i", [(2, 3)], "describe"),
    ("ij,jk->ik", [(2, 3), (4, 5)], "stands for 3 and for 4"), ("ii->i", [(2, 3)], "stands for"),
    ("...ijklm->...", [(1, 2)], "names 5 dimensions"), ("ij-", [(2, 3)], "describe"),
    ("abcd,efgh,ijkl->abcdefghijkl", [(1,) * 4] * 3, "12 dimensions"),
    (",".join("ab" for _ in range(17)), [(1, 1)] * 17, "at most 16"),
    ("abcdef,ghijkl,mnopqr->", [(1,) * 6] * 3, None),
])
def test_refusals(equation, shapes, words):
    inputs = draw(np.random.default_rng(0), shapes)
    if words is None:
        hold(equation, inputs)
    else:
        refused("Einsum", inputs, words, range(len(inputs)), equation=equation)
