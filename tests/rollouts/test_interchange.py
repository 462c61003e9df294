from __future__ import annotations
from pathlib import Path
import torch
from hypothesis import given, settings
from apportion.rollouts import Rollouts, join
from apportion.rollouts.interchange import read_jsonl, stream_jsonl, write_jsonl
from .strategies import assert_same, rollouts
import tempfile

@settings(max_examples=500,deadline=None)
@given(rollouts())
def test_round(x):
    with tempfile.TemporaryDirectory() as d:
        p=Path(d)/"a.jsonl"
        write_jsonl(x,p)
        try:
            y=read_jsonl(p)
            assert_same(y,x)
        except Exception:
            print(p.read_text()); raise
@settings(max_examples=300,deadline=None)
@given(rollouts(contiguous=True))
def test_stream(x):
    with tempfile.TemporaryDirectory() as d:
        p=Path(d)/"a.jsonl"
        write_jsonl(x,p)
        ys=list(stream_jsonl(p))
        gs=list(x.groups())
        assert len(ys)==len(gs)
        for y,g in zip(ys,gs): assert_same(y,g)
from apportion.rollouts.arrow import *
@settings(max_examples=500,deadline=None)
@given(rollouts())
def test_round_a(x):
    with tempfile.TemporaryDirectory() as d:
        p=Path(d)/"a.arrow"
        write_arrow(x,p)
        y=read_arrow(p)
        assert_same(y,x)
@settings(max_examples=300,deadline=None)
@given(rollouts(contiguous=True))
def test_stream_a(x):
    with tempfile.TemporaryDirectory() as d:
        p=Path(d)/"a.arrow"
        write_arrow(x,p)
        ys=list(stream_arrow(p))
        gs=list(x.groups())
        assert len(ys)==len(gs)
        for y,g in zip(ys,gs): assert_same(y,g)
