"""torch: `trajectory` (the same Euler steps on batched tensors) and `steady` (the fixed point of each stimulus)."""
