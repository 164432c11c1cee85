"""Packed attention, fused adapters and the kernels below them."""
