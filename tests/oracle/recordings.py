#!/usr/bin/env python3
"""The recordings in ../traces: one GROUP.tar.xz a group, of GROUP/NAME.scenario.json and GROUP/NAME.trace.jsonl.
  recordings.py unpack DIR [GROUP...]   writes DIR/GROUP/...
  recordings.py pack DIR [GROUP...]     makes ../traces/GROUP.tar.xz of DIR/GROUP/..., the same bytes each time
"""
import io, lzma, os, sys, tarfile

TRACES = os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "traces"))
ENDS = (".scenario.json", ".trace.jsonl")


def files(folder=TRACES):
    """(name, text) of every recorded file below a folder, in archives or plain; names start with the group."""
    for d, _, fs in sorted(os.walk(folder)):
        for f in sorted(fs):
            p = os.path.join(d, f)
            if f.endswith(".tar.xz"):
                with tarfile.open(p) as t:
                    for m in t:
                        if m.isfile() and m.name.endswith(ENDS):
                            yield m.name, t.extractfile(m).read().decode()
            elif f.endswith(ENDS):
                yield os.path.relpath(p, folder), open(p).read()


def read(path):
    """The text of a file, or of GROUP/NAME.trace.jsonl (or .scenario.json) in ../traces."""
    if os.path.exists(path):
        return open(path).read()
    archive = os.path.join(TRACES, path.split("/")[0] + ".tar.xz")
    if not os.path.exists(archive):
        sys.exit("%s: neither a file nor a recording in %s" % (path, TRACES))
    with tarfile.open(archive) as t:
        return t.extractfile(path).read().decode()


def unpack(folder, groups):
    n = 0
    for name, text in files():
        if not groups or name.split("/")[0] in groups:
            p = os.path.join(folder, name)
            os.makedirs(os.path.dirname(p), exist_ok=True)
            with open(p, "w") as f:
                f.write(text)
            n += 1
    print("%d files in %s" % (n, folder))


def pack(folder, groups):
    for g in groups or sorted(g for g in os.listdir(folder) if os.path.isdir(os.path.join(folder, g))):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as t:
            for f in sorted(f for f in os.listdir(os.path.join(folder, g)) if f.endswith(ENDS)):
                data = open(os.path.join(folder, g, f), "rb").read()
                m = tarfile.TarInfo(g + "/" + f)
                m.size = len(data)
                t.addfile(m, io.BytesIO(data))
        p = os.path.join(TRACES, g + ".tar.xz")
        with open(p, "wb") as f:
            f.write(lzma.compress(out.getvalue(), preset=9 | lzma.PRESET_EXTREME))
        print("%s: %d bytes" % (p, os.path.getsize(p)))


if __name__ == "__main__":
    if len(sys.argv) < 3 or sys.argv[1] not in ("pack", "unpack"):
        sys.exit(__doc__)
    {"pack": pack, "unpack": unpack}[sys.argv[1]](sys.argv[2], sys.argv[3:])
