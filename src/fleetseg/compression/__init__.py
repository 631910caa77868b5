"""Compression of updates: which values are sent, in how many bits, and how they are packed.

* codec     specifications such as "topk(1%)+int8", read from an experiment
* quantise  floats in 8 or 4 bits, with unbiased stochastic rounding; float16, bfloat16
* sparse    the largest changes and their positions
* lowrank   tensors as products of thin matrices
* payload   the bytes of an update's values, of a size known in advance
* uplink    the whole message: header, zstd, and a residual of what was not sent for next time
* scheduled another codec in later rounds
* changes   the downlink: changes of the model
"""
