"""Stimuli: what the clamps of a circuit are set to, checked against the circuit.

    simulate(circuit, {"x": X, "current": I})   # fields by name, each (samples, values)
    simulate(circuit, images, labels)           # short for the fields image and target

The name of a field is free. The circuit says which population reads it, and with that how many
values a sample has and in what unit; the stimuli have to hold all fields, and no other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from brian2.units.fundamentalunits import DIMENSIONLESS, Dimension, Quantity

from neurosim.circuit import Circuit
from neurosim.equations import unit_text
from neurosim.errors import NeurosimError, suggest
from neurosim.plan import Plan

#: The fields that images and labels are short for.
SHORT = ("image", "target")
#: Fields by name, each (samples, values).
Fields = dict[str, np.ndarray]

_CLEAN = "holds NaN or infinity; clean the data first."


def stimulus_fields(circuit: Circuit, stimuli: Any = None, labels: Any = None) -> Fields:
    """Return the fields of the stimuli in base SI units.

    Parameters
    ----------
    circuit
        What the stimuli are shown to.
    stimuli
        ``{field: (samples, values)}`` with every field that a clamp names. Further axes are
        flattened. A Brian2 quantity has to have the unit of the clamped input; bare numbers are in
        base SI units. The field ``target`` may be class numbers (samples,), which become one-hot.
        Or an array, the field ``image``. None for a circuit that clamps nothing.
    labels
        Beside an array: the field ``target``.

    Raises
    ------
    NeurosimError
        An unknown or a missing field, a wrong shape or unit, fields of different numbers of
        samples, NaN or infinity, labels that are not whole numbers or are out of range.
    """
    plan = circuit.plan
    if stimuli is None:
        if plan.clamped_fields:
            fields = " and ".join(plan.clamped_fields)
            needed = f"so it needs stimuli: {call(circuit)}"
            raise NeurosimError(f"The circuit clamps {fields}, {needed}.")
        return {}
    if not isinstance(stimuli, Mapping):
        check_short(circuit, "images and labels give", f"Write {call(circuit)}.")
        return _short(plan, stimuli, labels)
    if labels is not None:
        cure = 'simulate(circuit, {..., "target": labels})'
        raise NeurosimError(f"Got labels beside a table of fields; put them into it: {cure}.")
    _check_names(circuit, stimuli)
    return _fields(plan, stimuli)


def call(circuit: Circuit, function: str = "simulate") -> str:
    """Return the call that shows a circuit its stimuli: ``simulate(circuit, {"x": ...})``."""
    fields = circuit.plan.clamped_fields
    if set(fields) <= set(SHORT):
        return f"{function}(circuit, images, labels)"
    table = ", ".join(f'"{field}": ...' for field in fields)
    return f"{function}(circuit, {{{table}}})"


def check_short(circuit: Circuit, who: str, cure: str) -> None:
    """Refuse a circuit that clamps other fields than `image` and `target`.

    `who` says what has these two alone ("images and labels give"); `cure` ends the message.
    """
    for (field, _), variable in circuit.plan.clamped_sizes.items():
        if field not in SHORT:
            known = (*SHORT, *_of_loops(circuit.plan, variable))
            raise NeurosimError(
                f"'{circuit.name}' clamps '{variable}' to the field '{field}', and {who} the "
                f"fields image and target alone.{suggest(field, known, cutoff=0.7)} {cure}"
            )


def _check_names(circuit: Circuit, stimuli: Mapping[str, Any]) -> None:
    plan = circuit.plan
    taken = {field: variable for (field, _), variable in plan.clamped_sizes.items()}
    for field in stimuli:
        if field not in taken:
            clamps = ", ".join(f"{known} ('{variable}')" for known, variable in taken.items())
            raise NeurosimError(
                f"The stimuli have a field '{field}', which no clamp of '{circuit.name}' names."
                f"{suggest(field, taken)} It clamps {clamps or 'nothing'}."
            )
    for field, variable in taken.items():
        if field not in stimuli:
            hint = suggest(field, _of_loops(plan, variable), 0.7)
            raise NeurosimError(
                f"The stimuli have no field '{field}', which the clamp of '{variable}' needs."
                f"{hint} Got {', '.join(map(str, stimuli)) or 'none'}; wanted {call(circuit)}."
            )


def _of_loops(plan: Plan, variable: str) -> tuple[str, ...]:
    """Return the fields of the loop in which a variable is clamped, which a typo may miss."""
    for phase in plan.phases:
        if phase.turn is not None and tuple(variable.split(".", 1)) in phase.clamps:
            return phase.turn.loop.names
    return ()


def _short(plan: Plan, images: Any, labels: Any) -> Fields:
    fields = {"image": _images(plan, images)}
    samples, classes = len(fields["image"]), plan.stimulus_size("target")
    if classes is not None:
        if labels is None:
            missing = "labels are needed: simulate(circuit, images, labels)"
            raise NeurosimError(f"The circuit clamps a target, so {missing}.")
        fields["target"] = _targets(plan, labels, samples, classes)
    elif labels is not None and np.shape(labels)[:1] != (samples,):
        wanted = f"one for each of the {samples} images"
        raise NeurosimError(f"labels have shape {np.shape(labels)}; wanted {wanted}.")
    return fields


def _fields(plan: Plan, stimuli: Mapping[str, Any]) -> Fields:
    fields: Fields = {}
    for field, values in stimuli.items():
        if field == "image":
            fields[field] = _images(plan, values)
        elif field != "target":
            fields[field] = _values(plan, field, values)
    samples = {field: len(values) for field, values in fields.items()}
    if len(set(samples.values())) > 1:
        counts = ", ".join(f"{field} {count}" for field, count in samples.items())
        raise NeurosimError(f"The fields have different numbers of samples: {counts}.")
    if "target" in stimuli:
        labels = stimuli["target"]
        count = next(iter(samples.values()), len(np.atleast_1d(labels)))
        if not count:
            raise NeurosimError("There are no samples; wanted at least one.")
        classes = plan.stimulus_size("target")
        assert classes is not None  # a clamp names it
        fields["target"] = _targets(plan, labels, count, classes)
    return fields


def _images(plan: Plan, images: Any) -> np.ndarray:
    wanted = "(samples, pixels) or (samples, height, width)"
    images = _rows(plan, "image", images, "images have", wanted)
    pixels = plan.stimulus_size("image")
    if pixels is not None and images.shape[1] != pixels:
        raise NeurosimError(
            f"The images have {images.shape[1]} pixels but the circuit's input takes {pixels}; "
            f"wanted (samples, {pixels}). In a model with sizes, they begin with the number of "
            f"pixels (--set sizes={images.shape[1]},...); stimuli of your own come from --stimuli "
            "FILE.npz."
        )
    if (bad := _not_finite(images)) is not None:
        raise NeurosimError(f"Image {bad} {_CLEAN}")
    return images


def _values(plan: Plan, field: str, given: Any) -> np.ndarray:
    size = plan.stimulus_size(field)
    assert size is not None  # a clamp names it
    wanted, variable = f"(samples, {size})", plan.clamped_sizes[field, size]
    values = _rows(plan, field, given, f"The values of '{field}' have", wanted)
    if values.shape[1] != size:
        raise NeurosimError(
            f"The field '{field}' has {values.shape[1]} values per sample, and '{variable}', which "
            f"is clamped to it, takes {size}; wanted {wanted}."
        )
    if (bad := _not_finite(values)) is not None:
        raise NeurosimError(f"Sample {bad} of the field '{field}' {_CLEAN}")
    return values


def _rows(plan: Plan, field: str, given: Any, they_have: str, wanted: str) -> np.ndarray:
    """Return numbers as (samples, values)."""
    _check_unit(plan, field, given)
    values = np.asarray(given)
    if values.dtype.kind not in "biuf":
        kind = f"the type {values.dtype}"
        raise NeurosimError(f"{they_have} {kind}; wanted an array of numbers, {wanted}.")
    if values.dtype != np.float32:  # data sets of images have it: a copy could be large
        values = values.astype(float)
    if values.ndim < 2:
        raise NeurosimError(f"{they_have} shape {values.shape}; wanted {wanted}.")
    if not len(values):
        raise NeurosimError(f"There are no samples; wanted at least one, {wanted}.")
    return values.reshape(len(values), -1)


def _not_finite(values: np.ndarray) -> int | None:
    """Return the first row with NaN or infinity."""
    finite = np.isfinite(values)
    return None if finite.all() else int(np.argmin(finite.all(axis=1)))


def _check_unit(plan: Plan, field: str, given: Any) -> None:
    """Refuse quantities of another unit than that of an input that is clamped to the field."""
    units = _units(given)
    if units <= {DIMENSIONLESS}:
        return
    if len(units) > 1:
        named = " and ".join(sorted(map(unit_text, units)))
        raise NeurosimError(f"The field '{field}' mixes the units {named}; wanted one.")
    (got,) = units
    for phase in plan.phases:
        for (population, variable), source in phase.clamps.items():
            wanted = plan.populations[population].dimensions[variable]
            if source == field and wanted is not got:
                raise NeurosimError(
                    f"The field '{field}' has the unit {unit_text(got)}, and "
                    f"'{population}.{variable}', which is clamped to it, {unit_text(wanted)}. "
                    "Bare numbers are taken in base SI units."
                )


def _units(given: Any) -> set[Dimension]:
    if isinstance(given, Quantity):
        return {given.dim}
    if isinstance(given, list | tuple):
        return {unit for item in given for unit in _units(item)}
    return {DIMENSIONLESS}


def _targets(plan: Plan, given: Any, samples: int, classes: int) -> np.ndarray:
    """Return targets (samples, classes): those given, or one-hot of class numbers (samples,)."""
    _check_unit(plan, "target", given)
    labels = np.asarray(given)
    if labels.ndim == 2:
        if labels.shape != (samples, classes):
            wanted = (samples, classes)
            raise NeurosimError(f"The targets have shape {labels.shape}; wanted {wanted}.")
        targets = labels.astype(float)
        if not np.isfinite(targets).all():
            raise NeurosimError(f"The targets {_CLEAN.replace('holds', 'hold')}")
        return targets
    if labels.shape != (samples,):
        raise NeurosimError(
            f"labels have shape {labels.shape}; wanted ({samples},), one per sample, or targets of "
            f"shape {(samples, classes)}."
        )
    if not np.issubdtype(labels.dtype, np.integer):
        raise NeurosimError(f"labels have the type {labels.dtype}; wanted whole numbers.")
    if labels.min() < 0 or labels.max() >= classes:
        raise NeurosimError(
            f"labels run from {labels.min()} to {labels.max()} but the circuit's target has "
            f"{classes} classes (0 to {classes - 1}); set sizes to end with the number of classes."
        )
    return np.eye(classes)[labels]
