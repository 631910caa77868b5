"""Smaller updates: which values are sent, in how few bits, and how they are packed.

* codec     "topk(1%)+int8" and its like, read from an experiment
* quantise  floats in 8 or 4 bits, rounded at random without bias; float16, bfloat16
* sparse    the largest changes and where they stand
* lowrank   tensors as products of thin matrices
* payload   the bytes of an update's values, of a size known beforehand
* uplink    the whole message: header, zstd, and what was not sent kept for next time
* scheduled another codec in later rounds
* changes   the way down: what is new in the model
"""
