"""Naive float64 loops over plain lists, written from the method cards alone: what the library is compared with.

Nothing here imports torch or apportion.
"""
