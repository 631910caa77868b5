"""Confusion matrices and the scores taken from them."""
