# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a node may be stopped without losing what it has accepted.

A client that got a 200 for a transaction counts on it. When the node that gave it stops before any other node has heard of the
transaction, it is gone, the client sends it again or spends the same coins elsewhere, and both may surface later: the window for
a double spend. So every transaction must be in a block, or with another node.
"""

from __future__ import annotations

import typing as t

from .._core.errors import ChainopsError, Unreachable
from .protocol import NodeClient


def stranded(node: NodeClient, others: t.Sequence[NodeClient]) -> list[str] | None:
    """Ids of the node's pending transactions that no other node has, pending or in a block; None where the node can't tell.

    What the others have pending is asked for at once; only what is not among it is asked for by itself. Raises Unreachable when
    nobody else answers: then nobody else can be said to have anything.
    """
    pending = node.pending_transactions()
    if pending is None:
        return None
    left = {str(tx["txid"]) for tx in pending}
    answered = 0
    for other in others:
        if not left:
            break
        try:
            left -= {str(tx["txid"]) for tx in other.pending_transactions() or ()}
            left -= {txid for txid in sorted(left) if other.transaction(txid) is not None}
            answered += 1
        except ChainopsError:
            continue
    if left and not answered:
        raise Unreachable(
            f"none of {len(others)} other nodes says whether it has the {len(left)} pending transactions of this one"
        )
    # What got into a block while the others were asked has left the node's own list.
    return sorted(txid for txid in left if (node.transaction(txid) or {"state": "included"})["state"] == "pending")
