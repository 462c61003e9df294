"""Apportion: reinforcement learning for language models in which you choose the credit.

from apportion import credit, objectives     # functions on tensors: torch and numpy are enough
apportion train quickstart                   # the command line; see `apportion --help`
"""

__version__ = "0.1.0"
