"""Citations: values of a circuit, their BibTeX entries, and what reports print of them.

Oracles: entries and keys written down here by hand; a regular expression that reads a printed entry back.
"""

from __future__ import annotations

import pickle
import re
from dataclasses import replace

import pytest
from circuits import alone, cell, changed

import neurosim
from neurosim import SOURCE, Circuit, Citation, Phase, Population, Protocol, registry
from neurosim.describe.references import line, short
from neurosim.errors import CircuitError

OJA = Citation("A simplified neuron model as a principal component analyzer", "Oja, E.", 1982)
RAO = Citation(
    "Predictive coding in the visual cortex", "Rao, R. P. N. and Ballard, D. H.", 1999,
    "@Article{rao1999, journal = {Nature Neuroscience}, volume = 2, pages={79--87}}", "after the idea; numbers are ours.",
)  # fmt: skip


def cited(*citations: Citation) -> Circuit:
    c = cell("du/dt = (-u + k)/tau : 1; r = u : 1", tau="10*ms", k=1.0)
    return changed(alone(c, 2), citations=citations)


def test_the_entry_holds_what_the_citation_says_and_the_further_fields():
    assert RAO.entry == (
        "@article{rao1999,\n  author = {Rao, R. P. N. and Ballard, D. H.},\n"
        "  title = {Predictive coding in the visual cortex},\n  year = {1999},\n"
        "  journal = {Nature Neuroscience},\n  volume = {2},\n  pages = {79--87}\n}"
    )
    assert line(RAO) == (
        "R. P. N. Rao, D. H. Ballard. Predictive coding in the visual cortex. Nature Neuroscience 2:79--87. 1999."
    )


def test_fields_in_quotes_and_bare_numbers():
    bibtex = '@Article{a1,\n title = "On {X}, {y}", year = 1999, author = {A, B.}, note={a {b} c},}'
    citation = Citation("On {X}, {y}", "A, B.", 1999, bibtex)
    assert (citation.kind, citation.key) == ("article", "a1")
    assert citation.fields == {"author": "A, B.", "title": "On {X}, {y}", "year": "1999", "note": "a {b} c"}
    assert line(citation) == "B. A. On {X}, {y}. a {b} c. 1999."


@pytest.mark.parametrize(
    ("title", "authors", "key"),
    [
        (OJA.title, OJA.authors, "oja1982simplified"),
        ("On the Way", 'M\\"uller, M. and Rao, R.', "muller1982"),
        ("A {Hebbian} rule", "{the neurosim developers}", "theneurosimdevelopers1982hebbian"),
        ("漢", "漢", "anonymous1982"),
    ],
)
def test_without_bibtex_the_key_is_made_of_author_year_and_title(title, authors, key):
    citation = Citation(title, authors, 1982)
    assert (citation.kind, citation.key) == ("misc", key)
    assert set(citation.fields) == {"author", "title", "year"}


@pytest.mark.parametrize(
    ("authors", "text"),
    [
        ("Oja, E.", "Oja 1982"),
        ("Rao, R. P. N. and Ballard, D. H.", "Rao & Ballard 1982"),
        ("A, B. and C, D. and E, F.", "A, C & E 1982"),
        ("Laborieux, A. and others", "Laborieux et al. 1982"),
        ("A, B. and C, D. and others", "A, C et al. 1982"),
        ('M\\"uller, M.', "Müller 1982"),
        ("{the neurosim developers}", "the neurosim developers 1982"),
    ],
)
def test_short_form(authors, text):
    assert short(Citation("T", authors, 1982)) == text


def test_reports_print_papers_and_notes():
    text = " ".join(neurosim.describe(cited(RAO, OJA)).split())
    assert "Source Rao & Ballard 1999 [1]: after the idea; numbers are ours. Oja 1982 [2]. Populations" in text
    assert "[2] E. Oja. A simplified neuron model as a principal component analyzer. 1982." in text


def test_a_citation_of_the_software_stands_once():
    own = Citation("Brian 2", "Stimberg, M.", 2019, "@misc{stimberg2019brian}", "cells")
    keys = re.findall(r"^@\w+\{(.+),$", neurosim.describe(cited(own), "bibtex"), re.MULTILINE)
    assert keys == ["stimberg2019brian", "neurosim", "paszke2019pytorch", "harris2020numpy", "nordlie2009"]


@pytest.mark.parametrize(
    ("bibtex", "message"),
    [
        ("@misc{a, volume = {x}", "Citation of 'T': the braces of '@misc{a, volume = {x}...' are not closed; close the BibTeX entry."),
        ("@misc{volume = {x}}", "got the BibTeX entry '@misc{volume = {x}'; expected a key, then a comma and the fields."),
        ("@misc{a, volume = }", "the field 'volume' of 'a' has no value; expected volume = {...}."),
        ("@misc{a, volume = {x} ; number}", "cannot read '; number' in the BibTeX entry 'a'; expected name = {value}, with commas between."),
        ("@misc{a, number = 1}\n@misc{b}", "got '@misc{b}' after the BibTeX entry; expected one entry. Give every paper a Citation of its own."),
        ("Oja 1982", "got bibtex = 'Oja 1982'; expected one entry, such as '@article{key, journal = {Nature}}'."),
        ("@misc{a, year = 1981}", "bibtex says year = {1981}; expected {1982}, as given before it. Leave year out of bibtex."),
        ("@misc{a, title = {Other}}", "bibtex says title = {Other}; expected {T}, as given before it. Leave title out of bibtex."),
    ],
)  # fmt: skip
def test_bibtex_that_cannot_be_read(bibtex, message):
    with pytest.raises(CircuitError) as error:
        Citation("T", "Oja, E.", 1982, bibtex)
    assert str(error.value).startswith("Citation of 'T': ") and message in str(error.value)


def test_two_citations_of_one_key_are_refused():
    with pytest.raises(CircuitError) as error:
        cited(RAO, replace(OJA, bibtex="@misc{rao1999}"))
    assert str(error.value) == (
        "Circuit 'net': two citations have the BibTeX key 'rao1999'; expected a key for each. Give one of them "
        "another: bibtex='@misc{rao1999b}'."
    )


def test_the_former_word_is_refused_with_what_to_write():
    with pytest.raises(CircuitError) as error:
        changed(alone(cell("du/dt = -u/tau : 1; r = u : 1", tau="10*ms")), citation="Oja 1982")
    assert str(error.value) == (
        "Circuit has no argument 'citation': write citations=(Citation(title, authors, year, bibtex, note),); the note "
        "says what is read in the paper and what is a reconstruction."
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (RAO, "citations = a Citation; wanted a list of objects of type Citation. Write (VALUE,), with its comma"),
        ("Oja 1982", "citations = 'Oja 1982'; wanted a list of objects of type Citation"),
        ((1,), "citations = (1,); wanted a list of objects of type Citation"),
    ],
)
def test_what_is_not_a_list_of_citations_is_refused(given, message):
    with pytest.raises(CircuitError, match=re.escape(message)):
        changed(cited(), citations=given)


def test_citations_are_values():
    again = pickle.loads(pickle.dumps(RAO))
    assert again == RAO and again.entry == RAO.entry and hash(again) == hash(RAO)
    with pytest.raises(TypeError):
        again.fields["year"] = "2000"
    assert replace(RAO, note="").entry == RAO.entry
    assert replace(RAO, year=2000).fields["year"] == "2000"


@pytest.mark.parametrize("name", registry.names())
def test_every_model_says_what_is_read_and_what_is_ours(name):
    for citation in registry.model(name).circuit().citations:
        said = re.search(r"ours|reconstruction|from memory|public code", citation.note)
        assert said, citation.note


def test_no_citations():
    circuit = Circuit("c", [Population("inp", 1, SOURCE)], Protocol((Phase("p", "1*ms"),)))
    assert circuit.citations == ()
