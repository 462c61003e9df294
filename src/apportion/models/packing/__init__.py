"""Rows that share beginnings, computed once: the tree they form, laid out so that attention needs no mask."""

from apportion.models.packing.tree import PrefixTree as PrefixTree
from apportion.models.packing.tree import prefix_tree as prefix_tree
