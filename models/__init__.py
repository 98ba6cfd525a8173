"""The circuits. Each module has a function ``circuit(**settings)`` that returns a description, and ``training(settings,
data)``, the preset of `neurosim train`."""
