//! Which addresses may be dialled.
//!
//! *In:* an address that a name was resolved to (or that was asked for by itself), and what the policy [`Named`].
//! *Out:* nothing, or why not.
//!
//! Whatever is not plainly a machine on the public internet is refused unless the policy names it: this machine, its
//! networks, the cloud's metadata, and IPv6 addresses that carry an IPv4 one in them. A network of the policy names a
//! special address only if it lies within the block that makes that address special: `10.0.0.0/8` names `10.1.2.3`,
//! `0.0.0.0/0` names nothing. What is carried must pass by itself.
//!
//! The blocks are those of the IANA special-purpose address registries (RFC 6890 and its updates), and the clouds' own
//! documentation for [`Kind::Metadata`].

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// What makes an address special.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Between a carrier and its customers.
    CarrierGrade,
    /// On the same wire.
    LinkLocal,
    /// This machine.
    Loopback,
    /// What hands out a cloud machine's own credentials.
    Metadata,
    /// Many machines.
    Multicast,
    /// Somebody's own network.
    Private,
    /// Set aside: for tests, examples, protocols, or the future.
    Reserved,
    /// An IPv4 address in the clothes of an IPv6 one.
    Translated,
    /// No machine at all; some systems take it for this one.
    Unspecified,
}

/// The addresses that a policy names for a destination.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// Networks, and single addresses as networks of one.
    pub networks: Vec<IpNet>,
    /// The destination is named in full, without a wildcard: its owner may well mean a machine of his own network.
    pub in_full: bool,
}

/// An address that is not dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected a public address, got {address}, which is {kind} ({block}); if that is meant, the policy must name it in \
     allowed_ips of this endpoint"
)]
pub struct Refused {
    /// The address.
    pub address: IpAddr,
    /// Why.
    pub kind: Kind,
    /// Of which block.
    pub block: IpNet,
}

/// Whether an address may be dialled.
///
/// # Errors
///
/// [`Refused`]
pub fn judge(address: IpAddr, named: &Named) -> Result<(), Refused> {
    let Some((block, kind)) = special(address) else {
        return Ok(());
    };
    if !named.names(address, block, kind) {
        return Err(Refused {
            address,
            kind,
            block,
        });
    }
    match carried(address) {
        Some(inner) => judge(inner.into(), named),
        None => Ok(()),
    }
}

/// The block that makes an address special, if one does.
#[must_use]
pub fn special(address: IpAddr) -> Option<(IpNet, Kind)> {
    match address {
        IpAddr::V4(four) => BLOCKS_V4
            .iter()
            .find(|(block, _)| block.contains(&four))
            .map(|(block, kind)| (IpNet::V4(*block), *kind)),
        IpAddr::V6(six) => BLOCKS_V6
            .iter()
            .find(|(block, _)| block.contains(&six))
            .map(|(block, kind)| (IpNet::V6(*block), *kind))
            .or_else(|| (!GLOBAL_V6.contains(&six)).then_some((ALL_V6, Kind::Reserved))),
    }
}

// === impl Named ===

impl Named {
    fn names(&self, address: IpAddr, block: IpNet, kind: Kind) -> bool {
        let by_network = |network: &IpNet| network.contains(&address) && block.contains(network);
        let own = matches!(kind, Kind::CarrierGrade | Kind::Private);
        (self.in_full && own) || self.networks.iter().any(by_network)
    }
}

/// The IPv4 address that packets to this one end up at.
fn carried(address: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(six) = address else {
        return None;
    };
    let [a, b, c, d, ..] = six.octets();
    let [.., w, x, y, z] = six.octets();
    let last = Ipv4Addr::new(w, x, y, z);
    if SIX_TO_FOUR.contains(&six) {
        let [_, _, e, f, g, h, ..] = six.octets();
        return Some(Ipv4Addr::new(e, f, g, h));
    }
    if TEREDO.contains(&six) {
        return Some(Ipv4Addr::from_bits(!last.to_bits())); // the client's address is kept inverted
    }
    let translated = MAPPED.contains(&six)
        || COMPATIBLE.contains(&six)
        || NAT64.contains(&six)
        || NAT64_LOCAL.contains(&six);
    let unspecified = (a, b, c, d, last.to_bits()) == (0, 0, 0, 0, 0) || six == Ipv6Addr::LOCALHOST;
    (translated && !unspecified).then_some(last)
}

// === impl Kind ===

impl Kind {
    /// As audit lines have it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CarrierGrade => "carrier_grade",
            Self::LinkLocal => "link_local",
            Self::Loopback => "loopback",
            Self::Metadata => "metadata",
            Self::Multicast => "multicast",
            Self::Private => "private",
            Self::Reserved => "reserved",
            Self::Translated => "translated",
            Self::Unspecified => "unspecified",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CarrierGrade => "shared by a carrier's customers",
            Self::LinkLocal => "link-local",
            Self::Loopback => "this machine's own",
            Self::Metadata => "a cloud's metadata service",
            Self::Multicast => "multicast",
            Self::Private => "private",
            Self::Reserved => "reserved",
            Self::Translated => "an IPv4 address within an IPv6 one",
            Self::Unspecified => "unspecified",
        })
    }
}

const fn four(a: u8, b: u8, c: u8, d: u8, length: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), length)
}

/// By its first four groups; no block of ours is longer, but for those that are spelt out.
const fn six(a: u16, b: u16, c: u16, length: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0), length)
}

const COMPATIBLE: Ipv6Net = six(0, 0, 0, 96);
const GLOBAL_V6: Ipv6Net = six(0x2000, 0, 0, 3);
const ALL_V6: IpNet = IpNet::V6(six(0, 0, 0, 0));
const MAPPED: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96);
const NAT64: Ipv6Net = six(0x64, 0xff9b, 0, 96);
const NAT64_LOCAL: Ipv6Net = six(0x64, 0xff9b, 1, 48);
const SIX_TO_FOUR: Ipv6Net = six(0x2002, 0, 0, 16);
const TEREDO: Ipv6Net = six(0x2001, 0, 0, 32);

/// The first that contains an address is the one that counts.
const BLOCKS_V4: &[(Ipv4Net, Kind)] = &[
    (four(169, 254, 169, 254, 32), Kind::Metadata), // AWS, Azure, Google, and most others
    (four(169, 254, 170, 2, 32), Kind::Metadata),   // tasks in AWS containers
    (four(169, 254, 170, 23, 32), Kind::Metadata),  // pods in AWS clusters
    (four(168, 63, 129, 16, 32), Kind::Metadata),   // Azure's wire server
    (four(100, 100, 100, 200, 32), Kind::Metadata), // Alibaba
    (four(192, 0, 0, 192, 32), Kind::Metadata),     // Oracle
    (four(0, 0, 0, 0, 8), Kind::Unspecified),
    (four(10, 0, 0, 0, 8), Kind::Private),
    (four(100, 64, 0, 0, 10), Kind::CarrierGrade),
    (four(127, 0, 0, 0, 8), Kind::Loopback),
    (four(169, 254, 0, 0, 16), Kind::LinkLocal),
    (four(172, 16, 0, 0, 12), Kind::Private),
    (four(192, 0, 0, 0, 24), Kind::Reserved),
    (four(192, 0, 2, 0, 24), Kind::Reserved),
    (four(192, 31, 196, 0, 24), Kind::Reserved),
    (four(192, 52, 193, 0, 24), Kind::Reserved),
    (four(192, 88, 99, 0, 24), Kind::Reserved), // relays of 6to4
    (four(192, 168, 0, 0, 16), Kind::Private),
    (four(192, 175, 48, 0, 24), Kind::Reserved),
    (four(198, 18, 0, 0, 15), Kind::Reserved),
    (four(198, 51, 100, 0, 24), Kind::Reserved),
    (four(203, 0, 113, 0, 24), Kind::Reserved),
    (four(224, 0, 0, 0, 4), Kind::Multicast),
    (four(240, 0, 0, 0, 4), Kind::Reserved), // with the broadcast address
];

const BLOCKS_V6: &[(Ipv6Net, Kind)] = &[
    (
        Ipv6Net::new_assert(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254), 128),
        Kind::Metadata,
    ),
    (
        Ipv6Net::new_assert(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254), 128),
        Kind::Metadata,
    ),
    (
        Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 128),
        Kind::Unspecified,
    ),
    (
        Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128),
        Kind::Loopback,
    ),
    (MAPPED, Kind::Translated),
    (COMPATIBLE, Kind::Translated),
    (NAT64, Kind::Translated),
    (NAT64_LOCAL, Kind::Translated),
    (TEREDO, Kind::Translated),
    (SIX_TO_FOUR, Kind::Translated),
    (six(0x2001, 0, 0, 23), Kind::Reserved),     // protocols
    (six(0x2001, 0xdb8, 0, 32), Kind::Reserved), // examples
    (six(0x3fff, 0, 0, 20), Kind::Reserved),     // examples
    (six(0xfc00, 0, 0, 7), Kind::Private),
    (six(0xfe80, 0, 0, 10), Kind::LinkLocal),
    (six(0xfec0, 0, 0, 10), Kind::Private), // of old
    (six(0xff00, 0, 0, 8), Kind::Multicast),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn named(networks: &[&str]) -> Named {
        Named {
            networks: networks
                .iter()
                .map(|network| network.parse().unwrap())
                .collect(),
            in_full: false,
        }
    }

    fn kind(address: &str) -> Option<Kind> {
        judge(address.parse().unwrap(), &Named::default())
            .err()
            .map(|refused| refused.kind)
    }

    #[test]
    fn what_is_no_public_machine_is_refused() {
        for (address, expected) in [
            ("127.0.0.1", Kind::Loopback),
            ("127.255.255.254", Kind::Loopback),
            ("0.0.0.0", Kind::Unspecified),
            ("0.1.2.3", Kind::Unspecified),
            ("10.0.0.1", Kind::Private),
            ("172.16.0.1", Kind::Private),
            ("172.31.255.255", Kind::Private),
            ("192.168.1.1", Kind::Private),
            ("100.64.0.1", Kind::CarrierGrade),
            ("100.127.255.255", Kind::CarrierGrade),
            ("169.254.1.1", Kind::LinkLocal),
            ("169.254.169.254", Kind::Metadata),
            ("168.63.129.16", Kind::Metadata),
            ("100.100.100.200", Kind::Metadata),
            ("198.18.0.1", Kind::Reserved),
            ("224.0.0.1", Kind::Multicast),
            ("239.255.255.255", Kind::Multicast),
            ("240.0.0.1", Kind::Reserved),
            ("255.255.255.255", Kind::Reserved),
            ("::", Kind::Unspecified),
            ("::1", Kind::Loopback),
            ("::ffff:127.0.0.1", Kind::Translated),
            ("::ffff:8.8.8.8", Kind::Translated),
            ("::8.8.8.8", Kind::Translated),
            ("64:ff9b::a00:1", Kind::Translated),
            ("64:ff9b:1::1", Kind::Translated),
            ("2002:7f00:1::", Kind::Translated),
            ("2001:0:4136:e378:8000:63bf:3fff:fdd2", Kind::Translated),
            ("2001:db8::1", Kind::Reserved),
            ("fc00::1", Kind::Private),
            ("fd12:3456::1", Kind::Private),
            ("fd00:ec2::254", Kind::Metadata),
            ("fe80::1", Kind::LinkLocal),
            ("ff02::1", Kind::Multicast),
            ("4000::1", Kind::Reserved),
            ("100::1", Kind::Reserved),
        ] {
            assert_eq!(kind(address), Some(expected), "{address}");
        }
    }

    #[test]
    fn a_public_machine_is_dialled() {
        for address in [
            "1.1.1.1",
            "8.8.8.8",
            "172.15.255.255",
            "172.32.0.1",
            "100.63.255.255",
            "100.128.0.1",
            "223.255.255.255",
            "2606:4700::1111",
            "2a00:1450:4001::1",
        ] {
            assert_eq!(kind(address), None, "{address}");
        }
    }

    #[test]
    fn a_network_names_only_what_lies_in_the_same_block() {
        let loopback = "127.0.0.1".parse().unwrap();
        assert_eq!(judge(loopback, &named(&["127.0.0.0/8"])), Ok(()));
        assert_eq!(judge(loopback, &named(&["127.0.0.1/32"])), Ok(()));
        assert!(judge(loopback, &named(&["0.0.0.0/0"])).is_err());
        assert!(judge(loopback, &named(&["127.0.0.2/32"])).is_err());
        let metadata = "169.254.169.254".parse().unwrap();
        assert!(judge(metadata, &named(&["169.254.0.0/16"])).is_err());
        assert_eq!(judge(metadata, &named(&["169.254.169.254/32"])), Ok(()));
    }

    #[test]
    fn an_address_within_another_must_be_named_too() {
        let translated = "64:ff9b::a00:1".parse().unwrap();
        let refused = judge(translated, &named(&["64:ff9b::/96"])).unwrap_err();
        assert_eq!(refused.address, "10.0.0.1".parse::<IpAddr>().unwrap());
        assert_eq!(
            judge(translated, &named(&["64:ff9b::/96", "10.0.0.0/8"])),
            Ok(())
        );
        let public = "64:ff9b::808:808".parse().unwrap();
        assert_eq!(judge(public, &named(&["64:ff9b::/96"])), Ok(()));
        let teredo = "2001:0:4136:e378:8000:63bf:80ff:fffe".parse().unwrap(); // of 127.0.0.1
        let refused = judge(teredo, &named(&["2001::/32"])).unwrap_err();
        assert_eq!(refused.kind, Kind::Loopback);
    }

    #[test]
    fn a_destination_named_in_full_may_be_in_a_network_of_ones_own_and_nowhere_else() {
        let own = Named {
            in_full: true,
            ..Named::default()
        };
        for address in ["10.1.2.3", "192.168.0.9", "100.64.0.1", "fd00::7"] {
            assert_eq!(judge(address.parse().unwrap(), &own), Ok(()), "{address}");
        }
        for address in [
            "127.0.0.1",
            "169.254.169.254",
            "::ffff:10.0.0.1",
            "224.0.0.1",
        ] {
            assert!(judge(address.parse().unwrap(), &own).is_err(), "{address}");
        }
    }

    #[test]
    fn a_refusal_says_what_was_got_and_what_to_do() {
        let refused = judge("10.0.0.1".parse().unwrap(), &Named::default()).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "expected a public address, got 10.0.0.1, which is private (10.0.0.0/8); if that is meant, the policy must \
             name it in allowed_ips of this endpoint"
        );
    }
}
