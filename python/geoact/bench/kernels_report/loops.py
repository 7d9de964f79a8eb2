"""Loops of a kernel, found in its machine code.

Basic blocks, dominators, natural loops: an edge back to a block that dominates its source closes a loop, whose body is
every block that reaches that source without passing the head. Guessing from backward jumps alone would take a cold
block that the compiler moved behind the kernel for a loop.

What static code cannot tell: how often a loop runs; where an indirect branch (``BRX``, a switch) goes, so code that
only a switch reaches is in no loop; what a called function does (its instructions are not in the caller's loop).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from geoact.bench.kernels_report.instructions import Instruction

_JUMPS = frozenset({"BRA", "JMP"})
_INDIRECT = frozenset({"BRX", "BRXU", "JMX", "JMXU"})
_ENDS = frozenset({"EXIT", "RET", "KILL"})
_SYNCS = frozenset({"BSYNC", "WARPSYNC"})
_CONDITIONAL = frozenset({"DIV", "CONV", "U", "ANY"})


class Loop(NamedTuple):
    """One innermost loop: its instructions in the order of their addresses, padding left out."""

    body: tuple[Instruction, ...]


@dataclass
class _Graph:
    """Basic blocks as ranges of instruction indices, and their successors."""

    starts: list[int]
    ends: list[int]
    next: list[list[int]]


def target(instruction: Instruction) -> int | None:
    """The address a branch names, or None."""
    word = instruction.operands.rpartition(",")[2].strip()
    if not word.startswith("0x"):
        return None
    try:
        return int(word, 16)
    except ValueError:
        return None


def innermost(instructions: Sequence[Instruction]) -> list[Loop]:
    """All innermost loops of one function."""
    if not instructions:
        return []
    graph = _blocks(instructions)
    bodies = _natural_loops(graph)
    loops = []
    for head, body in sorted(bodies.items()):
        if any(other in body for other in bodies if other != head):
            continue
        inside = (instructions[i] for block in sorted(body) for i in range(graph.starts[block], graph.ends[block]))
        loops.append(Loop(tuple(one for one in inside if one.opcode != "NOP")))
    return loops


def hottest(loops: Sequence[Loop]) -> Loop:
    """The innermost loop with the most instructions, the first of equals; an empty one if there is none."""
    return max(loops, key=lambda loop: len(loop.body), default=Loop(()))


def _blocks(code: Sequence[Instruction]) -> _Graph:
    addresses = [one.address for one in code]

    def index(address: int | None) -> int | None:
        if address is None:
            return None
        place = bisect_left(addresses, address)
        return place if place < len(code) and addresses[place] == address else None

    follows: dict[int, list[int]] = {}
    open_regions: dict[str, int | None] = {}
    for i, one in enumerate(code):
        if one.opcode == "BSSY":
            # The nearest BSSY above names the place where the warp meets again; registers B0, B1, ... are reused.
            open_regions[one.operands.partition(",")[0].strip()] = index(target(one))
            continue
        if one.opcode in _JUMPS:
            to = [index(target(one))]
            conditional = one.guarded or "," in one.operands or not _CONDITIONAL.isdisjoint(one.modifiers)
        elif one.opcode in _SYNCS:
            to = [open_regions.get(one.operands.strip()) if one.opcode == "BSYNC" else index(target(one))]
            conditional = True
        elif one.opcode in _ENDS or one.opcode in _INDIRECT:
            to, conditional = [], one.guarded
        else:
            continue
        follows[i] = [place for place in to if place is not None] + (
            [i + 1] if conditional and i + 1 < len(code) else []
        )

    leaders = sorted({0, *(i + 1 for i in follows if i + 1 < len(code)), *(i for to in follows.values() for i in to)})
    block_of = {leader: block for block, leader in enumerate(leaders)}
    ends = [*leaders[1:], len(code)]
    successors = []
    for block, end in enumerate(ends):
        last = end - 1
        if last in follows:
            successors.append([block_of[i] for i in follows[last]])
        else:
            successors.append([block + 1] if block + 1 < len(leaders) else [])
    return _Graph(leaders, ends, successors)


def _reverse_postorder(graph: _Graph) -> list[int]:
    seen, order = {0}, []
    stack = [(0, iter(graph.next[0]))]
    while stack:
        block, rest = stack[-1]
        for successor in rest:
            if successor not in seen:
                seen.add(successor)
                stack.append((successor, iter(graph.next[successor])))
                break
        else:
            order.append(block)
            stack.pop()
    return order[::-1]


def _natural_loops(graph: _Graph) -> dict[int, set[int]]:
    """Head block -> blocks of its loop, for every reducible loop that the entry reaches."""
    order = _reverse_postorder(graph)
    rank = {block: i for i, block in enumerate(order)}
    before: dict[int, list[int]] = {block: [] for block in order}
    for block in order:
        for successor in graph.next[block]:
            before[successor].append(block)

    # Cooper, Harvey, Kennedy: "A simple, fast dominance algorithm".
    dominator = {order[0]: order[0]}
    changed = True
    while changed:
        changed = False
        for block in order[1:]:
            known = [one for one in before[block] if one in dominator]
            found = known[0]
            for other in known[1:]:
                left, right = found, other
                while left != right:
                    while rank[left] > rank[right]:
                        left = dominator[left]
                    while rank[right] > rank[left]:
                        right = dominator[right]
                found = left
            if dominator.get(block) != found:
                dominator[block] = found
                changed = True

    loops: dict[int, set[int]] = {}
    for block in order:
        for head in graph.next[block]:
            above = block
            while rank[above] > rank[head]:
                above = dominator[above]
            if above == head:
                body = loops.setdefault(head, {head})
                waiting = [block]
                while waiting:
                    one = waiting.pop()
                    if one not in body:
                        body.add(one)
                        waiting.extend(before[one])
    return loops
