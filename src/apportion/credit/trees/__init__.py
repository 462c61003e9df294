"""Credit on trees of responses: what forks say about the prefixes they stand at.

Everything here is a function of rollouts, their branches and outcomes, usable without a credit method: draw trees
(:mod:`draws`), values of prefixes and baselines (:mod:`backups`, :mod:`shrinkage`), and the methods made of them.
"""

from apportion.credit.trees.backups import Values as Values
from apportion.credit.trees.backups import back_up as back_up
from apportion.credit.trees.backups import baselines as baselines
from apportion.credit.trees.backups import node_values as node_values
from apportion.credit.trees.differences import tree_td as tree_td
from apportion.credit.trees.draws import BACKUPS as BACKUPS
from apportion.credit.trees.draws import DrawTree as DrawTree
from apportion.credit.trees.draws import draw_tree as draw_tree
from apportion.credit.trees.shrinkage import shrunk_values as shrunk_values
from apportion.credit.trees.shrinkage import tree_shrunk as tree_shrunk
from apportion.credit.trees.siblings import tree as tree
from apportion.credit.trees.vine import vine as vine
