//! Frames against bytes worked out by hand or seen on the wire.

use etherparse::{SlicedPacket, TransportSlice};

use super::*;

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.chars().filter_map(|c| c.to_digit(16)).map(|digit| digit as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn client() -> Ip {
    eth().ipv4("203.0.113.1", "192.0.2.1")
}

fn client6() -> Ip {
    eth().ipv6("2001:db8:1::1", "2001:db8:ff::1")
}

#[test]
fn a_syn_seen_on_the_wire_is_built_byte_for_byte() {
    let wire = "020000000001 0200000000fe 0800 45000028 0001 4000 40 06 3ccc cb007101 c0000201
                4e21 0050 000003e8 00000000 50 02 faf0 6495 0000";
    assert_eq!(client().tcp(20001, 80).syn().build(), bytes(wire));
}

#[test]
fn tags_follow_the_addresses_outermost_first() {
    let plain = client().udp(1, 2).build();
    let eth = eth().from([2, 9, 9, 9, 9, 9]).to([2, 8, 8, 8, 8, 8]).service_vlan(100).vlan(4095);
    let tagged = eth.ipv4("203.0.113.1", "192.0.2.1").udp(1, 2).build();
    assert_eq!(tagged[..22], bytes("020808080808 020909090909 88a8 0064 8100 0fff 0800"));
    assert_eq!(tagged[22..], plain[14..]);
}

#[test]
fn any_other_ether_type_carries_its_body() {
    assert_eq!(eth().other(0x0806, &[1, 2]), bytes("020000000001 0200000000fe 0806 0102"));
}

#[test]
fn checksums_of_every_transport_and_family_verify() {
    for (what, frame) in [
        ("TCP", client().tcp(1, 2).psh().ack(7).payload_len(11).build()),
        ("TCP over IPv6", client6().tcp(1, 2).fin().payload_len(12).build()),
        ("UDP", client().udp(1, 2).payload_len(1).build()),
        ("UDP over IPv6", client6().udp(1, 2).payload_len(0).build()),
        ("ICMP", client().icmp_echo(3, 4).payload_len(5).build()),
        ("ICMPv6", client6().icmp_echo_reply(3, 4).payload_len(5).build()),
        ("ICMPv6 error", client6().icmp_error(2, 0, 1280, &client6().udp(1, 2).ip_bytes()).build()),
    ] {
        assert_eq!(sum(&frame), 0xffff, "{what}");
    }
    assert_ne!(sum(&client().tcp(1, 2).wrong_checksum().build()), 0xffff);
    assert_ne!(sum(&client().udp(1, 2).wrong_checksum().build()), 0xffff);
    assert_eq!(client().udp(1, 2).no_checksum().build()[40..42], [0, 0]);
}

/// RFC 1071 over pseudo header and transport, in plain arithmetic: 0xffff when the checksum is right.
fn sum(frame: &[u8]) -> u32 {
    let (addresses, protocol, l4) = match frame[12] {
        0x08 => (&frame[26..34], frame[23], &frame[34..]),
        _ => (&frame[22..54], frame[20], &frame[54..]),
    };
    let pseudo = if protocol == 1 {
        Vec::new()
    } else {
        [addresses, &[0, protocol], &(l4.len() as u16).to_be_bytes()].concat()
    };
    let mut all = [&pseudo, l4].concat();
    all.resize(all.len().next_multiple_of(2), 0);
    let sum: u32 = all.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    (sum & 0xffff) + (sum >> 16)
}

#[test]
fn a_udp_checksum_that_comes_out_as_zero_is_sent_as_all_ones() {
    let payload = (0..=u16::MAX)
        .map(u16::to_be_bytes)
        .find(|payload| client().udp(1, 2).payload(payload).build()[40..42] == [0xff, 0xff]);
    let frame = client().udp(1, 2).payload(&payload.expect("one payload makes the sum zero")).build();
    assert_eq!(sum(&frame), 0xffff);
    assert!((0..=u16::MAX).all(|n| client().udp(1, 2).payload(&n.to_be_bytes()).build()[40..42] != [0, 0]));
}

#[test]
fn fields_of_the_network_layer_are_where_the_rfcs_put_them() {
    let ip = client().ttl(9).tos(0xb9).id(0xabcd).df(false).options(&[1, 1, 1, 0]).udp(1, 2).ip_bytes();
    assert_eq!(ip[..12], [&bytes("46b90020 abcd 0000 09 11")[..], &ip[10..12]].concat());
    assert_eq!(ip[20..24], [1, 1, 1, 0]);
    let ip = client6().ttl(9).tos(0xb9).flow_label(0x12345).udp(1, 2).ip_bytes();
    assert_eq!(ip[..8], bytes("6b912345 0008 11 09"));
}

#[test]
fn extension_headers_chain_to_the_transport_in_the_order_given() {
    let ip = client6().hop_by_hop().destination_options().tcp(1, 2).syn().ip_bytes();
    assert_eq!(ip[4..7], [0, 36, 0], "36 bytes follow, a hop-by-hop header first");
    assert_eq!(ip[40..56], bytes("3c00010400000000 0600010400000000"));
    let frame = client6().hop_by_hop().destination_options().tcp(1, 2).syn().build();
    let sliced = SlicedPacket::from_ethernet(&frame).unwrap();
    assert!(matches!(sliced.transport, Some(TransportSlice::Tcp(tcp)) if tcp.syn()));
}

#[test]
fn fragments_put_together_are_the_packet() {
    let whole = client().id(77).udp(1, 2).payload_len(600);
    let parts = whole.ip_fragments(&[304, 200]);
    let offsets: Vec<u16> = parts.iter().map(|part| u16::from_be_bytes([part[6], part[7]])).collect();
    assert_eq!(offsets, [0x2000, 0x2000 | 38, 63], "more to come, and units of 8 bytes");
    assert!(parts.iter().all(|part| part[4..6] == [0, 77]));
    let together: Vec<u8> = parts.iter().flat_map(|part| part[20..].to_vec()).collect();
    assert_eq!(together, whole.ip_bytes()[20..]);

    let whole = client6().id(77).hop_by_hop().udp(1, 2).payload_len(600);
    let parts = whole.ip_fragments(&[304, 200]);
    for (part, words) in parts.iter().zip([0x0001_u16, 304 | 1, 504]) {
        assert_eq!(part[40], 44, "the hop-by-hop header comes before the fragment header");
        assert_eq!(part[48..56], [&[17, 0], &words.to_be_bytes()[..], &77u32.to_be_bytes()].concat());
    }
    let together: Vec<u8> = parts.iter().flat_map(|part| part[56..].to_vec()).collect();
    assert_eq!(together, whole.ip_bytes()[48..]);
}

#[test]
fn unsaid_df_is_set_on_unfragmented_tcp_alone() {
    let df = |packet: Vec<u8>| packet[6] & 0x40 != 0;
    assert!(df(client().tcp(1, 2).ip_bytes()));
    assert!(!df(client().udp(1, 2).ip_bytes()));
    assert!(!df(client().tcp(1, 2).payload_len(40).ip_fragments(&[32]).remove(0)));
    assert!(df(client().df(true).udp(1, 2).ip_bytes()));
}

#[test]
fn tcp_flags_are_the_letters_bits() {
    let flags = |letters| client().tcp(1, 2).flags(letters).build()[47];
    for (bit, letter) in ["F", "S", "R", "P", "A", "U", "E", "C"].into_iter().enumerate() {
        assert_eq!(flags(letter), 1 << bit, "{letter}");
    }
    assert_eq!((flags("0"), flags("SEC")), (0, 0xc2));
    assert_eq!(tcp_flags("X"), None);
}

#[test]
fn tunnels_name_the_family_inside() {
    let (four, six) = (client().udp(1, 2).ip_bytes(), client6().udp(1, 2).ip_bytes());
    let outer = || eth().ipv6("fd00::1", "fd00::1:1");
    assert_eq!((outer().ipip(&four).ip_bytes()[6], outer().ipip(&six).ip_bytes()[6]), (4, 41));
    assert_eq!(outer().gre(&four, false).ip_bytes()[40..44], [0, 0, 8, 0]);
    assert_eq!(outer().gre(&six, true).ip_bytes()[40..44], [0x80, 0, 0x86, 0xdd]);
    assert_eq!(outer().gue(40000, 6080, &six).ip_bytes()[48..52], [0, 41, 0, 0]);
}

#[test]
fn a_servers_address_on_the_segment_follows_from_its_ip_address() {
    assert_eq!(server_mac("10.0.1.2".parse().unwrap()), [2, 1, 10, 0, 1, 2]);
    assert_eq!(server_mac("fd00::1:2".parse().unwrap()), [2, 6, 0, 1, 0, 2]);
}
