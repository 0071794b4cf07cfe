#!/usr/bin/env python3
"""Guest instructions per packet of IPVS, and the base lines an XDP program
needs for comparison.   ./bench.py > bench.scenario.json; ./run bench.scenario.json
Under -icount shift=0 one "ns" is one guest instruction.
"""
import json
V = "192.0.2.1"
pkt = lambda p, port=80: {"op": p, "src": "203.0.113.1:%d" % port, "dst": V + ":80", "len": 0 if p == "ack" else 10}
ev = []
N = 20000
def bench(label, packet, **kw):
    ev.append(dict({"op": "bench", "label": label, "count": N, "packet": packet}, **kw))
def svc(proto, port, method):
    return {"vip": V, "port": port, "proto": proto, "sched": "rr", "id": "%s%d" % (proto, port), "servers": [{"rip": "10.0.1.1", "port": port if method != "masq" else 8080, "weight": 1, "method": method}]}
services = [svc("tcp", 80, "dr"), svc("udp", 80, "dr"), svc("tcp", 81, "ipip"), svc("tcp", 82, "gre"), svc("tcp", 83, "gue"), svc("tcp", 84, "masq")]
def est(port):
    for o in ("syn", "ack"):
        ev.append({"op": o, "src": "203.0.113.1:1000", "dst": "%s:%d" % (V, port)})
bench("base: frame for another MAC, dropped in ip_rcv", pkt("ack"), dmac="020000000099")
bench("base: ip_forward of the packet by route, no IPVS service", {"op": "ack", "src": "203.0.113.1:1", "dst": "10.0.1.1:80"})
for port, lab in ((80, "dr"), (81, "ipip"), (82, "gre"), (83, "gue"), (84, "masq")):
    est(port)
    bench("ipvs tcp established, " + lab, {"op": "ack", "src": "203.0.113.1:1000", "dst": "%s:%d" % (V, port)})
ev.append({"op": "udp", "src": "203.0.113.1:1000", "dst": V + ":80"})
bench("ipvs udp known flow, dr", {"op": "udp", "src": "203.0.113.1:1000", "dst": V + ":80"})
bench("ipvs tcp, SYN of a known flow, dr", {"op": "syn", "src": "203.0.113.1:1000", "dst": V + ":80"})
bench("ipvs tcp, SYN of new flows, dr rr", {"op": "syn", "src": "203.0.113.9:1000", "dst": V + ":80"}, vary=True)
bench("xdp tx, test_run of the two-instruction program", pkt("ack"), xdp="tx", test_run=100000)
for k in ("drop", "tx"):
    bench("xdp %s on eth0, peer without XDP" % k, pkt("ack"), xdp=k)
    bench("xdp %s on eth0, peer with XDP pass" % k, pkt("ack"), xdp=k, peer_xdp=True)
bench("ipvs tcp established, dr, with XDP pass on both ends", {"op": "ack", "src": "203.0.113.1:1000", "dst": V + ":80"}, xdp="pass", peer_xdp=True)
bench("base with XDP pass on both ends, dropped in ip_rcv", pkt("ack"), xdp="pass", peer_xdp=True, dmac="020000000099")
print(json.dumps({"name": "bench", "drv_mtu": 1500, "services": services, "events": ev}, indent=1))
