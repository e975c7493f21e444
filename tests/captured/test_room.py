"""Graphs with room to grow predict what they do without it."""

from __future__ import annotations

import pytest
import torch

from phicalc.captured.room import Room, filled_up, room_for
from phicalc.captured.step import with_guess
from phicalc.derivatives import predict

from .cases import HEADS, STRUCTURES, assert_same, expected, make_potential, prepared


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("more", [0, 1, 37])
def test_what_fills_up_does_not_count(head: str, structure: str, more: int) -> None:
    atoms = STRUCTURES[structure]()
    potential = make_potential(head, atoms)
    graph = prepared(potential, atoms)
    needed = room_for(graph)
    room = Room(*(n + more if n else 0 for n in needed))
    filled = filled_up(graph, room)
    assert room_for(filled) == room._replace(edges=room.edges + 1)
    found = predict(potential, filled, stress=bool(atoms.pbc.all()))
    assert_same(found, expected(potential, atoms))


def test_what_the_network_says_in_single_precision_keeps_every_bit() -> None:
    atoms = STRUCTURES["salt"]()
    potential = make_potential("latent", atoms).float()
    graph = prepared(potential, atoms)
    filled = filled_up(graph, room_for(graph).with_reserve())
    found, plain = (predict(potential, each) for each in (filled, graph))
    # only sums in double precision may run in another order, which depends on the processor
    torch.testing.assert_close(found.energy, plain.energy, rtol=0, atol=1e-12)
    torch.testing.assert_close(found.charges, plain.charges, rtol=0, atol=1e-12)


def test_room_holds_what_is_needed_and_no_more() -> None:
    small = Room(10, 4, 0, 3, 0, 0, 0, 0)
    large = small._replace(edges=11)
    assert large.holds(small)
    assert large.holds(large)
    assert not small.holds(large)
    reserve = large.with_reserve()
    assert reserve.holds(large)
    assert reserve.pairs == 0  # what there is none of gets no room
    assert reserve.edges % 256 == 0


def test_guess_is_there_in_any_case() -> None:
    atoms = STRUCTURES["molecule"]()
    graph = prepared(make_potential("acks2", atoms), atoms)
    guess = torch.ones(len(atoms), dtype=torch.float64)
    assert not with_guess(graph).charge_guess.any()
    assert torch.equal(with_guess(graph._replace(charge_guess=guess)).charge_guess, guess)
