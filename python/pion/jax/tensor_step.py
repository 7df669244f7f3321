# SPDX-License-Identifier: Apache-2.0
"""One step of a matrix rule on all matrices of a tree by jax.numpy, on any device.

Piece by piece: no map begins before the one before it is done, so that scratch memory is that of
one. Momenta are written last.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from pion._pion import UNIT_RMS_FLOOR
from pion.jax import spectral
from pion.jax.dimensions import Layout, Part
from pion.jax.plan import Plan, Stepped

# Entries of a piece, unless one matrix has more: a map takes some 24 to 32 bytes for each, so
# 64 MiB.
_MOST = 1 << 21


class _Member(NamedTuple):
    """A part of a parameter, whose blocks go through one map."""

    index: int  # of the parameter
    number: int  # of the part
    part: Part


class _Mapped(NamedTuple):
    """A part of a parameter."""

    output: jax.Array  # -s O
    passed: jax.Array  # ||O||_F^2


class _Done(NamedTuple):
    """A parameter."""

    update: jax.Array
    momentum: jax.Array
    sound: jax.Array  # whether it was stepped
    passed: jax.Array


def step(plan: Plan, gradients, momenta, momentum) -> Stepped:
    tree = _Tree(plan, gradients, momenta, plan.momentum if momentum is None else momentum)
    done = tree.done()
    report = [
        jnp.stack((1.0 - one.sound, jnp.where(one.sound, one.passed, 0))).astype(jnp.float32)
        for one in done
    ]
    return Stepped([one.update for one in done], [one.momentum for one in done], jnp.stack(report))


class _Tree:
    """The parameters of one step."""

    def __init__(self, plan: Plan, gradients, momenta, mu):
        self.plan, self.gradients, self.momenta = plan, gradients, momenta
        self.shares = mu, 1 - mu  # of the old momentum and of the gradient
        self.largest: dict[int, list[jax.Array]] = {}
        self.next_shares = self.shares  # as the next piece knows them: not before this one is done

    def done(self) -> list[_Done]:
        groups: dict[tuple, list[_Member]] = {}
        loops: list[int] = []
        for i, (layout, m) in enumerate(zip(self.plan.layouts, self.momenta, strict=True)):
            if len(m) > 1 and m.size > _MOST:
                loops.append(i)
                continue
            for j, part in enumerate(layout.parts()):
                key = (part.block(*m.shape[1:]), layout.transposed, m.dtype)
                groups.setdefault(key, []).append(_Member(i, j, part))
        mapped: dict[tuple[int, int], _Mapped] = {}
        for (block, _, _), members in groups.items():
            for piece in _pieces(members, self.momenta):
                outputs = self._map_piece(block, piece)
                for member, output in zip(piece, outputs, strict=True):
                    mapped[member.index, member.number] = output
        done = {i: self._looped(i) for i in loops}
        return [done[i] if i in done else self._joined(i, mapped) for i in range(len(self.momenta))]

    def _joined(self, i: int, mapped: dict) -> _Done:
        layout, g, m = self.plan.layouts[i], self.gradients[i], self.momenta[i]
        parts = [mapped[i, j] for j in range(len(layout.parts()))]
        passed = sum(part.passed for part in parts)
        # The momentum is written behind the map, so that nothing else reads the old one and the new
        # one may take its memory.
        sound = _all_finite([*self.largest[i], passed])
        output = _concatenated([part.output for part in parts], 1 + layout.axis)
        after = jnp.where(sound, self._averaged(i, g, m, self.shares), m)
        return _Done(jnp.where(sound, output, 0), after, sound, passed)

    def _largest(self, i: int, g, m, shares) -> list[jax.Array]:
        """By part: the largest absolute value of the direction of every block, (blocks, 1, 1).
        Neither gradient nor momentum is read for its finiteness alone: an entry that is not makes
        this value so, and the map needs it."""
        size = jnp.abs(self._direction(i, g, m, shares))
        return [
            jnp.max(part.cut(size), axis=(1, 2), keepdims=True, initial=0)
            for part in self.plan.layouts[i].parts()
        ]

    def _averaged(self, i: int, g, m, shares):
        """The momentum after this gradient, for the matrices of g and m."""
        # in the momentum's type, as the kernels compute: no promotion by a traced scalar
        keep, share = (jnp.asarray(x, m.dtype) for x in shares)
        clean = self._clean(g, m.dtype)
        after = keep * m + share * clean
        return jnp.where(_active(clean), after, m) if self.plan.layouts[i].batch else after

    def _direction(self, i: int, g, m, shares):
        after = self._averaged(i, g, m, shares)
        keep, share = (jnp.asarray(x, m.dtype) for x in shares)
        clean = self._clean(g, m.dtype)
        direction = keep * after + share * clean if self.plan.nesterov else after
        return jnp.where(_active(clean), direction, 0) if self.plan.layouts[i].batch else direction

    def _clean(self, g, dtype):
        g = g.astype(dtype)
        return jnp.where(jnp.isfinite(g), g, 0) if self.plan.zero_nonfinite else g

    def _after(self, passed):
        """What comes later needs the shares, and so these outputs. No optimization_barrier:
        compilers for CPUs remove it before they order operations. A sum of squares is never below
        0, but they do not know."""
        never = jax.lax.stop_gradient(passed) < 0
        self.next_shares = tuple(jnp.where(never, 0.0, share) for share in self.shares)

    def _map_piece(self, block, piece: list[_Member]) -> list[_Mapped]:
        arrays = []
        for member in piece:
            i = member.index
            g, m = self.gradients[i], self.momenta[i]
            if i not in self.largest:
                self.largest[i] = self._largest(i, g, m, self.next_shares)
            arrays.append((g, m, self.largest[i][member.number]))
        outputs = self._map_arrays(block, piece, arrays)
        self._after(sum(output.passed for output in outputs))
        return outputs

    def _looped(self, i: int) -> _Done:
        """A stack of more than _MOST entries in a loop over as many of its matrices as that
        allows."""
        layout, shares = self.plan.layouts[i], self.next_shares
        count, rows, cols = self.momenta[i].shape
        most = max(1, _MOST // (rows * cols))
        at_once = max(d for d in range(1, min(count, most) + 1) if count % d == 0)
        g, m = (
            x.reshape(count // at_once, at_once, rows, cols)
            for x in (self.gradients[i], self.momenta[i])
        )
        largest = jax.lax.map(lambda chunk: self._largest(i, *chunk, shares), (g, m))
        sound = _all_finite(largest)

        def body(k, carry):
            momenta, updates, passed = carry
            own_g, own_m = g[k], momenta[k]
            parts = [
                self._map_arrays(
                    part.block(rows, cols), [_Member(i, j, part)], [(own_g, own_m, largest[j][k])]
                )[0]
                for j, part in enumerate(layout.parts())
            ]
            output = _concatenated([part.output for part in parts], 1 + layout.axis)
            after = jnp.where(sound, self._averaged(i, own_g, own_m, self.shares), own_m)
            return (
                momenta.at[k].set(after),
                updates.at[k].set(jnp.where(sound, output, 0)),
                passed + sum(part.passed for part in parts),
            )

        start = (m, jnp.zeros_like(m), jnp.zeros((), m.dtype))
        after, updates, passed = jax.lax.fori_loop(0, len(g), body, start)
        self._after(passed)
        return _Done(
            updates.reshape(count, rows, cols), after.reshape(count, rows, cols), sound, passed
        )

    def _map_arrays(self, block, piece: list[_Member], arrays) -> list[_Mapped]:
        """From (gradient, momentum, largest) of every member, or of some matrices of them."""
        cuts = [
            m.part.cut(self._direction(m.index, g, momentum, self.next_shares))
            for m, (g, momentum, _) in zip(piece, arrays, strict=True)
        ]
        x, largest = _concatenated(cuts), _concatenated([size for _, _, size in arrays])
        o = spectral.apply(x, largest, self.plan.rule.map(*block)) if x.size else x
        squares = jnp.sum(o * o, axis=(1, 2))
        o = o * -_scale(self.plan, self.plan.layouts[piece[0].index], block, squares)
        outputs, first = [], 0
        for m, (g, _, _), cut in zip(piece, arrays, cuts, strict=True):
            end = first + len(cut)
            outputs.append(_Mapped(m.part.join(o[first:end], len(g)), jnp.sum(squares[first:end])))
            first = end
        return outputs


def _active(clean):
    """A matrix of a stack whose gradient is zero is left alone."""
    return jnp.any(clean != 0, axis=(1, 2), keepdims=True)


def _concatenated(arrays: list, axis: int = 0):
    return jnp.concatenate(arrays, axis) if len(arrays) > 1 else arrays[0]


def _all_finite(arrays: list):
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in arrays]))


def _pieces(members: list[_Member], momenta) -> list[list[_Member]]:
    """As many at once as have _MOST entries together; at least one."""
    result, entries = [], 0
    for member in members:
        count, rows, cols = momenta[member.index].shape
        own = count * rows * cols * member.part.size // max(1, cols if member.part.axis else rows)
        if not result or entries + own > _MOST:
            result.append([])
            entries = 0
        result[-1].append(member)
        entries += own
    return result


def _scale(plan: Plan, layout: Layout, block, squares):
    scale = layout.scale(plan.rule, block)
    if plan.keys.get("scale") != "unit_rms":
        return scale
    norm = spectral.safe_sqrt(squares) * (squares > 0)
    return (scale * math.sqrt(block[0] * block[1]) / (norm + UNIT_RMS_FLOOR))[:, None, None]
