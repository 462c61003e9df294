"""The data model: columnar, ragged, immutable. Start with :class:`Rollouts`."""

from apportion.rollouts.columns import Column as Column
from apportion.rollouts.model import ORIGINS as ORIGINS
from apportion.rollouts.model import Pairs as Pairs
from apportion.rollouts.model import Rollouts as Rollouts
from apportion.rollouts.model import Spans as Spans
from apportion.rollouts.model import join as join
from apportion.rollouts.padded import from_padded as from_padded
from apportion.rollouts.padded import to_padded as to_padded
from apportion.rollouts.stepwise import Steps as Steps
from apportion.rollouts.stepwise import steps as steps
