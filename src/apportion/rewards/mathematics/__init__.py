"""Mathematical answers compared exactly. Importing this loads no SymPy: the reading happens in a child process."""

from apportion.rewards.mathematics.verifier import math as math
