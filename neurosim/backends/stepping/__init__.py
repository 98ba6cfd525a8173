"""Explicit Euler steps on arrays, in the order that `neurosim.plan` states.

`brian2:dense` and `torch:trajectory` share them. The two engines differ in the array library (NumPy
on Brian2's own memory, or torch) and in who integrates the potentials (Brian2, or Brian2's update
text run on tensors); steps 1 to 8 are this package.

Two exact savings keep large layers cheap:

* a drive is computed once per (weights, source) in a step, so tied weights share it, and once per
  phase where neither the source nor the weights change;
* while a source x is clamped its plastic weights need not be written in every step. With
  dW/dt = c g^T f, g of the clamped source too, ``I(t) = x W0 + (dt c/B) (x g^T) sum_s f(s)``, and
  at the phase's end ``W = W0 + (dt c/B) g^T sum_s f(s)``.
"""
