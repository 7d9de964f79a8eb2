"""Kernel names that a person can read and that stay the same from build to build."""

from __future__ import annotations

import re

_STATIC = re.compile(r"^__nv_static_(\d+)_")
_NAMESPACES = re.compile(r"(?<![\w:])(?:[A-Za-z_]\w*::)+(?=[A-Za-z_{~])")
_ANONYMOUS = re.compile(r"\(anonymous namespace\)::|_GLOBAL__N__\w+::")
_ARCH_SUFFIX = re.compile(r"[-_.]?sm_?\d+[a-z]?$")


def plain_symbol(symbol: str) -> str:
    """Take off what nvcc puts before static kernels of relocatable objects: a hash of the source file's path."""
    match = _STATIC.match(symbol)
    if match:
        rest = symbol[match.end() + int(match[1]) + 1 :]
        if rest:
            return rest
    return symbol


def signature(demangled: str) -> str:
    """Name, template arguments and parameters, without return type and anonymous namespaces."""
    text = _ANONYMOUS.sub("", " ".join(demangled.split()))
    opening = _parameters(text)
    head, parameters = (text, "") if opening is None else (text[:opening], text[opening:])
    return _without_return_type(head) + parameters


def short(demangled: str) -> str:
    """Name and template arguments alone: ``void geo::scale<geo::Relu, 4>(float*)`` -> ``scale<Relu, 4>``."""
    text = signature(demangled)
    opening = _parameters(text)
    head = text if opening is None else text[:opening]
    return _NAMESPACES.sub("", head).replace("> >", ">>")


def of_file(stem: str) -> str:
    """``add-float32-sm_90`` -> ``add-float32``: the architecture has a column of its own."""
    return _ARCH_SUFFIX.sub("", stem) or stem


def _parameters(text: str) -> int | None:
    """Where the parameter list opens: at the bracket that belongs to the last closing one."""
    if not text.endswith(")"):
        return None
    depth = 0
    for i in range(len(text) - 1, -1, -1):
        depth += {")": 1, "(": -1}.get(text[i], 0)
        if depth == 0:
            return i
    return None


def _without_return_type(head: str) -> str:
    depth = 0
    for i in range(len(head) - 1, -1, -1):
        depth += {">": 1, ")": 1, "<": -1, "(": -1}.get(head[i], 0)
        if depth == 0 and head[i] == " ":
            return head[i + 1 :]
    return head
