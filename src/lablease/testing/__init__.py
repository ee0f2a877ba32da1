"""What the end-to-end tests and the benchmarks share: real processes, a lab to put them in, and eyes on it.

Nothing here is used by the product.
"""
