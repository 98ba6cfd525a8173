"""For the API pages: each name of a docstring line such as ``dtype, device`` gets its own type and default; griffe gives all those of the first."""

from __future__ import annotations

from typing import Any

import griffe


class Defaults(griffe.Extension):
    """Corrects the parsed docstrings of a package when it has been loaded."""

    def on_package(self, *, pkg: griffe.Module, **kwargs: Any) -> None:
        self._correct(pkg)

    def _correct(self, item: griffe.Object) -> None:
        if item.docstring is not None and (item.is_function or item.is_class):
            own = {p.name: p for p in item.parameters}  # type: ignore[attr-defined]
            for section in item.docstring.parsed:
                if section.kind is griffe.DocstringSectionKind.parameters:
                    for said in section.value:
                        if said.name in own:
                            said.annotation, said.value = own[said.name].annotation, own[said.name].default
        for member in item.members.values():
            if not member.is_alias:
                self._correct(member)  # type: ignore[arg-type]
