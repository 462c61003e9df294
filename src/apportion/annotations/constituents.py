"""Pieces of text that are constituents: bracketed trees cut at a number of words, and laid over sampled tokens.

Suffix legend: T tokens of one text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from apportion.annotations.token_texts import TokenTexts
from apportion.errors import InputError

Parser = Callable[[Sequence[str]], Sequence[Sequence[str]]]
"""From texts to the bracketed trees of their sentences, such as ``(S (NP (PRP We)) (VP (VBP try)))``."""

ESCAPES = {"-LRB-": "(", "-RRB-": ")", "-LSB-": "[", "-RSB-": "]", "-LCB-": "{", "-RCB-": "}", "``": '"', "''": '"'}
"""How treebanks write what would be read as their own brackets and quotation marks."""


@dataclass(frozen=True)
class Tree:
    """A constituent.

    Attributes:
        words: its words, in order.
        children: the constituents it is made of; of a word alone, none.
    """

    words: tuple[str, ...]
    children: tuple[Tree, ...] = ()


def read_tree(text: str) -> Tree:
    """The tree that brackets describe; labels are passed over.

    Raises:
        InputError: brackets that do not match, or hold no word.

    Example:
        >>> read_tree("(S (NP (PRP We)) (VP (VBP try) (NP (PRP it))))").words
        ('We', 'try', 'it')
    """
    open_nodes: list[list[Tree]] = [[]]
    fresh = False  # a label comes next
    for token in re.findall(r"[()]|[^\s()]+", text):
        if token == "(":
            open_nodes.append([])
        elif token == ")":
            children = open_nodes.pop()
            if not open_nodes or not children:
                raise _no_tree(text)
            open_nodes[-1].append(_node(children))
        elif len(open_nodes) == 1:
            raise _no_tree(text)
        elif not fresh:
            open_nodes[-1].append(Tree((ESCAPES.get(token, token),)))
        fresh = token == "("
    if len(open_nodes) != 1 or len(open_nodes[0]) != 1:
        raise _no_tree(text)
    return open_nodes[0][0]


def _node(children: Sequence[Tree]) -> Tree:
    if len(children) == 1:  # a label more for the same words
        return children[0]
    return Tree(tuple(word for child in children for word in child.words), tuple(children))


def _no_tree(text: str) -> InputError:
    return InputError(f"a parser returned {text[:80]!r}, expected one tree in brackets, such as (S (NP We) (VP try)).")


def pieces(tree: Tree, cutoff: int) -> list[int]:
    """Sizes, in words, of the pieces that a sentence is cut into.

    A constituent of fewer words than the cutoff is a piece; a word that stands beside larger ones joins the piece
    before it, and at the beginning is one.

    Args:
        tree: of the sentence.
        cutoff: 2 or more.

    Example:
        >>> pieces(read_tree("(S (NP We) (VP (VBP try) (NP (DT the) (JJ other) (NN way))))"), 4)
        [2, 3]
    """
    sizes: list[int] = []
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if len(node.words) == 1 and sizes:
            sizes[-1] += 1
        elif len(node.words) < cutoff:
            sizes.append(len(node.words))
        else:
            waiting += reversed(node.children)
    return sizes


def begins_of_pieces(texts: Sequence[TokenTexts], parser: Parser, cutoff: int) -> list[list[bool]]:
    """Which tokens begin a piece, for every text ``[T]``; all of them where words and tokens do not go together.

    Args:
        texts: of tokens.
        parser: asked once, for all texts.
        cutoff: see :func:`pieces`.

    Raises:
        InputError: a parser that does not return trees for every text.
    """
    parsed = parser([text.text for text in texts]) if texts else []
    if len(parsed) != len(texts):
        raise InputError(f"a parser returned trees of {len(parsed)} texts, expected {len(texts)}: one list a text.")
    return [
        _begins(text, [read_tree(tree) for tree in trees], cutoff) for text, trees in zip(texts, parsed, strict=True)
    ]


def _begins(text: TokenTexts, trees: Sequence[Tree], cutoff: int) -> list[bool]:
    every = [True] * len(text.starts)
    words = [word for tree in trees for word in tree.words]
    if "".join(words) != "".join(text.text.split()):
        return every
    # Places are counted in characters that are not white space, which the words of a tree leave out.
    place = [0, *accumulate(not character.isspace() for character in text.text)]
    first_of: dict[int, int] = {}  # by place, the first token with such a character there
    for t, (start, end) in enumerate(zip(text.starts, text.ends, strict=True)):
        if place[end] > place[start]:
            first_of.setdefault(place[start], t)
    word_at = [0, *accumulate(map(len, words))]
    piece_at = [0, *accumulate(size for tree in trees for size in pieces(tree, cutoff))][:-1]
    wanted = [word_at[w] for w in piece_at]
    if any(at not in first_of for at in wanted):
        return every
    chosen = {first_of[at] for at in wanted}
    return [t in chosen for t in range(len(text.starts))]
