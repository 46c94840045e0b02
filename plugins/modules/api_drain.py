#!/usr/bin/python
# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: api_drain
short_description: Takes a node out of a gateway until nothing is in flight, and puts it back as it was
version_added: 0.1.0
author: [chainops.validator contributors (@chainops)]
description:
  - Runs on the gateway's host, once for each gateway that sends requests to the node.
  - With O(state=drained), remembers how the server was, takes it out of rotation, and waits until it is empty. Empty means
    nothing in flight in O(samples) looks one after the other, and nothing left with a gateway process that a reload replaced.
    When a reload puts the server back into rotation meanwhile, it is taken out again.
  - >-
    Where HAProxy reads the state of its servers from a file when it starts (C(load-server-state-from-file)), a drained server has
    its row there, so that a reload begins with it drained; RV(drain.reload_safe) says so.
  - A timeout is a failure. The server is put back as it was, and what was still in flight is returned in RV(ignore:error).
  - With O(state=active), waits until the gateway's health checks call the server up, then restores exactly how it was before the
    first drain (state and weight). A server that was out of rotation before stays out. Without a record of a
    drain nothing changes.
extends_documentation_fragment:
  - chainops.validator.attributes
  - chainops.validator.attributes.full
  - chainops.validator.gateway
attributes:
  check_mode:
    details: Refusals are predicted, waiting is not.
  idempotent:
    details: Draining again looks again, keeps what is remembered, and renews the receipt.
options:
  state:
    description: How the server is to stand.
    type: str
    choices: [drained, active]
    default: drained
  driver:
    description:
      - The kind of gateway. V(haproxy) needs a C(stats socket) with C(level admin).
      - V(nginx) is the open source one, as root on its host. The server is marked C(down) in its upstreams, the configuration is
        tested, and nginx reloads; requests that old workers still serve are waited for. A configuration that nginx refuses is put
        back. The files are the same, byte for byte, once the server is back. A server is up when it takes a TCP connection.
      - V(node) is no gateway but the node itself, on a chain whose nodes can be paused. It refuses clients' writes, then stops
        mining; put back, it stands as it did before, also when a restart or a restored snapshot has changed it meanwhile. A node
        that was paused before stays as it is. Pause it after every gateway has let go of it, and put it back before they take it
        back. It takes O(api_url) and O(admin_token).
      - V(journal) is no gateway either but the validator's own host. How every gateway has the server (O(looks)) is written down
        there before any of them is touched, and that it is over when all have it back. A gateway that has lost its own record is
        told by O(before).
    type: str
    choices: [haproxy, nginx, node, journal]
    default: haproxy
  server:
    description: The node's server name in the gateway; for O(driver=nginx), its address as the upstream has it.
    type: str
    required: true
  chain:
    description: The chain adapter that speaks to the node, for O(driver=node).
    type: str
    default: xai
  api_url:
    description: The node's API as its host reaches it, for O(driver=node).
    type: str
  api_key:
    description: API key for writes, where the node wants one beside the admin token.
    type: str
  admin_token:
    description: Token for the node's admin routes, for O(driver=node).
    type: str
  state_dir:
    description: Where the validator's instances keep their state, for O(driver=journal); it writes to C(INSTANCE/drain) there.
    type: path
    default: /var/lib/chainops
  looks:
    description: For O(driver=journal), what M(chainops.validator.api_drain_info) returned as C(look), by gateway.
    type: dict
    default: {}
  before:
    description: >-
      How the server was before the drain, state and weight by backend, for a gateway that has no record of the server at all: it
      may have lost its disk meanwhile. One that has a record goes by that. RV(drain.told_by) says which of them it was.
    type: dict
  gateway:
    description: This gateway's name in receipts and messages. Without it, the host's name.
    type: str
  instance:
    description: The validator instance that is drained, for the receipt.
    type: str
    default: ""
  turn_id:
    description: The turn that this drain is for, for the receipt.
    type: str
    default: ""
  fence_token:
    description: >-
      The rollout lock's fencing token. A token lower than the highest that this gateway has seen for the server is refused.
    type: int
    default: 0
  timeout:
    description: Seconds to wait for an empty server (O(state=drained)), or for a server that is up (O(state=active)).
    type: float
    default: 60
  wait:
    description: >-
      With O(state=drained), V(false) only takes the server out, so that several gateways do so at once; the receipt then says
      C(draining), which no turn takes. Run it again to wait.
    type: bool
    default: true
  samples:
    description: How many looks one after the other must find nothing in flight.
    type: int
    default: 3
  interval:
    description: Seconds between two looks.
    type: float
    default: 0.025
  min_active:
    description: Refuse to drain when fewer other servers of a backend would be left that take traffic.
    type: int
    default: 1
  mode:
    description: >-
      V(drain) keeps health checks running, but sticky clients (cookies, stick tables) may still come. V(maint) drains first, then
      closes the server to those as well; nginx lets nobody in either way, and knows V(drain) alone.
    type: str
    choices: [drain, maint]
    default: drain
  long_backends:
    description: >-
      Backends of long polls and websockets, which may never end by themselves. What is left of them past O(long_deadline) is
      ended by the gateway, and reported; also what a process holds that a reload replaced, where HAProxy's master has a socket
      (C(-S)). Without one, only HAProxy's C(hard-stop-after) ends that.
      For O(driver=haproxy) alone; nginx has C(worker_shutdown_timeout) for it.
    type: list
    elements: str
    default: []
  long_deadline:
    description: Seconds that requests in O(long_backends) have from the beginning of the drain.
    type: float
    default: 30
  slow_start:
    description: >-
      With O(state=active), seconds in which the server gets its share of the requests back, a tenth at a time; 0 for all at once.
      For O(driver=haproxy) alone.
    type: float
    default: 0
  lease:
    description:
      - >-
        Seconds for which a watch on this host (the unit C(chainops-drain@SERVER), or a process of its own where there is no
        systemd) takes the server out again when the gateway reloads or restarts, counted anew with each run; 0 for no watch. Then
        it stops and says so in the receipt. It ends when the server is put back, and yields to a newer O(fence_token).
      - The turn takes a receipt for as long as its lease lasts, and without one for two minutes.
    type: float
    default: 0
  lease_end:
    description: >-
      What the watch does when its lease is over. V(leave) touches nothing; V(put_back) puts the server back as O(state=active).
    type: str
    choices: [leave, put_back]
    default: leave
  traffic_timeout:
    description: With O(state=active), how many seconds to watch for the first request. None coming is reported, not a failure.
    type: float
    default: 0
seealso:
  - module: chainops.validator.validator_upgrade
"""

EXAMPLES = r"""
- name: Take the node out of every gateway, and wait until it is empty
  chainops.validator.api_drain:
    state: drained
    socket: /run/haproxy/admin.sock
    server: "{{ validator_gateway_server }}"
    instance: "{{ validator_instance }}"
    turn_id: "{{ rollout_turn_id }}"
    fence_token: "{{ rollout_fence_token }}"
    timeout: 60
  delegate_to: "{{ item }}"
  loop: "{{ groups['gateways'] }}"
  register: rollout_drains

- name: Put it back
  chainops.validator.api_drain:
    state: active
    socket: /run/haproxy/admin.sock
    server: "{{ validator_gateway_server }}"
    fence_token: "{{ rollout_fence_token }}"
    traffic_timeout: 5
  delegate_to: "{{ item }}"
  loop: "{{ groups['gateways'] }}"
"""

RETURN = r"""
drain:
  description: What was done. V(null) when there was nothing to do, and in check mode.
  returned: success
  type: dict
  contains:
    in_flight:
      description: Requests at the server at the end; always 0, or the module has failed.
      returned: state is drained, and it waited
      type: int
      sample: 0
    seconds:
      description: How long it took.
      returned: always
      type: float
      sample: 2.514
    empty_since:
      description: Seconds from the start to the first of the last empty looks.
      returned: state is drained, and it waited
      type: float
      sample: 2.463
    lag:
      description: Seconds from the last look that found something in flight to the end.
      returned: state is drained, and it waited
      type: float
      sample: 0.078
    replaced:
      description: >-
        Gateway processes that a reload replaced and that still held something of the server, by pid, and the most that each held.
        They count as in flight. A failure has those that are left in RV(ignore:error).
      returned: state is drained, and it waited
      type: dict
      sample: {"812": 3}
    ended:
      description: Long requests that were ended at their deadline, by backend.
      returned: state is drained, and it waited
      type: dict
      sample: {ws: 3}
    samples:
      description: How many looks one after the other found nothing in flight.
      returned: state is drained, and it waited
      type: int
      sample: 3
    curve:
      description: Pairs of seconds and requests in flight, one for each change, at most 200.
      returned: state is drained, and it waited
      type: list
      elements: list
      sample: [[0.001, 20], [2.463, 0]]
    reasserted:
      description: How often a reload or somebody else put the server into rotation and it was taken out again.
      returned: state is drained, and it waited
      type: int
      sample: 0
    reloads:
      description: How often the gateway's process was replaced meanwhile.
      returned: state is drained, and it waited
      type: int
      sample: 0
    told_by:
      description: Whose record RV(drain.before) is, V(gateway) or V(validator) (O(before)).
      returned: always
      type: str
      sample: gateway
    reload_safe:
      description: Whether a reload of the gateway begins with the server out. Otherwise it is in until it is taken out again.
      returned: state is drained, and it waited
      type: bool
      sample: true
    reload_why:
      description: Why a reload would let it in, and what to configure; empty when it wouldn't.
      returned: state is drained, and it waited
      type: list
      elements: str
      sample: []
    before:
      description: How the server was in each backend before the first drain.
      returned: always
      type: dict
      sample: {api: {state: ready, weight: 100}}
    traffic:
      description: What came after the server was put back.
      returned: state is active
      type: dict
      sample: {seconds: 0.4, seen: true, sessions: 12}
journal:
  description: The validator's record, with C(before) by gateway. V(null) when there is none.
  returned: driver is journal
  type: dict
  sample:
    state: drained
    turn_id: r1-val1
    fence_token: 7
    before: {gw1: {api: {state: ready, weight: 100}}}
watch:
  description: What the watch over the drain said last. V(null) when there is none, or it has said nothing yet.
  returned: success
  type: dict
  sample: {state: watching, looked_at: {wall: "2026-01-31T12:00:02.123Z"}, reasserted: 1, error: ""}
receipt:
  description:
    - The record that this gateway keeps. V(null) when there is none.
    - C(source_addresses) are those from which this host reaches the server, C(connections) the ports of the connections that
      were open there while nothing was in flight, by address; with C(same_host) the server's address is this host's own, and
      tells nothing. All three are V(null) where they can't be told (HAProxy on another machine).
  returned: success
  type: dict
  sample:
    backend: null
    backends: [api]
    before: {api: {state: ready, weight: 100}}
    checked_at: {boot_id: 1a35c1ff-55a1-4a9d-8a2f-3e4b7ad4a5bd, boottime: 5321.771, wall: "2026-01-31T12:00:00.123Z"}
    connections: {10.0.0.5: [50312]}
    driver: haproxy
    drained_at: {boot_id: 1a35c1ff-55a1-4a9d-8a2f-3e4b7ad4a5bd, boottime: 5321.771, wall: "2026-01-31T12:00:00.123Z"}
    fence_token: 7
    format: chainops.drain/1
    gateway: gw1
    instance: val1
    lease: 900.0
    reasserted: 0
    reload_safe: true
    reloads: 0
    samples: 3
    seconds: 2.514
    same_host: false
    server: val1
    source_addresses: [10.0.0.5]
    state: drained
    turn_id: r1-val1
"""

import dataclasses
import socket

from ansible_collections.chainops.validator.plugins.module_utils._chain.registry import adapter
from ansible_collections.chainops.validator.plugins.module_utils._core.errors import ChainopsError, InputError
from ansible_collections.chainops.validator.plugins.module_utils._gateway import unit, watch
from ansible_collections.chainops.validator.plugins.module_utils._gateway.drain import Drain, Wish
from ansible_collections.chainops.validator.plugins.module_utils._gateway.journal import Journal
from ansible_collections.chainops.validator.plugins.module_utils._gateway.node import NodePause
from ansible_collections.chainops.validator.plugins.module_utils._gateway.protocol import DRAIN, MAINT, READY
from ansible_collections.chainops.validator.plugins.module_utils._gateway.registry import driver, endpoint
from ansible_collections.chainops.validator.plugins.module_utils._host.paths import Home
from ansible_collections.chainops.validator.plugins.module_utils._module.base import ArgumentSpec, Change, run
from ansible_collections.chainops.validator.plugins.module_utils._module.options import GATEWAY


def where(p):
    return endpoint(p["driver"], p["socket"], p["address"], p["config"])


def node(p, wish):
    if not p["api_url"]:
        raise InputError("a node is paused through its API: give its api_url")
    chain = adapter(p["chain"])
    keys = {"timeout": 10.0, "api_key": p["api_key"], "admin_token": p["admin_token"]}
    return NodePause(chain.client(p["api_url"], **keys), chain.admin(p["api_url"], **keys), wish)


def keep(p, wish, drain):
    """Begin, renew or end the watch; returns what it said last. A drain that nobody can watch is not left standing."""
    if p["state"] == "drained" and not p["wait"]:
        return unit.status(wish.receipt_dir, wish.server)
    if p["state"] == "active" or not p["lease"]:
        return unit.stop(wish.receipt_dir, wish.server)
    said = unit.status(wish.receipt_dir, wish.server)
    until = watch.until(wish.lease)
    try:
        unit.start(watch.Lease(p["driver"], where(p), wish, until, p["lease_end"] == "put_back"))
    except (ChainopsError, OSError):
        drain.back()
        unit.stop(wish.receipt_dir, wish.server)
        raise
    return said


def actor(p, wish):
    if p["driver"] == "node":
        return node(p, wish)
    if p["driver"] == "journal":
        place = Home(p["state_dir"], p["instance"]).at("drain")
        return Journal(dataclasses.replace(wish, receipt_dir=place), p["looks"])
    for backend, was in (p["before"] or {}).items():
        known = isinstance(was, dict) and was.get("state") in (READY, DRAIN, MAINT)
        if not known or not isinstance(was.get("weight"), int) or isinstance(was["weight"], bool):
            raise InputError(f"before: {backend!r} must say a state (drain, maint or ready) and a weight")
    return Drain(driver(p["driver"], where(p)), wish, known=p["before"])


def act(module):
    p = module.params
    if not 0.01 <= p["interval"] <= 5 or not 1 <= p["samples"] <= 1000 or p["timeout"] < 0 or p["min_active"] < 0:
        raise InputError("interval must be 0.01 to 5 s, samples 1 to 1000, timeout and min_active not negative")
    if min(p["lease"], p["long_deadline"], p["slow_start"], p["traffic_timeout"]) < 0:
        raise InputError("lease, long_deadline, slow_start and traffic_timeout are seconds, 0 or more")
    own = {"gateway": p["gateway"] or socket.gethostname(), "long_backends": tuple(p["long_backends"])}
    wish = Wish(**own, **{field.name: p[field.name] for field in dataclasses.fields(Wish) if field.name not in own})
    drain = actor(p, wish)
    done = (drain.out if p["state"] == "drained" else drain.back)(module.check_mode)
    change = Change(done["before"], done["after"], header=f"{wish.server} on gateway {wish.gateway}")
    watched = keep(p, wish, drain) if isinstance(drain, Drain) and not module.check_mode else None
    told = {"journal": done["journal"]} if "journal" in done else {}
    return {**change.result(), "drain": done["drain"], "receipt": done["receipt"], "watch": watched, **told}


def main():
    spec = ArgumentSpec(
        GATEWAY,
        state={"type": "str", "choices": ["drained", "active"], "default": "drained"},
        driver={"type": "str", "choices": ["haproxy", "nginx", "node", "journal"], "default": "haproxy"},
        server={"type": "str", "required": True},
        chain={"type": "str", "default": "xai"},
        api_url={"type": "str"},
        api_key={"type": "str", "no_log": True},
        admin_token={"type": "str", "no_log": True},
        state_dir={"type": "path", "default": "/var/lib/chainops"},
        looks={"type": "dict", "default": {}},
        before={"type": "dict"},
        gateway={"type": "str"},
        instance={"type": "str", "default": ""},
        turn_id={"type": "str", "default": ""},
        fence_token={"type": "int", "default": 0, "no_log": False},
        timeout={"type": "float", "default": 60},
        wait={"type": "bool", "default": True},
        samples={"type": "int", "default": 3},
        interval={"type": "float", "default": 0.025},
        min_active={"type": "int", "default": 1},
        mode={"type": "str", "choices": ["drain", "maint"], "default": "drain"},
        lease={"type": "float", "default": 0},
        lease_end={"type": "str", "choices": ["leave", "put_back"], "default": "leave"},
        long_backends={"type": "list", "elements": "str", "default": []},
        long_deadline={"type": "float", "default": 30},
        slow_start={"type": "float", "default": 0},
        traffic_timeout={"type": "float", "default": 0},
    )
    run(spec.module(mutually_exclusive=[("socket", "address")]), act)


if __name__ == "__main__":
    main()
