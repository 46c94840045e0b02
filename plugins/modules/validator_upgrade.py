#!/usr/bin/python
# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: validator_upgrade
short_description: One host's upgrade, or its way back, as a transaction on that host
version_added: 0.1.0
description:
  - Writes the plan of a turn on the host, starts the engine there and waits for it. The engine is one process that does
    everything between stopping the old release and the first block of the new one, writes down each step before it takes it,
    and ends the turn by itself, new or old, when nobody is there any more.
  - Before anything is touched, the engine checks the governance proof against the blocks of the host's own node, the fencing
    token, drain receipts, the release, space and the storage level.
  - The new release must run from the very archive, sign with the expected key, advance, and have its peers' blocks, or the engine
    puts the host back. A node that says it is healthy and stays at its height is put back.
  - A call with the turn_id of a turn that is under way waits for that turn. A call with the turn_id of one that has ended returns
    what it came to. To try again after a turn was put back, use another turn_id.
author:
  - chainops.validator contributors (@chainops)
extends_documentation_fragment:
  - chainops.validator.attributes
  - chainops.validator.attributes.full
  - chainops.validator.instance
  - chainops.validator.roots
  - chainops.validator.turn
attributes:
  check_mode:
    details: Looks at the real preconditions, except the drain, and returns them as RV(preconditions).
options:
  state:
    description:
      - V(upgraded) brings the host to O(release).
      - V(rolled_back) brings a host that was upgraded back to its rollback point, with the data of the snapshot that the manifest
        names and the release before. The key's last-signed state stays what it is. The node then catches up from its peers.
        It is refused where the turn that brought the host here was a point of no return (RV(turn)).
      - V(resumed) begins nothing. The engine of the turn O(turn_id), which is under way or rests, is started again where it
        doesn't work, and waited for. The turn's own plan says what it does. Of the other options only O(fence_token) and
        O(timeout) count.
    type: str
    choices: [upgraded, rolled_back, resumed]
    default: upgraded
  chain:
    description: Which kind of node it is.
    type: str
    default: xai
  api_url:
    description: The node's HTTP API as this host reaches it.
    type: str
    required: true
  turn_id:
    description: Names the turn for good. Another attempt is another turn.
    type: str
    required: true
  rollout_id:
    description: The rollout that the turn belongs to.
    type: str
    required: true
  release:
    description:
      - The release to go to, unpacked on the host already.
      - With O(state=rolled_back) it may be left out; then the manifest says which.
    type: dict
    suboptions:
      id:
        description: Its name, for people.
        type: str
        required: true
      sha256:
        description: Digest of its archive; it names the directory and the turn checks that the process runs from there.
        type: str
        required: true
      version:
        description: What the node tells over HTTP; left out where the chain tells none.
        type: str
      level:
        description: The storage level it needs.
        type: int
      new_block_format:
        description: Whether it signs blocks that the release before doesn't read; once its turn is committed nothing leads back.
        type: bool
        default: false
      dir:
        description: Where it is unpacked. By default C(<state_dir>/<instance>/releases/<sha256>).
        type: path
  data_dir:
    description: The node's data directory; the same as the root named C(data).
    type: path
    required: true
  snapshot_id:
    description:
      - Names the snapshot that this turn seals and would return to.
      - A hot one under this name is brought up to date before the stop.
      - By default C(turn-<turn_id>).
    type: str
  rollback_point:
    description:
      - For O(state=rolled_back), the sealed snapshot to return to. By default what the manifest says.
    type: dict
    suboptions:
      snapshot_id:
        description: Its name.
        type: str
        required: true
      sha256:
        description: Its seal; nothing else is restored.
        type: str
        required: true
  migrations:
    description:
      - Migrations as the release descriptor declares them.
      - With one that is not declared C(reversible), the commit is a point of no return. Before it, the turn can still put the
        host back.
    type: list
    elements: dict
    default: []
  migrate_mode:
    description:
      - V(in_place) migrates the data themselves, which is quicker; the sealed snapshot is what a failure returns to.
      - V(copy) migrates a copy and exchanges it.
    type: str
    choices: [in_place, copy]
    default: in_place
  proof:
    description:
      - What M(chainops.validator.governance_proposal_info) returned as C(proof).
      - Required for O(state=upgraded). The host checks it again, and by C(/etc/chainops/<instance>/gate.json) where there is one,
        which says how strict the proof must be, whose approvals it needs, what rule the network started with, and whether a
        break-glass is taken at all. A file that is broken or that others can write refuses every proof.
    type: dict
  fence_token:
    description: The token that M(chainops.validator.rollout_lock) gave. A lower one than the host has seen is refused.
    type: int
    required: true
  drain_receipts:
    description: What M(chainops.validator.api_drain) returned as C(receipt) on each gateway.
    type: list
    elements: dict
    default: []
  require_drain:
    description: Whether the host may be stopped only with a receipt. Say V(false) only where no gateway leads to the node.
    type: bool
    default: true
  client_addresses:
    description: >-
      Further addresses whose connections to the API must be gone before the stop, all of them, those that are only kept for later
      included. What the gateways themselves name in their receipts is looked for without it.
    type: list
    elements: str
    default: []
  own_sockets:
    description:
      - Whether the host's own sockets must agree with O(drain_receipts). A gateway's receipt names the addresses that it comes
        from and the connections that were open there while nothing was in flight (kept ones, and those of other programs on the
        gateway's host); any other connection from these addresses on which something came in last must be gone within ten
        seconds.
      - Of a gateway on the validator's own host the connections of its program count, not those of its address, which everybody
        there has.
      - Where no connection from these addresses is seen (addresses may be translated on the way), or a receipt names none, the
        host can't tell; the C(check) step's C(unconfirmed) says so, and the receipt stands alone.
      - Say V(false) where something on a gateway's host always opens new connections to the API itself.
    type: bool
    default: true
  expected_address:
    description: The address that the node must sign with, before and after. Left out where the chain doesn't tell it.
    type: str
  peers:
    description: APIs of other nodes, to compare tips with.
    type: list
    elements: str
    default: []
  probe:
    description: When the new release counts as following the chain.
    type: dict
    default: {}
    suboptions:
      deadline:
        description: Seconds from its start.
        type: float
        default: 120
      height_advance:
        description: Blocks that it must have beyond what it and the network had when they first answered.
        type: int
        default: 2
      max_lag:
        description: Blocks that it may be behind its peers.
        type: int
        default: 2
      min_peers:
        description: Peers that must have the same block. By default more than half of O(peers).
        type: int
      signs:
        description: Whether a block must carry its signature, where the chain tells and it is a validator.
        type: bool
        default: true
  budgets:
    description: Seconds that a part of the turn may take. Past them the turn goes back.
    type: dict
    default: {}
    suboptions:
      prepare:
        description: Bringing the hot snapshot up to date; the node runs meanwhile.
        type: float
        default: 3600
      stop:
        description: Stopping the node. By default what the chain's adapter says.
        type: float
      freeze:
        description: Copying what changed last, and sealing.
        type: float
        default: 300
      migrate:
        description: All migrations together, or restoring on a way back.
        type: float
        default: 900
      start:
        description: Until there is a process.
        type: float
        default: 60
      total:
        description: The turn from the guard until the new release follows the chain. Waiting for O(confirm) comes on top.
        type: float
        default: 1800
  stop_window_budget:
    description:
      - Seconds the node may be down; 0 for no limit. Predicted from the hot copy and from this host's earlier turns (the longest
        of the last five) right before the stop; a turn that would take longer ends there, with the running node untouched.
      - What nobody has measured on this host yet counts as nothing and is named in the prediction.
    type: float
    default: 0.0
  kill:
    description:
      - Whether the old release may be killed when it does not stop in time. Without it the turn goes back and says so; a node
        that goes later after all is started again while the turn still looks.
      - What a turn back throws away may be killed in any case. Whatever was killed, by the engine or by the service's manager, is
        told in the step that stopped it, and a snapshot of what it left is not called clean.
    type: bool
    default: false
  confirm:
    description:
      - Wait, before the commit, for somebody's word in the file C(confirm) of the turn's journal directory. C(commit) commits,
        any other word puts the host back and is quoted as the reason.
      - Whatever was said, only a release that follows the chain at that moment is committed.
    type: dict
    suboptions:
      deadline:
        description: How many seconds to wait, however often the engine or the host is restarted meanwhile.
        type: float
        required: true
      on_silence:
        description: What silence means.
        type: str
        choices: [commit, put_back]
        required: true
  wait:
    description: Whether to wait for the end. The turn goes on either way.
    type: bool
    default: true
  timeout:
    description: How many seconds to wait; then the module fails and says how far the turn is. The turn goes on.
    type: float
    default: 1800
seealso:
  - module: chainops.validator.validator_upgrade_info
  - module: chainops.validator.rollout_lock
"""

EXAMPLES = r"""
- name: Upgrade this host
  chainops.validator.validator_upgrade:
    instance: "{{ validator_instance }}"
    chain: xai
    api_url: "{{ validator_api_url }}"
    turn_id: "{{ rollout_id }}-{{ validator_instance }}-1"
    rollout_id: "{{ rollout_id }}"
    release:
      id: "2.0.0"
      sha256: "{{ rollout_release.artifacts.x86_64.sha256 }}"
      version: "2.0.0"
      level: 2
    release_link: "{{ validator_release_link }}"
    service: "{{ validator_service }}"
    data_dir: "{{ validator_data_dir }}"
    roots: "{{ validator_roots }}"
    migrations: "{{ rollout_release.migrations }}"
    proof: "{{ gate.proof }}"
    fence_token: "{{ lock.lock.token }}"
    drain_receipts: "{{ drains | map(attribute='receipt') }}"
    expected_address: "{{ validator_address }}"
    peers: ["http://10.0.0.2:8545", "http://10.0.0.3:8545"]

- name: Take it back to where it was
  chainops.validator.validator_upgrade:
    state: rolled_back
    instance: "{{ validator_instance }}"
    api_url: "{{ validator_api_url }}"
    turn_id: "{{ rollout_id }}-{{ validator_instance }}-back"
    rollout_id: "{{ rollout_id }}"
    release_link: "{{ validator_release_link }}"
    service: "{{ validator_service }}"
    data_dir: "{{ validator_data_dir }}"
    roots: "{{ validator_roots }}"
    fence_token: "{{ lock.lock.token }}"
    drain_receipts: "{{ drains | map(attribute='receipt') }}"
    peers: ["http://10.0.0.2:8545", "http://10.0.0.3:8545"]
"""

RETURN = r"""
turn:
  description:
    - What the turn came to, or how far it is. The same as C(result.json) on the host.
    - C(outcome) is V(committed), V(put_back) (the host is as it was), V(failed) (somebody has to look), V(running), or in
      check mode V(predicted).
    - C(predicted_stop_window) is what was predicted right before the stop, C(stop_window_seconds) what it took.
    - C(old_trees) were put aside by this turn, and are kept until the rollout is finished.
    - C(one_way) says why nothing leads back once the turn is committed; empty when something does. Check mode says it beforehand.
    - C(confirmed) is whether somebody said so, V(false) when silence was taken for it, and null where nobody was waited for.
  returned: always, unless the options were refused
  type: dict
  sample:
    id: prop-7-node1-1
    outcome: committed
    reason: null
    direction: forward
    touched: true
    stop_window_seconds: 3.4
    predicted_stop_window:
      seconds: 3.1
      parts: {stop: 1.0, freeze: 0.4, migrate: 0.0, start: 1.7}
      unknown: []
      turns: 2
      budget: 10.0
    freeze_seconds: 0.4
    one_way: []
    confirmed: null
    heights: {own_at_stop: 812, network_at_stop: 812, own_at_end: 817, network_at_end: 817}
    snapshot: {id: turn-prop-7-node1-1, sha256: "5e88489…", path: "/var/lib/xai/.chainops/node1/snapshots/…", clean: true}
    old_trees: []
    watermark: {before: {height: 812, round: 0, step: 3, address: TXAI1}, after: {height: 817, round: 0, step: 3, address: TXAI1}}
    old: {path: "/var/lib/chainops/node1/releases/9f86…", sha256: "9f86…", level: 1}
    new: {path: "/var/lib/chainops/node1/releases/60303…", sha256: "60303…", id: "2.0.0", version: "2.0.0", level: 2}
    steps:
      - {name: check, way: forward, state: done, at: 1767225600.0, seconds: 0.2}
preconditions:
  description: What would keep the turn from beginning now.
  returned: in check mode
  type: list
  elements: str
  sample: []
"""

import os
import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.chainops.validator.plugins.module_utils._core.errors import InputError
from ansible_collections.chainops.validator.plugins.module_utils._host import control, engine_main, turn
from ansible_collections.chainops.validator.plugins.module_utils._host.paths import Home
from ansible_collections.chainops.validator.plugins.module_utils._module import options
from ansible_collections.chainops.validator.plugins.module_utils._module.base import ArgumentSpec, Change, run
from ansible_collections.chainops.validator.plugins.module_utils._module.turn_options import TURN, service_spec


def request_of(params: t.Mapping[str, t.Any]) -> control.Request:
    """What was asked for, completed from the manifest for a way back."""
    back = params["state"] == control.ROLLED_BACK
    release, point, proof_sha256 = params["release"], params["rollback_point"], None
    if back and (release is None or point is None):
        known = control.way_back(params)
        release, point, proof_sha256 = release or known["release"], point or known["back_to"], known["proof_sha256"]
    if release is None:
        raise InputError("release is missing: id and sha256 of the release to go to")
    if not back and not params["proof"]:
        raise InputError("proof is missing: nothing is upgraded without what governance_proposal_info returns as proof")
    request = control.Request(
        state=params["state"],
        instance=params["instance"],
        state_dir=params["state_dir"],
        chain=params["chain"],
        api_url=params["api_url"],
        turn_id=params["turn_id"],
        rollout_id=params["rollout_id"],
        release=release,
        release_link=params["release_link"],
        service=service_spec(params),
        data_dir=params["data_dir"],
        roots=params["roots"],
        snapshot_id=params["snapshot_id"] or f"turn-{params['turn_id']}",
        back_to=point if back else None,
        migrations=params["migrations"],
        proof=params["proof"] or {},
        proof_sha256=proof_sha256,
        fence_token=params["fence_token"],
        drain_receipts=params["drain_receipts"],
        require_drain=params["require_drain"],
        client_addresses=params["client_addresses"],
        own_sockets=params["own_sockets"],
        expected_address=params["expected_address"] or None,
        peers=params["peers"],
        probe=params["probe"],
        budgets=params["budgets"],
        policy={
            "kill": params["kill"],
            "migrate": params["migrate_mode"],
            "stop_window_budget": params["stop_window_budget"],
        },
        confirm=params["confirm"],
    )
    control.validate(request)
    return request


def act(module: AnsibleModule) -> dict[str, t.Any]:
    params = module.params
    if params["state"] == control.RESUMED:
        return resume(module)
    request = request_of(params)
    there = control.survey(request)
    decision = control.decide(request, there)
    change = Change(control.side(request, there, after=False), control.side(request, there, after=decision.kind == "start"))
    if decision.kind == "nothing":
        return {**change.result(), "msg": decision.reason, "turn": control.untouched(request, there)}
    if module.check_mode and decision.kind == "start":
        found = control.preconditions(request, there)
        return {**change.result(), "msg": decision.reason, "turn": control.predicted(request, there), "preconditions": found}
    if decision.kind == "start":
        control.begin(request, there)
    elif decision.kind == "attach" and not module.check_mode:
        control.attach(request)
    home = control.home_of(request)
    waits = params["wait"] and decision.kind != "ended" and not module.check_mode
    result = control.wait(home, request.turn_id, params["timeout"] if waits else 0.0)
    if waits:
        control.keep(home, params["fence_token"])
    changed = decision.kind != "ended" and bool(result["touched"])
    answer = {**change.result(), "changed": changed, "msg": control.sentence(result), "turn": result}
    if result["outcome"] == turn.COMMITTED or (result["outcome"] == turn.RUNNING and not waits):
        return answer
    module.fail_json(**answer)
    raise AssertionError("fail_json returned")


def resume(module: AnsibleModule) -> dict[str, t.Any]:
    """Whatever the turn came to is an answer; only a turn that still isn't over is a failure."""
    params = module.params
    home = Home(params["state_dir"], params["instance"])
    if module.check_mode:
        result = control.outcome(home, params["turn_id"])
        if result is None:
            raise InputError(f"turn {params['turn_id']} is not under way on {home.instance}")
    else:
        result = control.resume(home, params["turn_id"], params["fence_token"], params["timeout"])
        control.keep(home, params["fence_token"])
    answer = {
        "changed": bool(result["touched"]),
        "diff": {"before": {}, "after": {}},
        "msg": control.sentence(result),
        "turn": result,
    }
    # What rests has failed by its result, and is open all the same.
    if engine_main.open_turn(home) == params["turn_id"] and not module.check_mode:
        module.fail_json(**answer)
    return answer


OPTIONS: dict[str, t.Any] = {
    "state": {"type": "str", "choices": [control.UPGRADED, control.ROLLED_BACK, control.RESUMED], "default": control.UPGRADED},
    "chain": {"type": "str", "default": "xai"},
    "api_url": {"type": "str", "required": True},
    "turn_id": {"type": "str", "required": True},
    "rollout_id": {"type": "str", "required": True},
    "release": {
        "type": "dict",
        "options": {
            "id": {"type": "str", "required": True},
            "sha256": {"type": "str", "required": True},
            "version": {"type": "str"},
            "level": {"type": "int"},
            "new_block_format": {"type": "bool", "default": False},
            "dir": {"type": "path"},
        },
    },
    "data_dir": {"type": "path", "required": True},
    "snapshot_id": {"type": "str"},
    "rollback_point": {
        "type": "dict",
        "options": {"snapshot_id": {"type": "str", "required": True}, "sha256": {"type": "str", "required": True}},
    },
    "migrations": {"type": "list", "elements": "dict", "default": []},
    "migrate_mode": {"type": "str", "choices": ["in_place", "copy"], "default": "in_place"},
    "proof": {"type": "dict"},
    "fence_token": {"type": "int", "required": True, "no_log": False},
    "drain_receipts": {"type": "list", "elements": "dict", "default": []},
    "require_drain": {"type": "bool", "default": True},
    "client_addresses": {"type": "list", "elements": "str", "default": []},
    "own_sockets": {"type": "bool", "default": True},
    "expected_address": {"type": "str"},
    "peers": {"type": "list", "elements": "str", "default": []},
    "probe": {
        "type": "dict",
        "default": {},
        "apply_defaults": True,
        "options": {
            "deadline": {"type": "float", "default": 120},
            "height_advance": {"type": "int", "default": 2},
            "max_lag": {"type": "int", "default": 2},
            "min_peers": {"type": "int"},
            "signs": {"type": "bool", "default": True},
        },
    },
    "budgets": {
        "type": "dict",
        "default": {},
        "apply_defaults": True,
        "options": {
            "prepare": {"type": "float", "default": 3600},
            "stop": {"type": "float"},
            "freeze": {"type": "float", "default": 300},
            "migrate": {"type": "float", "default": 900},
            "start": {"type": "float", "default": 60},
            "total": {"type": "float", "default": 1800},
        },
    },
    "stop_window_budget": {"type": "float", "default": 0.0},
    "kill": {"type": "bool", "default": False},
    "confirm": {
        "type": "dict",
        "options": {
            "deadline": {"type": "float", "required": True},
            "on_silence": {"type": "str", "choices": ["commit", "put_back"], "required": True},
        },
    },
    "wait": {"type": "bool", "default": True},
    "timeout": {"type": "float", "default": 1800},
}


def main() -> None:
    os.umask(0o022)
    run(ArgumentSpec(options.INSTANCE, options.ROOTS, TURN, **OPTIONS).module(), act)


if __name__ == "__main__":
    main()
