"""What a graphics card adds to the collection: thousands of seeds, published sizes, real networks.

`python -m experiments.gpu` (or `make gpu`) runs all of it in under eight minutes on one data-centre
card; `runner` says how. A notebook calls the `run` of its own file. Each `run` is small on the CPU
in a test, so that no line of it waits for a card to be run for the first time.
"""
