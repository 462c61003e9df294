"""How responses are scored: right, wrong, or unknown and why. Start with :func:`build_verifier`."""

from apportion.rewards.choices import choice as choice
from apportion.rewards.functions import VERIFIERS as VERIFIERS
from apportion.rewards.functions import as_verifier as as_verifier
from apportion.rewards.functions import build_verifier as build_verifier
from apportion.rewards.gym import reasoning_gym as reasoning_gym
from apportion.rewards.integers import integer as integer
from apportion.rewards.mathematics.verifier import math as math
from apportion.rewards.texts import exact as exact
from apportion.rewards.texts import running_sum as running_sum
from apportion.rewards.verdict import Verdict as Verdict
from apportion.rewards.verdict import Verifier as Verifier
