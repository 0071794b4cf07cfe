#!/usr/bin/env python3
"""Holds the scheduler traces (group A) to a plain reading of the algorithms:
all of them. Counters come from the trace itself ("st").
  check_a.py [TRACES_DIR...]    prints picks that differ; without a folder, in ../traces
A sanity check of the traces, and a short description of what IPVS does.
"""
import ipaddress, json, math, os, sys
import recordings


class D:
    def __init__(s, ep, w): s.ep, s.w, s.a, s.i, s.lw = ep, w, 0, 0, w


class Base:
    def __init__(s, l): s.l = l; s.changed()
    def add(s, d): s.l.insert(0, d); s.changed()
    def rem(s, d): s.l.remove(d); s.changed()
    def changed(s): pass


class RR(Base):                       # the list starts with the server added last
    p = None                          # picked last; None: before the head
    def rem(s, d):
        if s.p is d:
            i = s.l.index(d); s.p = s.l[i - 1] if i else None
        s.l.remove(d)
    def pick(s):
        i = s.l.index(s.p) + 1 if s.p in s.l else 0
        for d in s.l[i:] + s.l[:i]:
            if d.w > 0: s.p = d; return d


class WRR(Base):
    # cw keeps its value when a server is added or edited, so where the first round
    # starts depends on the order (and the weights) in which servers were added.
    cw = mw = 0
    def changed(s):
        s.pos = -1
        ws = [d.w for d in s.l if d.w > 0]
        s.di = math.gcd(*ws) if ws else 1
        s.mw = (max(ws) if ws else 0) - (s.di - 1) if ws else 0
        if s.cw > s.mw or not s.cw: s.cw = s.mw
        elif s.di > 1: s.cw = s.cw // s.di * s.di + 1
    def pick(s):
        if s.mw <= 0: return None
        for _ in range(2 * (s.mw + 2)):
            while s.pos + 1 < len(s.l):
                s.pos += 1
                if s.l[s.pos].w >= s.cw: return s.l[s.pos]
            s.pos = -1
            s.cw -= s.di
            if s.cw <= 0: s.cw = s.mw


def least(l, cost):
    b = None
    for d in l:                       # the first of equals in list order
        if d.w <= 0: continue
        if b is None or cost(b) * d.w > cost(d) * b.w: b = d
    return b


class LC(Base):
    def pick(s):
        b = None
        for d in s.l:
            if d.w > 0 and (b is None or d.a * 256 + d.i < b.a * 256 + b.i): b = d
        return b
class WLC(Base):
    def pick(s): return least(s.l, lambda d: d.a * 256 + d.i)
class SED(Base):
    def pick(s): return least(s.l, lambda d: d.a + 1)
class NQ(Base):
    def pick(s):
        for d in s.l:
            if d.w > 0 and d.a == 0: return d
        return least(s.l, lambda d: d.a + 1)
class FO(Base):
    def pick(s):
        b = None
        for d in s.l:
            if d.w > (b.w if b else 0): b = d
        return b
class OVF(Base):
    def pick(s):
        b = None
        for d in s.l:
            if d.w > 0 and d.a <= d.w and (b is None or d.w > b.w): b = d
        return b


def fold(a):
    n = int(a)
    if a.version == 4: return n
    return (n >> 96 ^ n >> 64 ^ n >> 32 ^ n) & 0xffffffff
def h32(v, bits): return ((v * 0x61C88647) & 0xffffffff) >> (32 - bits)


class SH(Base):
    flags = ""
    def changed(s):
        s.t = []
        if s.l:
            i, c = 0, 0
            while len(s.t) < 256:
                # a server of weight 0 still gets one turn
                d = s.l[i]; s.t.append(d); c += 1
                if c >= d.w: i = (i + 1) % len(s.l); c = 0
    def pick(s, src, dst):
        a, p = src
        p = p if "sh-port" in s.flags else 0
        h = lambda off: (off + h32((p + fold(a)) & 0xffffffff, 8)) & 255
        if not s.l: return None
        d = s.t[h(0)]
        if d.w > 0: return d
        if "sh-fallback" not in s.flags: return None
        ih = h(0)
        for off in range(256):
            d = s.t[h((off + ih) & 255)]
            if d.w > 0: return d


class DH(Base):
    def changed(s): s.t = [s.l[i % len(s.l)] for i in range(256)] if s.l else []
    def pick(s, src, dst):
        if not s.l: return None
        d = s.t[h32(fold(dst[0]), 8)]
        return d if d.w > 0 else None


def overloaded(d, l): return d.a > d.w and any(x.a * 2 < x.w for x in l)


class LBLC(Base):
    def __init__(s, l): s.cache = {}; Base.__init__(s, l)
    # a deleted server stays cached, and counts again when it is added again
    def pick(s, src, dst):
        d = s.cache.get(dst[0])
        if d and d in s.l and d.w > 0 and not overloaded(d, s.l): return d
        d = least(s.l, lambda d: d.a * 256 + d.i)
        if d: s.cache[dst[0]] = d
        return d


class LBLCR(Base):
    def __init__(s, l): s.cache = {}; Base.__init__(s, l)
    def pick(s, src, dst):
        c = s.cache.get(dst[0])
        cost = lambda d: d.a * 256 + d.i
        if c is not None:
            d = least([x for x in c if x in s.l], cost)
            if d and not overloaded(d, s.l): return d
        d = least(s.l, cost)
        if d is None: return None
        c = s.cache.setdefault(dst[0], [])
        if d not in c: c.insert(0, d)
        return d


M64 = (1 << 64) - 1
def rotl(x, b): return (x << b | x >> (64 - b)) & M64
def hsip(word, key):                   # hsiphash of one 32-bit word: SipHash-1-3
    v = [0x736f6d6570736575 ^ key, 0x646f72616e646f6d ^ key, 0x6c7967656e657261 ^ key, 0x7465646279746573 ^ key]
    def rnd():
        v[0] = (v[0] + v[1]) & M64; v[1] = rotl(v[1], 13) ^ v[0]; v[0] = rotl(v[0], 32)
        v[2] = (v[2] + v[3]) & M64; v[3] = rotl(v[3], 16) ^ v[2]
        v[0] = (v[0] + v[3]) & M64; v[3] = rotl(v[3], 21) ^ v[0]
        v[2] = (v[2] + v[1]) & M64; v[1] = rotl(v[1], 17) ^ v[2]; v[2] = rotl(v[2], 32)
    b = 4 << 56 | word
    v[3] ^= b; rnd(); v[0] ^= b; v[2] ^= 0xff
    for _ in range(3): rnd()
    return (v[0] ^ v[1] ^ v[2] ^ v[3]) & 0xffffffff


class MH(Base):
    flags = ""
    N, K1, K2 = 4093, 2654435761, 2654446892
    def changed(s):
        ws = [d.lw for d in s.l]
        g = math.gcd(*ws) if ws else 0
        s.t = [None] * s.N
        if g < 1: return
        sh = max((max(ws) // g).bit_length() - 6, 0)
        st = []
        for d in s.l:
            a, p = ep(d.ep)
            w = (p + fold(a)) & 0xffffffff
            st.append([hsip(w, s.K1) % s.N, hsip(w, s.K2) % (s.N - 1) + 1, ((d.lw // g) >> sh) or int(d.lw != 0), d])
        n = 0
        while True:
            for x in st:
                for _ in range(x[2]):
                    while s.t[x[0]] is not None: x[0] = (x[0] + x[1]) % s.N
                    s.t[x[0]] = x[3]; n += 1
                    if n == s.N: return
    def pick(s, src, dst):
        a, p = src
        p = p if "mh-port" in s.flags else 0
        at = lambda off: s.t[hsip((off + p + fold(a)) & 0xffffffff, s.K1) % s.N]
        d = at(0)
        if d is None or d.w > 0: return d
        if "mh-fallback" not in s.flags: return None
        ih = hsip((p + fold(a)) & 0xffffffff, s.K1) % s.N
        for off in range(s.N):
            d = at((off + ih) % s.N)
            if d is None or d.w > 0: return d


K = {"mh": MH, "lblc": LBLC, "lblcr": LBLCR, "rr": RR, "wrr": WRR, "lc": LC, "wlc": WLC, "sed": SED, "nq": NQ, "fo": FO, "ovf": OVF, "sh": SH, "dh": DH}


def ep(s):
    h, p = s.rsplit(":", 1)
    return ipaddress.ip_address(h.strip("[]")), int(p)


def check(path, sc, L):
    sv = sc["services"][0]
    if sv["sched"] not in K: return None
    dests = {}
    l = []
    for e, fwd, w in L[0]["order"][0]["list"]:
        dests[e] = D(e, w); l.append(dests[e])
    m = K[sv["sched"]].__new__(K[sv["sched"]]); m.flags = sv.get("flags") or ""
    m.__init__([])
    for d in reversed(l): m.add(d)      # added one by one, each at the head
    n = bad = 0
    for r in L[1:]:
        if "i" not in r: continue
        e = sc["events"][r["i"]]
        st = r.get("st", {})
        key = lambda: "[%s]:%d" % (e["rip"], e["port"]) if ":" in e["rip"] else "%s:%d" % (e["rip"], e["port"])
        new = False
        if "dst" in e:
            # a new connection shows in the counters (or, with ops, is every datagram)
            tot = sum(v[1] + v[2] - dests[k].a - dests[k].i for k, v in st.items() if v and k in dests)
            reuse = e["op"] == "syn" and any(v and v[1] > dests[k].a for k, v in st.items() if k in dests)
            refused = r.get("to") == "router" and r["via"].startswith("icmp")
            new = tot > 0 or sv.get("ops") or refused
            if new:
                d = m.pick(ep(e["src"]), ep(e["dst"])) if isinstance(m, (SH, DH, MH, LBLC, LBLCR)) else m.pick()
                want = "router" if d is None else d.ep.rsplit(":", 1)[0].strip("[]")
                n += 1
                if want != r["to"]:
                    bad += 1
                    if bad < 4: print("%s event %d: IPVS %s, reading says %s" % (os.path.basename(path), r["i"], r["to"], want))
        for k, v in st.items():
            if v is None: continue
            if k not in dests: dests[k] = D(k, v[0])
            dests[k].w, dests[k].a, dests[k].i = v
        if r.get("rc") == 0:
            if e["op"] == "add":
                d = dests.get(key()) or D(key(), e["weight"]); dests[key()] = d; d.w = d.lw = e["weight"]; m.add(d)
            elif e["op"] == "del": m.rem(dests[key()])
            elif e["op"] == "edit": 
                d = dests[key()]; d.w = e["weight"]; d.lw = d.w or d.lw; m.changed()
    return n, bad


tot = {}
for folder in sys.argv[1:] or [recordings.TRACES]:
    texts = dict(recordings.files(folder))
    for p in sorted(p for p in texts if p.endswith(".trace.jsonl") and "/A/" in "/" + p):
        sc = json.loads(texts[p.replace(".trace.jsonl", ".scenario.json")])
        r = check(p, sc, [json.loads(l) for l in texts[p].splitlines()])
        if r is None: continue
        t = tot.setdefault(sc["services"][0]["sched"], [0, 0, 0]); t[0] += 1; t[1] += r[0]; t[2] += r[1]
for s, t in tot.items(): print("%-4s %3d traces %6d picks %5d differ" % (s, *t))
if not tot: sys.exit("no trace of group A there")
