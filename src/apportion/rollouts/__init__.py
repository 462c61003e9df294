"""The data model: columnar, ragged, immutable. Start with :class:`Rollouts`."""

from apportion.rollouts.arrow import read_arrow as read_arrow
from apportion.rollouts.arrow import stream_arrow as stream_arrow
from apportion.rollouts.arrow import write_arrow as write_arrow
from apportion.rollouts.branches import Branches as Branches
from apportion.rollouts.branches import branches_of as branches_of
from apportion.rollouts.branches import is_branched as is_branched
from apportion.rollouts.columns import Column as Column
from apportion.rollouts.frames import to_pandas as to_pandas
from apportion.rollouts.interchange import read_jsonl as read_jsonl
from apportion.rollouts.interchange import stream_jsonl as stream_jsonl
from apportion.rollouts.interchange import write_jsonl as write_jsonl
from apportion.rollouts.joining import join as join
from apportion.rollouts.model import ORIGINS as ORIGINS
from apportion.rollouts.model import Pairs as Pairs
from apportion.rollouts.model import Rollouts as Rollouts
from apportion.rollouts.model import Spans as Spans
from apportion.rollouts.padded import from_padded as from_padded
from apportion.rollouts.padded import to_padded as to_padded
from apportion.rollouts.stepwise import Steps as Steps
from apportion.rollouts.stepwise import steps as steps
from apportion.rollouts.store import RolloutStore as RolloutStore
from apportion.rollouts.store import groups_of as groups_of
from apportion.rollouts.store import read as read
from apportion.rollouts.store import stream as stream
