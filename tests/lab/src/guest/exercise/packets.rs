// SPDX-License-Identifier: GPL-2.0-or-later
//! Network devices that come and go, with what can be put upon them, and rules of the packet filter.

use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

use super::{at, expect};
use crate::guest::netlink::{self, Device};
use crate::guest::tables::{self, Match};

/// A device of a kind with one below it.
fn master(kind: &str, data: &[u8]) -> io::Result<()> {
    let name = format!("m-{kind}");
    let master = at(kind, Device::new(kind, &name, (1, 1), data))?;
    let lower = at("dummy", Device::new("dummy", &format!("l-{kind}"), (1, 1), &[]))?;
    at("enslave", lower.put_below(&master))?;
    let is = std::fs::read_link(format!("/sys/class/net/{}/master", lower.name()))?;
    expect(is.ends_with(&name), "the device above")
}

pub(super) fn bridge(_: u64) -> io::Result<()> {
    master("bridge", &[])
}

pub(super) fn bond(_: u64) -> io::Result<()> {
    master("bond", &[])
}

pub(super) fn vrf(_: u64) -> io::Result<()> {
    /// `IFLA_VRF_TABLE`.
    const TABLE: u16 = 1;
    master("vrf", &netlink::attribute(TABLE, &1234_u32.to_ne_bytes()))
}

pub(super) fn vxlan(round: u64) -> io::Result<()> {
    /// `IFLA_VXLAN_ID`.
    const ID: u16 = 1;
    let id = netlink::attribute(ID, &(1 + round as u32 % 1000).to_ne_bytes());
    let device = Device::new("vxlan", "e-vxlan", (1, 1), &id)?;
    let all = netlink::dump(libc::NETLINK_ROUTE, 18, &[0; 16])?;
    expect(all > 1, "the device is not listed")?;
    drop(device);
    Ok(())
}

pub(super) fn ifb(_: u64) -> io::Result<()> {
    let device = Device::new("ifb", "e-ifb", (2, 2), &[])?;
    let count = crate::guest::setup::driver_info(device.name())?;
    expect(count > 0, "the device has no statistics")
}

/// Bands, what chooses among them, and actions (include/uapi/linux/rtnetlink.h, pkt_sched.h, pkt_cls.h).
pub(super) fn classifiers(_: u64) -> io::Result<()> {
    const NEW_QDISC: u16 = 36;
    const NEW_FILTER: u16 = 44;
    const GET_FILTER: u16 = 46;
    const ROOT: u32 = u32::MAX;
    const HANDLE: u32 = 0x1_0000;
    /// The attributes with a kind and with its options.
    const KIND: u16 = 1;
    const OPTIONS: u16 = 2;
    let device = at("dummy", Device::new("dummy", "e-sched", (1, 1), &[]))?;
    let index = device.index()?;
    let head = |handle: u32, parent: u32, info: u32| {
        let words = [0, index, handle, parent, info];
        words.iter().flat_map(|word| word.to_ne_bytes()).collect::<Vec<u8>>()
    };
    let named = |kind: &str| netlink::attribute(KIND, &[kind.as_bytes(), &[0]].concat());
    // struct tc_prio_qopt: three bands, and all priorities in the second.
    let bands = [&3_i32.to_ne_bytes()[..], &[1; 16]].concat();
    let body = [head(HANDLE, ROOT, 0), named("prio"), netlink::attribute(OPTIONS, &bands)];
    at("prio", netlink::set(NEW_QDISC, &body.concat()))?;
    // struct tc_gact: let it pass, and who counts the rest.
    let pass: Vec<u8> = [0_u32; 5].iter().flat_map(|word| word.to_ne_bytes()).collect();
    let action = [named("gact"), netlink::attribute(OPTIONS, &netlink::attribute(2, &pass))];
    let actions = netlink::attribute(1, &action.concat());
    let class = netlink::attribute(1, &(HANDLE + 1).to_ne_bytes());
    // A filter's action is attribute 4 of fw, 6 of route, which wants to know where to (2): the lower half of
    // its handle. The upper is where from, anywhere.
    let there = netlink::attribute(2, &7_u32.to_ne_bytes());
    for (kind, priority, handle, options) in [
        ("fw", 1, 5, [class.clone(), netlink::attribute(4, &actions)]),
        ("route", 2, 0xffff_0007, [[class, there].concat(), netlink::attribute(6, &actions)]),
    ] {
        // ETH_P_IP, as it is on the wire.
        let info = (priority << 16) | u32::from(0x0800_u16.to_be());
        let options = netlink::attribute(OPTIONS, &options.concat());
        let body = [head(handle, HANDLE, info), named(kind), options].concat();
        at(kind, netlink::set(NEW_FILTER, &body))?;
    }
    let all = netlink::dump(libc::NETLINK_ROUTE, GET_FILTER, &head(0, HANDLE, 0))?;
    expect(all >= 2, "the filters that were made are not listed")
}

/// With a rule in the table a packet still comes through.
fn rule(rule: &Match) -> io::Result<()> {
    tables::with_match(rule, || {
        let (from, to) = (
            UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?,
            UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?,
        );
        to.set_read_timeout(Some(Duration::from_secs(20)))?;
        from.send_to(b"packet", to.local_addr()?)?;
        let mut got = [0; 16];
        let (size, _) = to.recv_from(&mut got)?;
        expect(got.get(..size) == Some(b"packet"), "the packet that was received")
    })
}

pub(super) fn u32_rule(_: u64) -> io::Result<()> {
    rule(&tables::shift_by(8))
}

pub(super) fn multiport_rule(_: u64) -> io::Result<()> {
    rule(&tables::ports(80, Some(90)))
}
