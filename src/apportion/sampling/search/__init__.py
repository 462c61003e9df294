"""Searched responses: trees over steps, and what the paths of a tree say about its steps."""

from apportion.sampling.search.grounded import grounded_prm as grounded_prm
from apportion.sampling.search.grow import SEARCHES as SEARCHES
from apportion.sampling.search.grow import Checks as Checks
from apportion.sampling.search.grow import sample_searched as sample_searched
from apportion.sampling.search.med_s3 import med_s3 as med_s3
from apportion.sampling.search.paths import trees_in as trees_in
from apportion.sampling.search.tree import SearchTree as SearchTree
