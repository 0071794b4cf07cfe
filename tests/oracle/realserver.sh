# Runs in the VM:  ./run --shell realserver.sh
# A client, a director and two real servers on one bridge. The real servers are
# plain Linux: VIP on lo, arp_ignore, and a tunl0 / gre0 / GUE device. Whole TCP
# conversations (busybox httpd and nc, and `ipvs-oracle serve/talk`) go through the director. To test
# another director, replace the function `director`.
set -u
ip() { /sbin/ip "$@"; }
echo 0 > /proc/sys/net/core/fb_tunnels_only_for_init_net   # wanted: tunl0, gre0 in each ns
VIP=192.0.2.1
for n in cl lb r1 r2; do ip netns add $n; done
ip link add sw0 type bridge; ip link set sw0 up
i=0
for n in cl lb r1 r2; do
    i=$((i+1))
    ip link add p$n type veth peer name eth0 netns $n
    ip link set p$n master sw0 up
    ip netns exec $n /bin/ipvs-oracle offload-off eth0
    ip -n $n link set lo up
    ip -n $n link set eth0 up
done
ip -n cl addr add 10.0.0.254/24 dev eth0
ip -n lb addr add 10.0.0.1/24 dev eth0
ip -n r1 addr add 10.0.0.11/24 dev eth0
ip -n r2 addr add 10.0.0.12/24 dev eth0
ip -n cl addr add 203.0.113.1/32 dev lo
for n in lb r1 r2; do ip -n $n route add default via 10.0.0.254; done
ip -n cl route add $VIP/32 via 10.0.0.1 src 203.0.113.1
for n in r1 r2; do
    ip -n $n addr add $VIP/32 dev lo
    ip netns exec $n sh -c 'for k in all default eth0 tunl0 gre0; do [ -e /proc/sys/net/ipv4/conf/$k ] && echo 0 > /proc/sys/net/ipv4/conf/$k/rp_filter; done
        echo 1 > /proc/sys/net/ipv4/conf/all/arp_ignore; echo 2 > /proc/sys/net/ipv4/conf/all/arp_announce'
    ip -n $n link set tunl0 up; ip -n $n link set gre0 up
    ip netns exec $n /sbin/ip fou add port 6080 gue || echo "no gue in $n"
    mkdir -p /tmp/$n; echo "hello from $n" > /tmp/$n/index.html
    ip netns exec $n /bin/ipvs-oracle serve 0.0.0.0:81 $n &
    ip netns exec $n httpd -p 80 -h /tmp/$n
done
ip netns exec lb sh -c 'echo 0 > /proc/sys/net/ipv4/conf/all/rp_filter; echo 0 > /proc/sys/net/ipv4/conf/eth0/rp_filter'

director() {    # $1: dr ipip gre gue
    ip netns exec lb ipvsadm -C
    ip -n lb addr add $VIP/32 dev lo 2>/dev/null
    ip netns exec lb ipvsadm -A -t $VIP:80 -s rr
    ip netns exec lb ipvsadm -A -t $VIP:81 -s rr
    for p in 80 81; do for r in 10.0.0.11 10.0.0.12; do
        case $1 in
            dr)   set -- $1 -g;;
            ipip) set -- $1 -i;;
            gre)  set -- $1 -i --tun-type gre;;
            gue)  set -- $1 -i --tun-type gue --tun-port 6080;;
        esac
        m=$1; shift
        ip netns exec lb ipvsadm -a -t $VIP:$p -r $r:$p "$@"
        set -- $m
    done; done
}

for m in ${METHODS:-dr ipip gre gue}; do
    echo "== $m"
    director $m
    echo "-- httpd, 6 requests"
    for k in 1 2 3 4 5 6; do
        printf 'GET / HTTP/1.0\r\n\r\n' | ip netns exec cl nc -w 5 $VIP 80 | tail -1
    done | sort | uniq -c
    echo "-- small, then 1 MiB down, then 512 KiB up (through the director: path MTU matters)"
    for x in "10 10" "10 10" "10 1048576" "524288 10" "524288 10"; do
        ip netns exec cl /bin/ipvs-oracle talk $VIP:81 $x
    done
    ip netns exec cl ip route get $VIP | tr '\n' ' '; echo
    for r in r1 r2; do
        ip netns exec $r sh -c "grep -E ' *(tunl0|gre0):' /proc/net/dev" | awk -v r=$r '{print r, $1, "rx packets", $3}'
    done
    ip netns exec lb ipvsadm -Ln
    ip -n cl route flush cache
done
