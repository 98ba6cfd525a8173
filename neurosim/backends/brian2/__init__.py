"""Brian2: `equations` (pure NeuronGroup and Synapses) and `dense` (Brian2's neurons, BLAS on Brian2's weight arrays)."""
